"""Specialise a language model to a domain, then serve it fast: the SOAEsV2 paper as a Hydra experiment repository."""
