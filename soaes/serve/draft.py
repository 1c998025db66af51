"""The draft as vLLM reads it: with as many vocabulary rows as the target has.

Writes a copy where rows are missing (soaes.stages.export); loads no torch itself.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from soaes.model import folder as model_folder
from soaes.serve import checks
from soaes.serve.pair import Pair


def serving_folder(pair: Pair) -> Path:
    """Return the folder of what is written to serve a pair: the command, its log, a wider draft.

    Its name follows from the files of both models, as far as sizes and times tell them.
    """
    digest = hashlib.sha256()
    for model in (pair.target, pair.draft):
        for name in model_folder.files(model.folder):
            path = model.folder / name
            status = path.stat()
            digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    stem = "-".join(model.folder.name for model in (pair.target, pair.draft))
    return pair.store.root / "serve" / f"{stem}-{digest.hexdigest()[:8]}"


def draft_folder(pair: Pair) -> Path:
    """Return the folder that vLLM reads the draft from: its own, if it lacks no vocabulary rows."""
    if checks.rows(pair.draft) == checks.rows(pair.target):
        return pair.draft.folder
    return serving_folder(pair) / "draft"


def export_draft(pair: Pair) -> Path:
    """Give the draft the vocabulary rows that it lacks of the target's, in a folder of its own.

    Returns:
        The folder that vLLM reads the draft from.
    """
    folder = draft_folder(pair)
    if folder == pair.draft.folder or folder.exists():
        return folder
    part = folder.with_name("draft.part")
    part.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # in it torch is loaded, and not here
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        executor.submit(_export, pair.draft.folder, pair.target.folder, part).result()
    os.replace(part, folder)
    return folder


def _export(model: Path, like: Path, out: Path) -> None:
    importlib.import_module("soaes.stages.export").export(model, like, out=out)
