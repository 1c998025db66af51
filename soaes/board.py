"""A build as a person watches it: how long it will still take, and a board below a terminal's scrolling lines.

Knows recipes, the store and text: it starts nothing. Expectations come from what similar stages took; a stage like none before is a guess,
and is called one."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from soaes.lineage import differences
from soaes.recipe import PARENT, Recipe, Store
from soaes.worker import machine

MODELS = ("parent", "model", "teacher", "target")  # the argument by which a stage reads its model, the one that decides its time first
LATEST = 40  # stages of a kind that are looked at, so that a store of thousands costs no more than one of hundreds
OVERTIME = 1.1  # a stage beyond what was expected of it is taken to need a tenth more than it has had
TITLES = 22  # characters of `benchmark-` and its hash: the bars stay where they are while stages come and go
POINTS = 100  # soaes.model.curves logs a point every steps // POINTS steps


class Forecast:
    """Seconds that each stage to run is expected to take: those of the most similar stage that was built here before.

    State: the best comparison so far for each stage; it grows better as the build goes on."""

    def __init__(self, store: Store, todo: dict[str, Recipe]) -> None:
        self.store, self.todo = store, todo
        self.written = {name: recipe.written for goal in todo.values() for name, recipe in goal.ancestry().items()}
        self.best: dict[str, tuple[tuple[int, ...], float]] = {}
        self.extra: list[float] = []  # seconds that a stage of this build took beyond those in its manifest: its process, W&B
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
                if other not in self.best or apart <= self.best[other][0]:  # of equals the later one
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


def ways(todo: dict[str, Recipe], seconds: dict[str, float]) -> dict[str, float]:
    """Seconds of the longest way from the start of each stage to a goal: what has the longest one is started first."""
    way = {name: 0.0 for name in todo}
    for name, recipe in reversed(todo.items()):  # children before parents
        way[name] += seconds.get(name, 0.0)
        for parent in recipe.parents.values():
            if parent.name in way:
                way[parent.name] = max(way[parent.name], way[name])
    return way


def to_go(todo: dict[str, Recipe], seconds: dict[str, float], alone: list[str], workers: int) -> float:
    """Seconds until all is done, given those that each stage still needs: no less than the longest way, no less than a fair
    share of the work; and then, one by one, what runs with the machine to itself."""
    shared = {name: left for name, left in seconds.items() if todo[name].stage not in alone}
    return max(max(ways(todo, shared).values(), default=0.0), sum(shared.values()) / workers) + sum(seconds.values()) - sum(shared.values())


def trained(path: Path, elapsed: float) -> tuple[float, float] | None:
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
    steps = [point["step"] for point in points if "loss" in point]
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    took = points[-1]["seconds"] if gap > 1 else 0.0
    return (min(0.99, steps[-1] / (POINTS * (gap + 0.5)) * (took + age) / took), took + age) if took else None


@dataclass
class Running:
    """A stage under way: seconds it has had, the share of it that is done (None: nobody can say), seconds it still needs."""

    name: str
    elapsed: float
    share: float | None
    left: float


def running(name: str, elapsed: float, forecast: Forecast, curve: Path) -> Running:
    """What stages like it took, and with each step what its own curve says: all of it from a tenth on, for the first seconds load a model."""
    share, took = trained(curve, elapsed) or (None, elapsed)
    expected, guessed = max(forecast.seconds(name), OVERTIME * took), forecast.guessed(name)
    if share is None:
        return Running(name, elapsed, None if guessed else elapsed / max(expected, 1.0), expected - elapsed)
    trust = 1.0 if guessed else min(1.0, 10 * share)
    return Running(name, elapsed, share, trust * took / share + (1 - trust) * expected - took)


# ---------------------------------------------------------------- what is shown

@dataclass
class State:
    """What the board shows. rows: table -> (rows done, rows). guessed: kinds of stages whose time is a guess."""

    rows: dict[str, tuple[int, int]]
    running: list[Running]
    done: int
    stages: int
    failed: int
    left: float
    guessed: list[str] = field(default_factory=list)


def text(state: State, width: int) -> list[str]:
    """The board's lines, each at most `width` characters."""
    titles = max(TITLES, *(len(title) for title in [*state.rows, *(stage.name for stage in state.running)]))
    tables = [f"{title:<{titles}}  {_bar(done / total)}  {done}/{total} rows" for title, (done, total) in state.rows.items()]
    stages = [f"{stage.name:<{titles}}  {_bar(stage.share)}  {_percent(stage.share)}  {duration(stage.elapsed)}" for stage in state.running]
    failed = f", {state.failed} failed" if state.failed else ""
    guess = f"; a guess for {', '.join(state.guessed)}" if state.guessed else ""
    return [line[:width] for line in [*tables, *stages, f"{state.done}/{state.stages} stages{failed}, {duration(state.left)} to go{guess}"]]


def _bar(share: float | None, cells: int = 10) -> str:
    full = int((share or 0) * cells)
    return f"[{'#' * full}{'.' * (cells - full)}]" if share is not None else f"[{'?' * cells}]"


def _percent(share: float | None) -> str:
    return f"{share:>4.0%}" if share is not None else "   ?"


def duration(seconds: float) -> str:
    """`48 s`, `2 min 05 s`, `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def row(experiment: str, words: str, name: str, metrics: dict[str, Any]) -> str:
    """The line of a row of a table that is there."""
    return f"{experiment or 'row'}  {words}  {name}  {headline(metrics)}"


def headline(metrics: dict[str, Any]) -> str:
    """The first few numbers of a stage's metrics, for the terminal."""
    numbers = [(key, value) for key, value in metrics.items() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return "  ".join(f"{key} {value:.4g}" for key, value in numbers[:3])


def kept(store: Store, recipe: Recipe) -> str:
    """`cpt-1a2b has a checkpoint of step 1,200 to go on from; ` for each stage of an ancestry that ended too early; empty where none has one."""
    resume = {name: store.unfinished(name) / "resume" for name in recipe.ancestry()}
    steps = {name: [int(path.name.partition("-")[2]) for path in folder.glob("step-*")] for name, folder in resume.items()}
    return "".join(f"{name} has a checkpoint of step {max(some):,} to go on from; " for name, some in steps.items() if some)


class Screen:
    """Where lines go. On a terminal the board stays below them. State: the board as it was last drawn, and when."""

    EVERY = 0.5  # seconds between two looks

    def __init__(self, live: bool) -> None:
        self.live = live and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.drawn: list[str] = []
        self.last = -self.EVERY

    def due(self) -> bool:
        return self.live and time.monotonic() - self.last >= self.EVERY

    def draw(self, state: State) -> None:
        width, height = shutil.get_terminal_size()
        self._show("", text(state, width - 1)[1 - height:])  # one line taller, and its top could not be taken back
        self.last = time.monotonic()

    def say(self, line: str) -> None:
        self._show(line + "\n", self.drawn)

    def close(self) -> None:
        """Leave nothing of the board."""
        self._show("", [])

    def _show(self, line: str, board: list[str]) -> None:
        # up to the board's first line and clear from there; \r, because a terminal writes ^C where the cursor stands
        back = f"\r\x1b[{len(self.drawn)}A\x1b[J" if self.drawn else ""
        print(back + line + "".join(f"{shown}\n" for shown in board), end="", flush=True)
        self.drawn = board
