"""How fast the teacher's store gives back its rows, beside the same bytes out of plain memory-mapped files. Knows folders and bytes.

# R rows, N tokens of them that bear loss"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.rounds import row
from benchmarks.train_turns import Turns

STEPS = {1: 400, 8: 100}  # rows of a read, and reads of a turn


class Reading:
    """store: of `soaes.data.teacher_store.load`, over `count` rows; its arrays are written once more into `folder`, each whole in a file."""

    def __init__(self, store: Any, count: int, folder: Path):
        self.store, self.bytes = store, {}
        each = [
            {name: field.numpy() for name, field in store.rows(np.array([at])).items()}
            for at in range(count)
        ]
        self.ends = np.cumsum([0, *(len(next(iter(one.values()))) for one in each)])
        self.plain = {
            name: _written(folder / f"{name}.npy", np.concatenate([one[name] for one in each]))
            for name in each[0]
        }
        rng = np.random.default_rng(0)
        self.asked = {
            rows: [np.sort(rng.choice(count, rows, replace=False)) for _ in range(reads)]
            for rows, reads in STEPS.items()
        }
        ways = {"the store": self._ours, "plain files": self._plain}
        self.turns = Turns(
            {
                _named(way, rows): partial(self._rate, read, rows)
                for way, read in ways.items()
                for rows in STEPS
            }
        )

    def run(self, number: int, counted: bool) -> None:
        self.turns.run(number, counted)

    def results(self) -> Iterator[dict]:
        for rows in STEPS:
            taken, of = (
                self.turns.taken[_named("the store", rows)],
                f"{rows} at once, {self.store.soft_targets.name}",
            )
            yield row(f"rows read from the store, {of}", "rows/s", taken)
            yield row(
                f"bytes read from the store, {of}",
                "MB/s",
                [rate * self.bytes[rows] / 1e6 for rate in taken],
            )
            ratios = self.turns.ratios(_named("the store", rows), _named("plain files", rows))
            yield row(
                f"reading from the store / from plain memory-mapped files, {of}",
                "ratio",
                ratios,
                limit=1.0,
            )

    def _rate(self, read: Any, rows: int) -> float:
        """Rows a second. bytes[rows] are those of a row."""
        began, size = perf_counter(), 0
        for which in self.asked[rows]:
            size += sum(field.nbytes for field in read(which))
        taken = perf_counter() - began
        self.bytes[rows] = size / (rows * len(self.asked[rows]))
        return rows * len(self.asked[rows]) / taken

    def _ours(self, which: np.ndarray) -> list:
        return list(self.store.rows(which).values())

    def _plain(self, which: np.ndarray) -> list:
        return [
            np.concatenate([field[self.ends[at] : self.ends[at + 1]] for at in which])
            for field in self.plain.values()
        ]


def _named(way: str, rows: int) -> str:
    return f"{way}, {rows}"


def _written(path: Path, array: np.ndarray) -> np.ndarray:
    np.save(path, array)
    return np.load(path, mmap_mode="r")
