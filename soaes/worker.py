"""Run one stage in a process of its own: realise its recipe, call its function, seal its folder.

Started by `soaes.build` as a fork of a process that has torch loaded, or by `torchrun -m soaes.worker FOLDER`."""

from __future__ import annotations

import ast
import errno
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

from soaes import track
from soaes.lineage import flat, ours
from soaes.recipe import Recipe, Store, read, write_manifest

LIBRARIES = ("torch", "transformers", "pytorch-lightning", "tokenizers", "numpy")


def main(store: Store, name: str, runtime: dict[str, Any]) -> None:
    """Build the stage whose recipe lies in the unfinished folder `name`; exit code 1 and error.txt if it fails."""
    out = store.unfinished(name)
    _redirect(out / "log.txt")
    try:
        run(store, read(store, name), runtime, out)
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
    arguments = _without_revision(function, {key: realise(value, store) for key, value in recipe.arguments.items()})
    code = source(recipe)
    for parent in recipe.parents.values():
        store.verify(parent.name)
    with track.stage(recipe, runtime, out) as tracker:
        context = {"execution": runtime["execution"], "root": runtime["root"], "tracker": tracker}
        chosen = {key: realise(value, store) for key, value in context.items() if key in wanted and key not in arguments}
        function(**chosen, **arguments, out=out)
        if tracker is not None:  # the first rank
            seconds, memory = tracker.earlier + time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            write_manifest(out, seconds=round(seconds, 2), peak_memory_mb=memory, source=code, **provenance())


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
    module, _, name = ours(target).rpartition(".")
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


def _sources(module: str, seen: set[Path]) -> None:
    """Add a module's file and, from its import statements, those of ours that it reads."""
    if not module.startswith("soaes."):
        return
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or Path(spec.origin) in seen:
        return
    seen.add(Path(spec.origin))
    for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("soaes"):
            for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if name != "soaes" and (Path(__file__).parent.parent / f"{name.replace('.', '/')}.py").exists():
                    _sources(name, seen)


def source(recipe: Recipe) -> str:
    """A digest of the code that a recipe calls: the stage's own, its options', and what these import of ours."""
    targets = [value for key, value in flat(recipe.written).items() if key.rpartition(".")[2] == "_target_"]
    files: set[Path] = set()
    for target in targets:
        _sources(target.rpartition(".")[0], files)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]


def provenance() -> dict[str, Any]:
    """What is recorded beside a recipe but not hashed: the code, the libraries and the machine that made the output."""
    here = Path(__file__).parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    return {"commit": commit, "machine": machine(), "versions": {name: metadata.version(name) for name in LIBRARIES}}


@functools.cache
def machine(device: str = "cpu") -> str:
    """What a measurement is valid for: `AMD EPYC, 2 cores`, or the GPU's name."""
    if device.startswith("cuda"):
        smi = shutil.which("nvidia-smi")
        ask = [smi, "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.run(ask, capture_output=True, text=True).stdout.strip() if smi else f"no {device} here"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    main(Store(folder.parent.parent), folder.name, json.loads((folder / "runtime.json").read_text()))
