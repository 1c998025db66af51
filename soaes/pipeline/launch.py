"""Build the stages of a sweep in jobs that one of Hydra's launchers takes elsewhere, as to SLURM.

There is one way for every launcher, and its rows are those of a sweep that runs here: the process
that was started composes all jobs and records all rows; launched jobs build stages, nothing else.

What is missing is cut into *units*: connected stages that the same rows need, and the data of all
rows. Units that need no other unfinished unit make a *round*, and a round is one multirun of
Hydra's, in which job number i builds unit i. So the stages that many rows share are built once and
first, and no job waits for another's. The stages that must have a machine to themselves, and those
that read them, make the last round, in one job.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig

from soaes.pipeline import conf_folders, progress, scheduler
from soaes.pipeline.command_line import key_of, parse, value
from soaes.pipeline.conf_folders import CONF
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.scheduler import Outcome
from soaes.pipeline.store import Store

LAUNCHER = "hydra/launcher"
SEARCH_PATH = "hydra.searchpath"
SETTLED = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra/sweeper", "hydra.sweeper")  # by rounds
UNIT = "unit"  # the key by which Hydra enumerates the jobs of a round
JOBLIBS_METHOD = "loky"  # of starting processes, in joblib's workers; their children lack it
POLL = 1.0  # seconds between two looks at the store

Unit = dict[str, Recipe]
"""Stages that one launched job builds, parents first, by name."""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into what is built and where: the words without Hydra's, and Hydra's."""
    overrides = parse(words)
    is_hydras = [key_of(override).startswith(("hydra.", "hydra/")) for override in overrides]
    ours = [word for word, hydras in zip(words, is_hydras, strict=True) if not hydras]
    return ours, [word for word, hydras in zip(words, is_hydras, strict=True) if hydras]


def check(words: Sequence[str]) -> None:
    """Check Hydra's own words of a command line: the launcher and its settings.

    Raises:
        ValueError: There are settings without a launcher, none of that name, several launchers, an
            unknown setting, or one that the rounds settle.
    """
    if not words:
        return
    keys = [key_of(override) for override in parse(words)]
    if SEARCH_PATH in keys:
        word = words[keys.index(SEARCH_PATH)]
        raise ValueError(
            f"{word}: name a folder of yours by --config-dir FOLDER, which every command knows"
        )
    launcher = value(words, LAUNCHER)
    if launcher is None and LAUNCHER in keys:
        raise ValueError(f"{' '.join(words)}: give {LAUNCHER} one name, as in {LAUNCHER}=joblib")
    if launcher is None:
        raise ValueError(
            f"{words[0]}: Hydra's own settings count only beside {LAUNCHER}=...; leave it out, "
            "jobs are recorded below runtime.store"
        )
    for word, key in zip(words, keys, strict=True):
        if any(key == settled or key.startswith(f"{settled}.") for settled in SETTLED):
            raise ValueError(
                f"{word}: how rounds run, and where they are logged, is settled; leave it out, "
                "jobs are recorded below runtime.store"
            )
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            compose("run", [*words, *conf_folders.overrides()], return_hydra_config=True)
    except MissingConfigException:
        raise ValueError(
            f"{LAUNCHER}={launcher}: there is no such launcher here; `pip install '.[launchers]'` "
            "installs joblib, submitit_local and submitit_slurm, basic is always there"
        ) from None
    except HydraException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{reason}; correct the launcher's settings") from None


def rounds(store: Store, recipes: Sequence[Recipe], exclusive: Iterable[str]) -> list[list[Unit]]:
    """Cut what is missing of some goals into units, and those into rounds.

    Args:
        store: Where outputs are found.
        recipes: The goals.
        exclusive: The stages that must have a machine to themselves.

    Returns:
        Rounds of units. What a unit reads lies in the store, in itself or in an earlier round.
    """
    needed_by: dict[str, set[str]] = {}
    for goal in recipes:
        for name in scheduler.missing(store, [goal]):
            needed_by.setdefault(name, set()).add(goal.name)
    todo = scheduler.missing(store, recipes)
    for name in _data(todo):
        needed_by[name] = {goal.name for goal in recipes}
    unit_of: dict[str, Unit] = {}
    alone: Unit = {}
    for name, recipe in todo.items():
        parents = {parent.name for parent in recipe.parents.values()}
        if recipe.stage in exclusive or parents & alone.keys():
            alone[name] = recipe
            continue
        unit: Unit = {}
        for parent in recipe.parents.values():
            if parent.name in unit_of and needed_by[parent.name] == needed_by[name]:
                unit |= unit_of[parent.name]
        unit[name] = recipe
        unit_of |= dict.fromkeys(unit, unit)
    parts = _in_rounds(unit_of)
    return [*parts, [alone]] if alone else parts


def _data(todo: Unit) -> set[str]:
    """Return the stages that compute nothing and read nothing that is computed, such as packing.

    They take minutes at most, and are built together whichever rows need them.
    """
    data: set[str] = set()
    for name, recipe in todo.items():
        parents = {parent.name for parent in recipe.parents.values()} & todo.keys()
        if parents <= data and not scheduler.computes(recipe):
            data.add(name)
    return data


def _in_rounds(unit_of: Mapping[str, Unit]) -> list[list[Unit]]:
    """Put each unit into the round behind those of all that it reads."""
    waiting = list({id(unit): unit for unit in unit_of.values()}.values())
    launched: set[str] = set()
    parts = []
    while waiting:
        ready = [unit for unit in waiting if _parents(unit) & unit_of.keys() <= launched]
        assert ready, "a unit's parents are needed by more goals than it is"
        parts.append(ready)
        launched.update(name for unit in ready for name in unit)
        waiting = [unit for unit in waiting if not unit.keys() <= launched]
    return parts


