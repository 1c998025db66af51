"""What conf/ may ask for in `${...}`: a data folder's digest, the machine, a library, the process."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import OmegaConf

from soaes.data.curation.sources import digest
from soaes.decode.backends.vllm_environment import library
from soaes.pipeline.provenance import machine


def cache_folder(arguments: list[str]) -> Path:
    """Beside the store that the command line names."""
    given = [word.split("=", 1)[1] for word in arguments if word.startswith("runtime.store=")]
    return Path((given or [os.environ.get("SOAES_STORE", "store")])[-1]) / ".cache"


def data_digest(root: str) -> str:
    """What a folder of the user's own enters a recipe as."""
    if not Path(root).is_dir():
        raise ValueError(f"data.root={root}: there is no such folder; README says what it may hold")
    return digest(root, cache_folder([]))


def register() -> None:
    """Make the names known to OmegaConf."""
    OmegaConf.register_new_resolver("digest", data_digest, replace=True)
    OmegaConf.register_new_resolver("pid", os.getpid, replace=True)
    OmegaConf.register_new_resolver("library", library, replace=True)
    OmegaConf.register_new_resolver("machine", machine, replace=True)
