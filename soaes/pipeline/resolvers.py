"""The functions that conf/ may call in `${...}`: digests, machine, library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from soaes.data.curation.sources import FOLDERS, check_documents, digest
from soaes.decode.backends.vllm_environment import library
from soaes.model import folder
from soaes.pipeline import command_line, origins
from soaes.pipeline.provenance import machine


def cache_folder(arguments: list[str]) -> Path:
    """Return the cache folder beside the store that a command line names.

    Args:
        arguments: The words of the command line; the last `runtime.store=` counts, else the
            environment variable SOAES_STORE, else `store`.
    """
    store = command_line.value(arguments, "runtime.store")
    return Path(store or os.environ.get("SOAES_STORE", "store")) / ".cache"


def data_digest(root: str, *kinds: str) -> str:
    """Return the digest by which a user's data folder enters a recipe.

    Args:
        root: The folder.
        kinds: Of its files, those of these kinds (soaes.data.curation.sources); none: all.

    Raises:
        ValueError: There is no such folder, or it is to give documents and has none.
    """
    if not str(root).strip() or not Path(root).is_dir():
        raise ValueError(f"data.root={root}: there is no such folder; README says what it may hold")
    content = digest(root, cache_folder([]), kinds or FOLDERS)
    if "corpus" in kinds:
        check_documents(root)
    return content


def local_model(path: str) -> dict[str, Any]:
    """Return what stands for a model's folder in a recipe, see `soaes.model.folder.content`."""
    return folder.content(Path(path).expanduser(), cache_folder([]))


def _published(setting: str, value: str, part: str) -> str:
    return str(getattr(origins.published(setting, value), part))


def register() -> None:
    """Register the resolvers with OmegaConf."""
    OmegaConf.register_new_resolver("digest", data_digest, replace=True)
    OmegaConf.register_new_resolver("local_model", local_model, replace=True)
    OmegaConf.register_new_resolver("published", _published, replace=True)
    OmegaConf.register_new_resolver("library", library, replace=True)
    OmegaConf.register_new_resolver("machine", machine, replace=True)
