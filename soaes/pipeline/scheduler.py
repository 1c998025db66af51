"""Build a set of recipes: the union of their missing stages, parents first, each in a process of its own, some side by side.

A failing stage takes only its descendants down. Knows processes and folders: no Hydra, no torch. What a person sees of it is in `board`."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from multiprocessing.connection import wait
from typing import Any

from soaes.pipeline import forecast, progress, worker
from soaes.pipeline.private_api import WANDB_MODULES
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

PRELOAD = [
    "soaes.pipeline.preload"
]  # what a stage is forked from: heavy work once, and one state of our own code for a whole sweep
# glibc keeps a stage's freed memory for its next step, and in huge pages: a training step touches some 100 MB. 32 MB is the most it takes
ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456:glibc.malloc.top_pad=16777216"
MEGABYTE = 1 << 20

JobsByGoal = dict[
    str, list[tuple[str, str]]
]  # goal -> the rows that show it, each an experiment and the words that tell the row from others


@dataclass
class Outcome:
    """What became of the stages that were asked for, by folder name."""

    built: dict[str, float] = field(default_factory=dict)  # seconds
    failed: dict[str, str] = field(default_factory=dict)  # reason


def missing(store: Store, recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """Stages to run, parents first. Ancestors of a stage that is there are not asked for: its folder is all that is read."""
    found: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.name not in found and not store.holds(recipe.name):
            for parent in recipe.parents.values():
                visit(parent)
            found[recipe.name] = recipe

    for recipe in recipes:
        visit(recipe)
    return found


def build(
    store: Store, recipes: Iterable[Recipe], runtime: dict[str, Any], rows: JobsByGoal | None = None
) -> Outcome:
    """Build what is missing of `recipes`; `runtime` is how (conf/runtime). Prints a line a stage.

    Whoever gives the rows of its tables has a line for each as it is done as well, and on a terminal a board of all that is under way."""
    todo, outcome = missing(store, recipes), Outcome()
    if todo:
        Scheduler(store, todo, runtime, outcome, rows or {}).work()
    return outcome


class Scheduler:
    """The stages under way. State: what is ready, what runs, and since when; what is expected, and the screen."""

    def __init__(
        self,
        store: Store,
        todo: dict[str, Recipe],
        runtime: dict[str, Any],
        outcome: Outcome,
        rows: JobsByGoal,
    ) -> None:
        self.store, self.todo, self.runtime, self.outcome, self.rows = (
            store,
            todo,
            runtime,
            outcome,
            rows,
        )
        self.graph = TopologicalSorter(
            {
                name: {parent.name for parent in recipe.parents.values()} & todo.keys()
                for name, recipe in todo.items()
            }
        )
        self.graph.prepare()
        self.ready: list[str] = []
        self.running: dict[str, tuple[Any, float]] = {}
        self.forecast, self.screen = forecast.Forecast(store, todo), progress.Screen(bool(rows))

    def work(self) -> None:
        try:
            while self.graph.is_active():
                self._admit()
                if self.running:
                    if self.screen.due():
                        self.screen.draw(self._state())
                    wait(
                        [process.sentinel for process, _ in self.running.values()],
                        self.screen.EVERY if self.screen.live else None,
                    )
                    for name in [
                        name
                        for name, (process, _) in self.running.items()
                        if not process.is_alive()
                    ]:
                        self._finish(name)
        except KeyboardInterrupt:
            for process, _ in self.running.values():
                process.terminate()
            for process, _ in self.running.values():
                process.join()
            self.screen.say(
                f"interrupted: {len(self.outcome.built)} stages are kept; the same command goes on from there"
            )
            raise
        finally:
            self.screen.close()

    def _admit(self) -> None:
        """Start what may start: the longest way to the end first; a stage that runs alone waits for an empty machine."""
        way = forecast.critical_path(
            self.todo, {name: self.forecast.seconds(name) for name in self.todo}
        )
        self.ready = sorted([*self.ready, *self.graph.get_ready()], key=lambda name: -way[name])
        for name in list(self.ready):
            blocked = [
                parent.name
                for parent in self.todo[name].parents.values()
                if parent.name in self.outcome.failed
            ]
            alone = self.todo[name].stage in self.runtime["exclusive_stages"]
            if blocked:
                self.ready.remove(name)
                self.outcome.failed[name] = f"needs {blocked[0]}, which failed"
                self.graph.done(name)
            elif (
                not alone
                and len(self.running) < self.runtime["parallel_stages"]
                or alone
                and not self.running
                and self._only_alone()
            ):
                self.ready.remove(name)
                self.running[name] = (self._start(self.todo[name], alone), time.monotonic())
                if alone:
                    return

    def _only_alone(self) -> bool:
        return all(self.todo[name].stage in self.runtime["exclusive_stages"] for name in self.ready)

    def _start(self, recipe: Recipe, alone: bool) -> Any:
        os.environ.update(
            OMP_NUM_THREADS=str(self.runtime["execution"]["threads"]),
            TOKENIZERS_PARALLELISM="false",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
        )
        os.environ.setdefault("GLIBC_TUNABLES", ALLOCATOR)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            PRELOAD + (list(WANDB_MODULES) if self.runtime["logger"]["mode"] != "disabled" else [])
        )
        process = context.Process(target=_stage, args=(self.store, recipe, self.runtime, alone))
        process.start()
        return process

    def _finish(self, name: str) -> None:
        process, since = self.running.pop(name)
        seconds = time.monotonic() - since
        if self.store.holds(name):
            self.outcome.built[name] = seconds
            self.forecast.learn(name, seconds)
            said = f"{seconds:.1f} s  {progress.headline(self.store.metrics(name))}"
        else:
            self.outcome.failed[name] = _reason(self.store, name, process.exitcode)
            said = f"FAILED: {self.outcome.failed[name]}"
        state = self._state()
        self.screen.say(
            f"[{state.done + state.failed:>3}/{state.stages}, {state.left:>4.0f} s to go]  {name}  {said}"
        )
        for experiment, words in self.rows.get(name, []) if name in self.outcome.built else []:
            self.screen.say(progress.job_line(experiment, words, name, self.store.metrics(name)))
        self.graph.done(name)

    def _state(self) -> progress.BoardState:
        """How things stand, for the board."""
        now, outcome = time.monotonic(), self.outcome
        running = [
            forecast.running(
                name, now - since, self.forecast, self.store.unfinished(name) / "curves.jsonl"
            )
            for name, (_, since) in self.running.items()
        ]
        waiting = (
            self.todo.keys() - outcome.built.keys() - outcome.failed.keys() - self.running.keys()
        )
        seconds = {name: self.forecast.seconds(name) for name in waiting} | {
            stage.name: stage.left for stage in running
        }
        guessed = {stage.name for stage in running if stage.share is None} | {
            name for name in waiting if self.forecast.guessed(name)
        }
        return progress.BoardState(
            self._tables(),
            running,
            len(outcome.built),
            len(self.todo),
            len(outcome.failed),
            forecast.eta(
                self.todo,
                seconds,
                self.runtime["exclusive_stages"],
                self.runtime["parallel_stages"],
            ),
            sorted({self.todo[name].stage for name in guessed}),
        )

    def _tables(self) -> dict[str, tuple[int, int]]:
        """Table -> (rows done, rows): table3_alpha and table3_tau are rows of one table."""
        goals = [
            (experiment.partition("_")[0] or "rows", goal)
            for goal, shown in self.rows.items()
            for experiment, _ in shown
        ]
        there = [
            table for table, goal in goals if goal in self.outcome.built or goal not in self.todo
        ]
        return {
            table: (there.count(table), [name for name, _ in goals].count(table))
            for table, _ in goals
        }


def _stage(store: Store, recipe: Recipe, runtime: dict[str, Any], alone: bool) -> None:
    """The child process: hold the machine (shared, or alone for a speed stage) and build, unless someone else just did."""
    with store.lock("machine", shared=not alone), store.build(recipe) as out:
        if out is None:
            return
        if recipe.stage not in runtime["torchrun"]:
            return worker.main(store, recipe.name, runtime)
        (out / "runtime.json").write_text(json.dumps(runtime))
        ranks = [
            f"--nproc-per-node={runtime['execution']['devices']}",
            "-m",
            "soaes.pipeline.worker",
            str(out),
        ]
        if subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *ranks], preexec_fn=_die_with_parent
        ).returncode:
            sys.exit(1)


def _die_with_parent() -> None:
    """Ranks must not outlive the process that holds their lock: the kernel ends them with it (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _reason(store: Store, name: str, exitcode: int | None) -> str:
    path = store.unfinished(name) / "reason.txt"
    if path.exists():
        return path.read_text()
    if full_disk(store):
        return full_disk(store)
    killed = (
        f"killed by signal {-exitcode}; was it out of memory?"
        if exitcode and exitcode < 0
        else f"ended with exit code {exitcode}"
    )
    return f"{killed}; see {store.unfinished(name)}"


def full_disk(store: Store) -> str:
    """What to say when nothing more can be written; empty while there is room."""
    words = f"the disk of {store.root} is full; free some space and run the same command again, finished stages are kept"
    return words if shutil.disk_usage(store.root).free < MEGABYTE else ""
