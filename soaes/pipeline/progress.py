"""A build as a person watches it: a line for each finished stage, and a board below them.

The board is shown on a terminal alone. Knows text and terminals: it starts nothing. How long
things take is estimated by `forecast`.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from soaes.pipeline.forecast import RunningStage
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

# Characters of `benchmark-` and its hash: the bars stay in place while stages come and go.
MIN_TITLE_WIDTH = 22

MAX_REASON = 80  # characters of the reason for a failure, in a line that has several


# ---------------------------------------------------------------- text


@dataclass(frozen=True)
class JobTitle:
    """What tells a job from others: its experiment, and what it overrides."""

    experiment: str
    overrides: str
    """As on the command line: `distill.alpha=0.2 seed=1`."""


@dataclass(frozen=True)
class TableProgress:
    """How many rows of a table are done."""

    done: int
    total: int


@dataclass(frozen=True)
class BoardState:
    """What the board shows."""

    tables: Mapping[str, TableProgress]
    running: Sequence[RunningStage]
    built: int
    failed: int
    stages: int
    """All stages of the build."""

    eta: float
    """Seconds until the build is done."""

    guessed: Sequence[str] = ()
    """Kinds of stages whose time is a guess."""


def board_lines(state: BoardState, width: int) -> list[str]:
    """Return the board's lines, each at most `width` characters."""
    names = [*state.tables, *(stage.name for stage in state.running)]
    title_width = max(MIN_TITLE_WIDTH, *map(len, names))
    lines = []
    for name, rows in state.tables.items():
        bar = _bar(rows.done / rows.total)
        lines.append(f"{name:<{title_width}}  {bar}  {rows.done}/{rows.total} rows")
    for stage in state.running:
        share = f"{_bar(stage.share)}  {_percent(stage.share)}"
        note = f"  {stage.note}" if stage.note else ""
        lines.append(f"{stage.name:<{title_width}}  {share}  {duration(stage.elapsed)}{note}")
    failed = f", {state.failed} failed" if state.failed else ""
    guess = f"; a guess for {', '.join(state.guessed)}" if state.guessed else ""
    stages = f"{state.built}/{state.stages} stages{failed}"
    lines.append(f"{stages}, {duration(state.eta)} to go{guess}")
    return [line[:width] for line in lines]


def _bar(share: float | None, cells: int = 10) -> str:
    if share is None:
        return f"[{'?' * cells}]"
    full = int(share * cells)
    return f"[{'#' * full}{'.' * (cells - full)}]"


def _percent(share: float | None) -> str:
    return f"{share:>4.0%}" if share is not None else "   ?"


