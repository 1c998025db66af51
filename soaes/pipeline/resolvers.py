"""The functions that conf/ may call in `${...}`: data digest, machine, library, process id."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import OmegaConf

from soaes.data.curation.sources import digest
from soaes.decode.backends.vllm_environment import library
from soaes.pipeline import command_line
from soaes.pipeline.provenance import machine


def cache_folder(arguments: list[str]) -> Path:
    """Return the cache folder beside the store that a command line names.

    Args:
        arguments: The words of the command line; the last `runtime.store=` counts, else the
            environment variable SOAES_STORE, else `store`.
    """
    store = command_line.value(arguments, "runtime.store")
    return Path(store or os.environ.get("SOAES_STORE", "store")) / ".cache"


def data_digest(root: str) -> str:
    """Return the digest by which a user's data folder enters a recipe.

    Raises:
        ValueError: There is no such folder.
    """
    if not str(root).strip() or not Path(root).is_dir():
        raise ValueError(f"data.root={root}: there is no such folder; README says what it may hold")
    return digest(root, cache_folder([]))


def register() -> None:
    """Register the resolvers with OmegaConf."""
    OmegaConf.register_new_resolver("digest", data_digest, replace=True)
    OmegaConf.register_new_resolver("pid", os.getpid, replace=True)
    OmegaConf.register_new_resolver("library", library, replace=True)
    OmegaConf.register_new_resolver("machine", machine, replace=True)
