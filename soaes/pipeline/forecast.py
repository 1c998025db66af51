"""How long a build will still take.

Each stage is expected to take what the most similar one took in this store.
A stage unlike any built before is a guess, and is shown as one. Knows recipes and the store; starts
nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from soaes.pipeline.labels import differences
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import PARENT, Recipe
from soaes.pipeline.store import Store
from soaes.pipeline.tracking import CURVE_POINTS, CURVES, PROGRESS

# The arguments by which a stage reads its model; the first one present decides its size.
MODEL_ARGUMENTS = ("parent", "model", "target")

# Stages of a kind that are compared at most, the latest ones: a store of thousands costs no more
# than one of hundreds.
MAX_COMPARED = 40

# A stage beyond its expected time is expected to need a tenth more than it has had.
OVERTIME = 1.1


@dataclass(frozen=True, order=True)
class Distance:
    """How unlike two stages are; the first field that differs decides which of two is nearer."""

    other_size: bool
    """Their models have other sizes."""

    other_function: bool
    """They call other functions of the same family."""

    other_machine: bool
    """The built one was built on another machine."""

    num_differences: int
    """Keys in which their recipes differ."""


@dataclass(frozen=True)
class Reference:
    """The most similar stage that was built."""

    distance: Distance
    seconds: float


class Forecast:
    """Seconds that each stage to run is expected to take.

    State: the most similar built stage of each, which improves while the build goes on.
    """

    def __init__(
        self,
        store: Store,
        todo: Mapping[str, Recipe],
        counted: Mapping[str, float] | None = None,
    ) -> None:
        """Compare the stages to run with those in the store.

        Args:
            store: Where built stages lie.
            todo: The stages to run, by name.
            counted: Seconds by the bill (soaes.bill), for stages unlike any that was built.
        """
        self.counted = counted or {}
        self.store = store
        self.todo = todo
        self.written: dict[str, dict[str, Any]] = {}
        for goal in todo.values():
            for name, recipe in goal.ancestry().items():
                self.written[name] = recipe.written
        self.references: dict[str, Reference] = {}
        # Seconds that stages of this build took beyond those in their manifests: process and W&B.
        self.overheads: list[float] = []
        for stage in {recipe.stage for recipe in todo.values()}:
            for name in store.names(stage)[-MAX_COMPARED:]:
                self._compare(name)

    def learn(self, name: str, seconds: float) -> None:
        """Take account of a stage that was just built.

        Args:
            name: Its name.
            seconds: What it took by the clock, its process included.
        """
        self.overheads.append(max(0.0, seconds - self.store.manifest(name)["seconds"]))
        self._compare(name)

    def seconds(self, name: str) -> float:
        """Return the seconds a stage is expected to take.

        Where no built stage is of its function and size, what the bill counts; where nothing is
        counted, what the most similar one of its family took, or the median of all that is known.
        """
        if name in self.counted and self.is_guess(name):
            known = [self.counted[name]]
        elif name in self.references:
            known = [self.references[name].seconds]
        else:
            known = [reference.seconds for reference in self.references.values()]
        return median(known or [0.0]) + median(self.overheads or [0.0])

    def is_guess(self, name: str) -> bool:
        """Tell whether no stage of this function and this size of model was built before."""
        if name not in self.references:
            return True
        distance = self.references[name].distance
        return distance.other_size or distance.other_function

    def _compare(self, name: str) -> None:
        """Make a built stage the reference of every stage that it is most similar to."""
        written = self.store.recipe(name)
        manifest = self.store.manifest(name)
        size = self._size(written)
        other_machine = manifest["machine"] != machine()
        for todo_name, recipe in self.todo.items():
            if _family(written) != _family(recipe.written):
                continue
            distance = Distance(
                other_size=self._size(recipe.written) != size,
                other_function=recipe.target != written["_target_"],
                other_machine=other_machine,
                num_differences=len(differences(recipe.written, written)),
            )
            reference = self.references.get(todo_name)
            if reference is None or distance <= reference.distance:  # of equals the later one
                self.references[todo_name] = Reference(distance, manifest["seconds"])

    def _size(self, written: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return what tells the size of the model that a stage trains or reads.

        Layers and width, or the name it is fetched by; empty for a stage without a model.
        """
        if "content" in written:  # of a model of the user's
            return (written["content"]["layers"], written["content"]["width"])
        if "layers" in written or "repo" in written:
            return (written.get("layers"), written.get("width"), written.get("repo"))
        for key in MODEL_ARGUMENTS:
            argument = written.get(key)
            if isinstance(argument, Mapping) and PARENT in argument:
                return self._size(self._written(argument[PARENT]))
        return ()

    def _written(self, name: str) -> dict[str, Any]:
        """Return the written recipe of a stage, from this build or the store; empty if gone."""
        if name not in self.written:
            self.written[name] = self.store.recipe(name) if self.store.holds(name) else {}
        return self.written[name]


