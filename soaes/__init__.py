"""Specialise a language model to a domain, then serve it fast: SOAEsV2-7B/72B with Hydra."""