def _parents(unit: Unit) -> set[str]:
    """Return the names of what a unit reads, without itself."""
    parents = {parent.name for recipe in unit.values() for parent in recipe.parents.values()}
    return parents - unit.keys()


def plan(parts: Sequence[Sequence[Unit]]) -> str:
    """Say how many jobs are launched, round by round."""
    if not parts:
        return "nothing is launched: every stage is there"
    words = []
    for units in parts:
        stages = sum(map(len, units))
        words.append(f"{_counted(len(units), 'job')} of {_counted(stages, 'stage')}")
    return f"launched in {_counted(len(parts), 'round')}: {', then '.join(words)}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def build(
    store: Store, recipes: Sequence[Recipe], runtime: Runtime, words: Sequence[str], folder: Path
) -> Outcome:
    """Build what is missing of some recipes in launched jobs; print a line for each stage.

    Args:
        store: Where outputs are found and put; all jobs must reach it, and its locks.
        recipes: The goals.
        runtime: How stages are run within a job.
        words: Hydra's words of the command line: its launcher and the settings of that.
        folder: What Hydra and the launcher write, such as logs of jobs.

    Returns:
        What was built and what failed.

    Raises:
        KeyboardInterrupt: After Ctrl-C; its message says what becomes of launched jobs.
    """
    outcome = Outcome()
    parts = rounds(store, recipes, runtime.exclusive_stages)
    if not parts:
        return outcome
    progress.write(f"{plan(parts)}; logs of jobs are in {folder}\n")
    names = [name for units in parts for unit in units for name in unit]
    with _stages_printed(store, names):
        for number, units in enumerate(parts, start=1):
            possible = [_possible(store, unit, outcome) for unit in units]
            launched = [unit for unit in possible if unit]
            if launched:
                _launch(store, launched, runtime, words, folder / f"round-{number}", outcome)
    for name in names:
        if name in outcome.failed:
            progress.write(f"{name}  FAILED: {outcome.failed[name]}\n")
    return outcome


def _possible(store: Store, unit: Unit, outcome: Outcome) -> Unit:
    """Leave out the stages of a unit that would read what has failed."""
    possible: Unit = {}
    for name, recipe in unit.items():
        for parent in recipe.parents.values():
            if parent.name not in possible and not store.holds(parent.name):
                outcome.failed[name] = f"needs {parent.name}, which failed"
                break
        else:
            possible[name] = recipe
    return possible


def _launch(
    store: Store,
    units: list[Unit],
    runtime: Runtime,
    words: Sequence[str],
    folder: Path,
    outcome: Outcome,
) -> None:
    """Launch a round's jobs, wait for them, and note what became of their stages."""
    place = Store(store.root.absolute())

    def build_unit(cfg: DictConfig) -> None:
        if multiprocessing.get_start_method(allow_none=True) == JOBLIBS_METHOD:
            multiprocessing.set_start_method("spawn", force=True)
        unit = units[HydraConfig.get().job.num]
        scheduler.build(place, unit.values(), runtime, silent=True)

    numbers = ",".join(map(str, range(len(units))))
    settings = [f"hydra.sweep.dir={folder.absolute()}", f"+{UNIT}={numbers}"]
    lost = ""
    try:
        _run_hydra([*words, *settings], build_unit)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted: jobs that a cluster has taken go on, scancel ends them; run the same "
            "command again to continue"
        ) from None
    except Exception as error:  # of a job that was killed, or of the launcher
        lost = f" ({type(error).__name__}: {next(iter(str(error).splitlines()), '')})"
    for unit in units:
        for name in unit:
            if store.holds(name):
                outcome.built[name] = store.manifest(name).get("seconds", 0.0)
            else:
                outcome.failed[name] = _reason(store, unit[name], outcome, lost)


def _reason(store: Store, recipe: Recipe, outcome: Outcome, lost: str) -> str:
    """Say why a launched stage is not there."""
    for parent in recipe.parents.values():
        if parent.name in outcome.failed:
            return f"needs {parent.name}, which failed"
    if reason := store.failure(recipe.name):
        return reason
    if store.is_locked(recipe.name):
        return f"a job still builds it{lost}; run the same command again when it is done"
    return (
        f"its job ended without it{lost}: killed, preempted or out of time? Run the same command "
        "again, finished stages are kept and training goes on from its last checkpoint"
    )


# ---------------------------------------------------------------- Hydra


def _run_hydra(words: Sequence[str], job: Callable[[DictConfig], None]) -> None:
    """Run Hydra on a command line; what a job or the launcher raises is raised here.

    Hydra knows the command line from sys.argv alone.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise it prints an exception and exits
    argv = sys.argv
    sys.argv = [argv[0], *words, *conf_folders.overrides()]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")(job)()
    finally:
        sys.argv = argv


# ---------------------------------------------------------------- the terminal


@contextmanager
def _stages_printed(store: Store, names: Sequence[str]) -> Iterator[None]:
    """Print a line for each of some stages as it appears in the store, until the block ends."""
    waiting = list(names)
    ended = threading.Event()

    def print_new() -> None:
        for name in list(waiting):
            if store.holds(name):
                waiting.remove(name)
                seconds = store.manifest(name).get("seconds", 0.0)
                count = f"[{len(names) - len(waiting):>3}/{len(names)}]"
                headline = progress.headline(store.metrics(name))
                progress.write(f"{count}  {name}  {seconds:.1f} s  {headline}\n")

    def watch() -> None:
        while not ended.wait(POLL):
            print_new()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        print_new()
