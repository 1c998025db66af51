"""Run one stage in a process of its own: prepare its arguments, call its function, seal its folder.

Started by `soaes.pipeline.scheduler`, as a fork of a process that has torch loaded or alone, or by
`torchrun -m soaes.pipeline.worker FOLDER`, once a rank.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soaes.pipeline import provenance, tracking
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store, machine_lock, read_json, read_recipe, write_manifest
from soaes.pipeline.tracking import Tracker
from soaes.pipeline.validation import check_target

# The folder of a store that holds every call of a model that writes questions, whichever recipe
# made it (soaes.data.synthesis.calls).
CALL_LOG = "calls"

LOST_RANK = (
    "a rank ended without a word (killed, out of memory, or is its node gone?); run the same "
    "command again: the stage goes on from its last checkpoint"
)
# What the other ranks hear of it.
BROKEN_CONNECTION = ("closed by peer", "reset by peer", "remote process exited")


def main(store: Store, name: str, runtime: Runtime) -> None:
    """Build the stage whose recipe lies in an unfinished folder.

    If it fails, the folder gets error.txt (the traceback) and reason.txt (one line), and the
    process ends with exit code 1.

    Args:
        store: The store that holds the folder.
        name: The name of the folder.
        runtime: How the stage is run.
    """
    out = store.unfinished(name)
    _redirect_output(out / "log.txt")
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see the scheduler's
        run(store, read_recipe(store, name), runtime, out)
    except BaseException as error:  # KeyboardInterrupt and SystemExit are written down too
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes SystemExit of it
            error = error.__context__
        if not (out / "reason.txt").exists():  # of several ranks the first to fail knows why
            (out / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            (out / "reason.txt").write_text(reason(error), encoding="utf-8")
        sys.exit(1)


def run(store: Store, recipe: Recipe, runtime: Runtime, out: Path) -> None:
    """Call the stage's function with its recipe's arguments and what it asks of the runtime.

    Args:
        store: Where the stage's parents lie.
        recipe: The stage.
        runtime: How the stage is run.
        out: The folder that the stage fills. The manifest is written into it last.

    Raises:
        ValueError: A parent's files are not what they were built as; or whatever the stage raises.
    """
    started = time.monotonic()
    function = locate(recipe.target)
    arguments = {key: realise(value, store) for key, value in recipe.arguments.items()}
    arguments = _without_revision(function, arguments)
    code = provenance.code_digest(recipe)  # before the stage runs: the files may change meanwhile
    for parent in recipe.parents.values():
        store.verify(parent.name)
    with tracking.track_stage(recipe, runtime, out) as tracker:
        context = _context(function, runtime, tracker)
        context = {key: value for key, value in context.items() if key not in arguments}
        _set_threads(arguments, context)
        function(**context, **arguments, out=out)
        if tracker is not None:  # the first rank
            (out / tracking.PROGRESS).unlink(missing_ok=True)
            seconds = tracker.earlier_seconds + time.monotonic() - started
            memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            write_manifest(
                out,
                seconds=round(seconds, 2),
                peak_memory_mb=memory_kb // 1024,
                source=code,
                **provenance.provenance(),
            )


def _context(
    function: Callable[..., None], runtime: Runtime, tracker: Tracker | None
) -> dict[str, Any]:
    """Return what a stage's function asks for by a parameter's name and no recipe holds."""
    parameters = inspect.signature(function).parameters
    context: dict[str, Any] = {}
    if "execution" in parameters:
        context["execution"] = runtime.execution
    if "root" in parameters:
        context["root"] = runtime.root
    if "endpoint" in parameters:
        context["endpoint"] = runtime.endpoint
    if "call_log" in parameters:
        context["call_log"] = runtime.store / CALL_LOG
    if "models" in parameters:
        context["models"] = runtime.models
    if "tracker" in parameters:
        context["tracker"] = tracker
    return context


def _set_threads(arguments: dict[str, Any], context: dict[str, Any]) -> None:
    """Set torch's threads for a stage that computes with it.

    A stage that measures names its `threads` in the recipe; any other that computes asks for
    `execution`. The rest keeps what OMP_NUM_THREADS says (soaes.pipeline.scheduler).
    """
    threads = arguments.get("threads")
    if threads is None and "execution" in context:
        threads = context["execution"].threads
    if threads is not None:
        import torch  # such a stage has imported it already

        torch.set_num_threads(threads)


def realise(value: Any, store: Store) -> Any:
    """Turn a recipe's value into what a function takes.

    A parent becomes its folder. An option with a `_target_` is called, or bound where it says
    `_partial_: true`; its `revision` is not passed on. Anything else stays as it is.

    Raises:
        ValueError: A `_target_` is not ours to call.
    """
    if isinstance(value, Recipe):
        return store.folder(value.name)
    if isinstance(value, list):
        return [realise(item, store) for item in value]
    if not isinstance(value, dict):
        return value
    arguments = {key: realise(item, store) for key, item in value.items()}
    if "_target_" not in arguments:
        return arguments
    function = locate(arguments.pop("_target_"))
    is_partial = arguments.pop("_partial_", False)
    arguments = _without_revision(function, arguments)
    return functools.partial(function, **arguments) if is_partial else function(**arguments)


def _without_revision(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Drop `revision`, which tells meanings of a function apart in the recipe's hash alone.

    A function that has a parameter of that name, such as `fetch`, receives it.
    """
    if "revision" in inspect.signature(function).parameters:
        return arguments
    return {key: value for key, value in arguments.items() if key != "revision"}


def locate(target: str) -> Any:
    """Return the function or class that a `_target_` names.

    Raises:
        ValueError: It is not ours to call, wherever it was written.
    """
    module, _, name = check_target(target).rpartition(".")
    return getattr(importlib.import_module(module), name)


def reason(error: BaseException) -> str:
    """Return one line for the person at the terminal; error.txt has the traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and any(sign in text for sign in BROKEN_CONNECTION):
        return LOST_RANK
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{text}; free some space and run the same command again, finished stages are kept"
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}"


def _redirect_output(path: Path) -> None:
    """Send everything that this process and its children print to the stage's log."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    runtime = Runtime.from_plain(read_json(folder / "runtime.json"))
    store = Store(folder.parent.parent)
    with store.lock(machine_lock(), shared=True):  # a speed of this machine waits for it
        main(store, folder.name, runtime)