def duration(seconds: float) -> str:
    """Return a duration as people say it: `48 s`, `2 min 05 s`, `3 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s"
    return f"{rest} s"


def resuming_line(store: Store, goals: Sequence[Recipe]) -> str:
    """Say how far an earlier command came with the rows of a sweep.

    Args:
        store: Where the rows lie.
        goals: What each row shows.

    Returns:
        `17 of 24 rows done, 1 failed (out of memory), 6 to run`; empty where all is to run.
    """
    unbuilt = [goal for goal in goals if not store.holds(goal.name)]
    reasons = Counter(reason for goal in unbuilt if (reason := _failure(store, goal)))
    num_failed = reasons.total()
    num_done, num_to_run = len(goals) - len(unbuilt), len(unbuilt) - num_failed
    if not num_done and not num_failed:
        return ""
    parts = [f"{num_done} of {len(goals)} rows done"]
    if num_failed:
        shown = [textwrap.shorten(reason, MAX_REASON, placeholder=" ...") for reason in reasons]
        parts.append(f"{num_failed} failed ({'; '.join(shown)})")
    if num_to_run:
        parts.append(f"{num_to_run} to run")
    return ", ".join(parts)


def _failure(store: Store, goal: Recipe) -> str:
    """Why the first stage of an ancestry that failed did so; empty if none has."""
    return next(filter(None, map(store.failure, goal.ancestry())), "")


def job_line(title: JobTitle, goal: str, metrics: Mapping[str, Any]) -> str:
    """Return the line of a job whose goal is in the store."""
    return f"{title.experiment or 'row'}  {title.overrides}  {goal}  {headline(metrics)}"


def headline(metrics: Mapping[str, Any]) -> str:
    """Return the first three numbers of a stage's metrics, for the terminal.

    Counts of what was dropped, skipped or cut (`num_*`) follow where they are not zero.
    """
    numbers = {
        key: value
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    shown = list(numbers)[:3]
    shown += [
        key for key in numbers if key.startswith("num_") and numbers[key] and key not in shown
    ]
    return "  ".join(f"{key} {numbers[key]:.4g}" for key in shown)


def checkpoint_note(store: Store, recipe: Recipe) -> str:
    """Return what there is to resume from in the ancestry of a recipe that was not built.

    Returns:
        `cpt-1a2b has a checkpoint of step 1,200 to resume from; ` for each interrupted stage with a
        checkpoint; empty where there is none.
    """
    notes = []
    for name in recipe.ancestry():
        step = last_checkpoint(store, name)
        if step is not None:
            notes.append(f"{name} has a checkpoint of step {step:,} to resume from; ")
    return "".join(notes)


def last_checkpoint(store: Store, name: str) -> int | None:
    """Return the step of an unfinished stage's last checkpoint; None where there is none."""
    folders = (store.unfinished(name) / "resume").glob("step-*")
    steps = [int(folder.name.partition("-")[2]) for folder in folders]
    return max(steps, default=None)


# ---------------------------------------------------------------- the terminal


class Screen:
    """Prints lines. On a terminal the board stays below them.

    State: the board as it was last drawn, and when.
    """

    INTERVAL = 0.5
    """Seconds between two drawings of the board."""

    def __init__(self, live: bool, silent: bool = False) -> None:
        """Prepare the screen.

        Args:
            live: Whether a board is wanted; there is none where the output is no terminal.
            silent: Whether lines are dropped, since another process prints them.
        """
        self.silent = silent
        self.live = live and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.drawn: list[str] = []
        self.last_drawn = -self.INTERVAL

    def is_due(self) -> bool:
        """Tell whether the board is to be drawn again."""
        return self.live and time.monotonic() - self.last_drawn >= self.INTERVAL

    def draw(self, state: BoardState) -> None:
        """Draw the board in the place of the last one."""
        width, height = shutil.get_terminal_size()
        lines = board_lines(state, width - 1)
        # The cursor stands below the board and must reach its first line to clear it again.
        self._write("", lines[1 - height :])
        self.last_drawn = time.monotonic()

    def print(self, line: str) -> None:
        """Print a line above the board."""
        if not self.silent:
            self._write(line + "\n", self.drawn)

    def close(self) -> None:
        """Remove the board."""
        self._write("", [])

    def _write(self, text: str, board: list[str]) -> None:
        """Clear the board, write some text, and draw a board below it."""
        clear = ""
        if self.drawn:
            # To the start of the line, where a terminal may have written ^C; up to the board's
            # first line; and clear everything from there.
            clear = f"\r\x1b[{len(self.drawn)}A\x1b[J"
        write(clear + text + "".join(f"{line}\n" for line in board))
        self.drawn = board


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with one line, not a traceback, where the user's words or files are wrong.

    That is a ValueError of ours, an OSError such as a full disk, and Ctrl-C, after which the exit
    status is 130 as in a shell.
    """
    try:
        yield
    except ValueError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {file}{error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def escape_unencodable_text() -> None:
    """Escape what the terminal's encoding lacks: Chinese in Latin-1 is written as `\\u4e2d`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write(text: str) -> None:
    """Print text at once, so that it keeps its place among the lines of other processes.

    A reader that has gone, as in `python -m soaes.run ... | head`, ends no build: the rest is
    printed nowhere.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
