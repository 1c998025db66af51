"""How long a build will still take: expectations come from what similar stages took; a stage like none before is a guess, and is called one.

Knows recipes and the store; starts nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from soaes.pipeline.labels import differences
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import PARENT, Recipe
from soaes.pipeline.store import Store

MODELS = (
    "parent",
    "model",
    "target",
)  # the argument by which a stage reads its model, the one that decides its time first


LATEST = 40  # stages of a kind that are looked at, so that a store of thousands costs no more than one of hundreds


OVERTIME = (
    1.1  # a stage beyond what was expected of it is taken to need a tenth more than it has had
)


POINTS = 100  # soaes.model.callbacks logs a point every steps // POINTS steps


class Forecast:
    """Seconds that each stage to run is expected to take: those of the most similar stage that was built here before.

    State: the best comparison so far for each stage; it grows better as the build goes on."""

    def __init__(self, store: Store, todo: dict[str, Recipe]) -> None:
        self.store, self.todo = store, todo
        self.written = {
            name: recipe.written
            for goal in todo.values()
            for name, recipe in goal.ancestry().items()
        }
        self.best: dict[str, tuple[tuple[int, ...], float]] = {}
        self.extra: list[
            float
        ] = []  # seconds that a stage of this build took beyond those in its manifest: its process, W&B
        for stage in {recipe.stage for recipe in todo.values()}:
            for name in store.names(stage)[-LATEST:]:
                self._compare(name)

    def learn(self, name: str, seconds: float) -> None:
        """A stage of this build is done, after so many seconds by the clock."""
        self.extra.append(max(0.0, seconds - self.store.manifest(name)["seconds"]))
        self._compare(name)

    def seconds(self, name: str) -> float:
        """Of a stage; the median of what is known where nothing is like it, 0 as long as nothing is known."""
        known = [self.best[name]] if name in self.best else list(self.best.values())
        return median([seconds for _, seconds in known] or [0.0]) + median(self.extra or [0.0])

    def guessed(self, name: str) -> bool:
        """Whether no stage of this function and this size of model was built here before."""
        return name not in self.best or any(self.best[name][0][:2])

    def _compare(self, name: str) -> None:
        written, made = self.store.recipe(name), self.store.manifest(name)
        size, elsewhere = self._size(written), made["machine"] != machine()
        for other, recipe in self.todo.items():
            if _family(written) == _family(recipe.written):
                unlike = self._size(recipe.written) != size, recipe.target != written["_target_"]
                apart = (*unlike, elsewhere, len(differences(recipe.written, written)))
                if (
                    other not in self.best or apart <= self.best[other][0]
                ):  # of equals the later one
                    self.best[other] = apart, made["seconds"]

    def _size(self, written: dict[str, Any]) -> tuple[Any, ...]:
        """The shape of the model that a stage trains or reads, or the name it is fetched by; empty for a stage without."""
        if "layers" in written or "repo" in written:
            return tuple(written.get(key) for key in ("layers", "width", "repo"))
        reads = [written[key][PARENT] for key in MODELS if PARENT in (written.get(key) or ())]
        return self._size(self._find(reads[0])) if reads else ()

    def _find(self, name: str) -> dict[str, Any]:
        if name not in self.written:
            self.written[name] = self.store.recipe(name) if self.store.holds(name) else {}
        return self.written[name]


def _family(written: dict[str, Any]) -> str:
    """The file of a stage's function: what trains is more like what trains than like what measures."""
    return written["_target_"].rpartition(".")[0]


def critical_path(todo: dict[str, Recipe], seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of the longest way from the start of each stage to a goal: what has the longest one is started first."""
    way = {name: 0.0 for name in todo}
    for name, recipe in reversed(todo.items()):  # children before parents
        way[name] += seconds.get(name, 0.0)
        for parent in recipe.parents.values():
            if parent.name in way:
                way[parent.name] = max(way[parent.name], way[name])
    return way


def eta(
    todo: dict[str, Recipe], seconds: dict[str, float], exclusive: list[str], workers: int
) -> float:
    """Seconds until all is done, given those that each stage still needs: no less than the longest way, no less than a fair
    share of the work; and then, one by one, what runs with the machine to itself."""
    shared = {name: left for name, left in seconds.items() if todo[name].stage not in exclusive}
    return (
        max(max(critical_path(todo, shared).values(), default=0.0), sum(shared.values()) / workers)
        + sum(seconds.values())
        - sum(shared.values())
    )


def training_progress(path: Path, elapsed: float) -> tuple[float, float] | None:
    """Share of its steps that a training stage started so many seconds ago has behind it, and the seconds that these took in all its attempts.

    From the curve that it writes; None while that tells nothing.

    Points that lie 11 steps apart belong to a curve of 1100 to 1199 steps; below 200 steps they lie 1 apart, whatever their number.
    Since its last point a stage is taken to have gone on at the pace it had."""
    try:
        age = time.time() - path.stat().st_mtime
        if age >= elapsed:
            return None  # of an earlier attempt, whose folder is about to be cleared
        points = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:  # not begun, or done and renamed since
        return None
    steps = [point["step"] for point in points if "train/loss" in point]
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    took = points[-1]["seconds"] if gap > 1 else 0.0
    return (
        (min(0.99, steps[-1] / (POINTS * (gap + 0.5)) * (took + age) / took), took + age)
        if took
        else None
    )


@dataclass
class Running:
    """A stage under way: seconds it has had, the share of it that is done (None: nobody can say), seconds it still needs."""

    name: str
    elapsed: float
    share: float | None
    left: float


def running(name: str, elapsed: float, forecast: Forecast, curve: Path) -> Running:
    """What stages like it took, and with each step what its own curve says: all of it from a tenth on, for the first seconds load a model."""
    share, took = training_progress(curve, elapsed) or (None, elapsed)
    expected, guessed = max(forecast.seconds(name), OVERTIME * took), forecast.guessed(name)
    if share is None:
        return Running(
            name, elapsed, None if guessed else elapsed / max(expected, 1.0), expected - elapsed
        )
    trust = 1.0 if guessed else min(1.0, 10 * share)
    return Running(name, elapsed, share, trust * took / share + (1 - trust) * expected - took)
