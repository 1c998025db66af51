"""A build as a person watches it: how long it will still take, and a board below a terminal's scrolling lines.

Knows recipes, the store and text: it starts nothing. Expectations come from what similar stages took; a stage like none before is a guess,
and is called one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from soaes.pipeline.forecast import Running
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

TITLES = 22  # characters of `benchmark-` and its hash: the bars stay where they are while stages come and go


# ---------------------------------------------------------------- what is shown


@dataclass
class BoardState:
    """What the board shows. rows: table -> (rows done, rows). guessed: kinds of stages whose time is a guess."""

    rows: dict[str, tuple[int, int]]
    running: list[Running]
    done: int
    stages: int
    failed: int
    left: float
    guessed: list[str] = field(default_factory=list)


def board_lines(state: BoardState, width: int) -> list[str]:
    """The board's lines, each at most `width` characters."""
    titles = max(
        TITLES, *(len(title) for title in [*state.rows, *(stage.name for stage in state.running)])
    )
    tables = [
        f"{title:<{titles}}  {_bar(done / total)}  {done}/{total} rows"
        for title, (done, total) in state.rows.items()
    ]
    stages = [
        f"{stage.name:<{titles}}  {_bar(stage.share)}  {_percent(stage.share)}  {duration(stage.elapsed)}"
        for stage in state.running
    ]
    failed = f", {state.failed} failed" if state.failed else ""
    guess = f"; a guess for {', '.join(state.guessed)}" if state.guessed else ""
    return [
        line[:width]
        for line in [
            *tables,
            *stages,
            f"{state.done}/{state.stages} stages{failed}, {duration(state.left)} to go{guess}",
        ]
    ]


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


def job_line(experiment: str, words: str, name: str, metrics: dict[str, Any]) -> str:
    """The line of a row of a table that is there."""
    return f"{experiment or 'row'}  {words}  {name}  {headline(metrics)}"


def headline(metrics: dict[str, Any]) -> str:
    """The first few numbers of a stage's metrics, for the terminal."""
    numbers = [
        (key, value)
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    return "  ".join(f"{key} {value:.4g}" for key, value in numbers[:3])


def checkpoint_note(store: Store, recipe: Recipe) -> str:
    """`cpt-1a2b has a checkpoint of step 1,200 to go on from; ` for each stage of an ancestry that ended too early; empty where none has one."""
    resume = {name: store.unfinished(name) / "resume" for name in recipe.ancestry()}
    steps = {
        name: [int(path.name.partition("-")[2]) for path in folder.glob("step-*")]
        for name, folder in resume.items()
    }
    return "".join(
        f"{name} has a checkpoint of step {max(some):,} to go on from; "
        for name, some in steps.items()
        if some
    )


class Screen:
    """Where lines go. On a terminal the board stays below them. State: the board as it was last drawn, and when."""

    EVERY = 0.5  # seconds between two looks

    def __init__(self, live: bool) -> None:
        self.live = live and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.drawn: list[str] = []
        self.last = -self.EVERY

    def due(self) -> bool:
        return self.live and time.monotonic() - self.last >= self.EVERY

    def draw(self, state: BoardState) -> None:
        width, height = shutil.get_terminal_size()
        self._show(
            "", board_lines(state, width - 1)[1 - height :]
        )  # one line taller, and its top could not be taken back
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