def _family(written: Mapping[str, Any]) -> str:
    """Return the module of a stage's function: training is more like training than measuring is."""
    return str(written["_target_"]).rpartition(".")[0]


def critical_path(todo: Mapping[str, Recipe], seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds from the start of each stage to the end of the last goal that needs it.

    Args:
        todo: The stages to run, parents first, by name.
        seconds: What each takes; 0 for a stage that is missing here.
    """
    path = {name: 0.0 for name in todo}
    for name, recipe in reversed(list(todo.items())):  # children before parents
        path[name] += seconds.get(name, 0.0)
        for parent in recipe.parents.values():
            if parent.name in path:
                path[parent.name] = max(path[parent.name], path[name])
    return path


def eta(
    todo: Mapping[str, Recipe],
    seconds: Mapping[str, float],
    exclusive_stages: Collection[str],
    parallel_stages: int,
) -> float:
    """Return the seconds until all stages are done.

    Stages side by side take at least their critical path and at least an even share of the work;
    exclusive stages follow one by one.

    Args:
        todo: The stages to run, parents first, by name.
        seconds: What each still needs; a stage that is done is missing.
        exclusive_stages: Kinds of stages that have the machine to themselves.
        parallel_stages: Stages that run side by side.
    """
    shared: dict[str, float] = {}
    exclusive_seconds = 0.0
    for name, stage_seconds in seconds.items():
        if todo[name].stage in exclusive_stages:
            exclusive_seconds += stage_seconds
        else:
            shared[name] = stage_seconds
    longest_path = max(critical_path(todo, shared).values(), default=0.0)
    even_share = sum(shared.values()) / parallel_stages
    return max(longest_path, even_share) + exclusive_seconds


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training stage is."""

    share: float
    """Of its steps."""

    seconds: float
    """What they took, in all attempts."""


def training_progress(curves: Path, elapsed: float) -> TrainingProgress | None:
    """Estimate how far a training stage is from the curves that it writes.

    The curves have about CURVE_POINTS points, so their spacing tells the number of steps: points
    11 steps apart belong to 1100 to 1199 steps. Points 1 step apart tell nothing, since any number
    of steps below 200 has them. Since its last point a stage is taken to have kept its pace.

    Args:
        curves: The stage's curves.jsonl.
        elapsed: Seconds since the stage was started.

    Returns:
        The progress, or None while the curves do not tell.
    """
    try:
        age = time.time() - curves.stat().st_mtime
        if age >= elapsed:
            return None  # of an earlier attempt, whose folder is about to be cleared
        points = [json.loads(line) for line in curves.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:  # not begun, or done and renamed since
        return None
    steps = [point["step"] for point in points if "train/loss" in point]
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    seconds = points[-1]["seconds"] if gap > 1 else 0.0
    if not seconds:
        return None
    share = steps[-1] / (CURVE_POINTS * (gap + 0.5))
    share = min(0.99, share * (seconds + age) / seconds)
    return TrainingProgress(share, seconds + age)


@dataclass(frozen=True)
class RunningStage:
    """A stage under way."""

    name: str

    elapsed: float
    """Seconds since it was started."""

    share: float | None
    """Of it that is done, in [0, 1); None where nothing tells."""

    eta: float
    """Seconds it still needs."""

    note: str = ""
    """What it says of itself, such as the calls it has made and their cost."""


def _told_progress(path: Path) -> tuple[float, str] | None:
    """Return the share and the note that a stage wrote; None where it wrote none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return float(told["share"]), str(told["note"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running_stage(name: str, elapsed: float, forecast: Forecast, folder: Path) -> RunningStage:
    """Combine what similar stages took with what a stage tells by itself.

    The curves count more with every step and alone from a tenth of the steps on: the first seconds
    load a model.

    Args:
        name: The stage.
        elapsed: Seconds since it was started.
        forecast: What similar stages took.
        folder: The unfinished folder of the stage.
    """
    is_guess = forecast.is_guess(name)
    if told := _told_progress(folder / PROGRESS):
        done, note = told
        eta = elapsed / max(done, 0.001) - elapsed
        return RunningStage(name, elapsed, min(0.99, done), eta, note)
    progress = training_progress(folder / CURVES, elapsed)
    seconds = elapsed if progress is None else progress.seconds
    expected = max(forecast.seconds(name), OVERTIME * seconds)
    if progress is None:
        share = None if is_guess else elapsed / max(expected, 1.0)
        return RunningStage(name, elapsed, share, expected - elapsed)
    weight = 1.0 if is_guess else min(1.0, 10 * progress.share)
    total = weight * seconds / progress.share + (1 - weight) * expected
    return RunningStage(name, elapsed, progress.share, total - seconds)
