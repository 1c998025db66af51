"""Run one stage in a process of its own: realise its recipe, call its function, seal its folder.

Started by `soaes.pipeline.scheduler` as a fork of a process that has torch loaded, or by `torchrun -m soaes.pipeline.worker FOLDER`."""

from __future__ import annotations

import errno
import functools
import importlib.util
import inspect
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from soaes.pipeline import provenance, tracking
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_recipe, write_manifest
from soaes.pipeline.validation import check_target


def main(store: Store, name: str, runtime: dict[str, Any]) -> None:
    """Build the stage whose recipe lies in the unfinished folder `name`; exit code 1 and error.txt if it fails."""
    out = store.unfinished(name)
    _redirect(out / "log.txt")
    try:
        run(store, read_recipe(store, name), runtime, out)
    except BaseException as error:  # whatever ends a stage is written down before the process ends
        if not (out / "reason.txt").exists():  # of several ranks the first to fail knows why
            (out / "error.txt").write_text(traceback.format_exc())
            (out / "reason.txt").write_text(reason(error))
        sys.exit(1)


def run(store: Store, recipe: Recipe, runtime: dict[str, Any], out: Path) -> None:
    """Call the stage's function: its recipe's arguments, and of the runtime whatever it names as a parameter."""
    began = time.monotonic()
    function = locate(recipe.target)
    wanted = inspect.signature(function).parameters
    arguments = _without_revision(
        function, {key: realise(value, store) for key, value in recipe.arguments.items()}
    )
    code = provenance.code_digest(recipe)
    for parent in recipe.parents.values():
        store.verify(parent.name)
    with tracking.track_stage(recipe, runtime, out) as tracker:
        context = {"execution": runtime["execution"], "root": runtime["root"], "tracker": tracker}
        chosen = {
            key: realise(value, store)
            for key, value in context.items()
            if key in wanted and key not in arguments
        }
        function(**chosen, **arguments, out=out)
        if tracker is not None:  # the first rank
            seconds, memory = (
                tracker.earlier + time.monotonic() - began,
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            )
            write_manifest(
                out,
                seconds=round(seconds, 2),
                peak_memory_mb=memory,
                source=code,
                **provenance.provenance(),
            )


def realise(value: Any, store: Store) -> Any:
    """Parents become folders, options with a `_target_` are called (or bound, with `_partial_`), the rest stays.

    A `revision` is not passed on, see _without_revision."""
    if isinstance(value, Recipe):
        return store.folder(value.name)
    if isinstance(value, list):
        return [realise(inner, store) for inner in value]
    if not isinstance(value, dict):
        return value
    plain = {key: realise(inner, store) for key, inner in value.items()}
    if "_target_" not in plain:
        return plain
    function, partial = locate(plain.pop("_target_")), plain.pop("_partial_", False)
    plain = _without_revision(function, plain)
    return functools.partial(function, **plain) if partial else function(**plain)


def _without_revision(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """`revision` tells one meaning of a function from another in the recipe's hash. Only a function that has a parameter of that name,
    such as `fetch`, is given it."""
    wanted = "revision" in inspect.signature(function).parameters
    return {key: value for key, value in arguments.items() if wanted or key != "revision"}


def locate(target: str) -> Any:
    """What a `_target_` names. ValueError for anything that is not ours to call, wherever it was written."""
    module, _, name = check_target(target).rpartition(".")
    return getattr(importlib.import_module(module), name)


def reason(error: BaseException) -> str:
    """One line for the person at the terminal; the traceback is in error.txt."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{text}; free some space and run the same command again, finished stages are kept"
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def _redirect(path: Path) -> None:
    """Everything that this process and its children print goes to the stage's log."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    main(
        Store(folder.parent.parent), folder.name, json.loads((folder / "runtime.json").read_text())
    )
