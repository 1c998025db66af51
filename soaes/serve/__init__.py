"""Serve a target and its draft with vLLM. `__main__` is the command line and reads downwards.

`pair` finds the models and what was measured of them, `checks` tells whether they can be served
together, `command` writes vLLM's command, `server` runs it. Knows folders and HTTP; no torch.
"""
