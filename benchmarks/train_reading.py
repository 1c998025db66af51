"""How fast the teacher store reads rows, compared with the same bytes in plain memory-mapped files.

Knows folders and bytes.

# R rows, N tokens of them that bear loss"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.rounds import row
from benchmarks.train_turns import Turns

READS = {1: 400, 8: 100}  # rows of a read: reads of a turn
STORE, PLAIN = "the store", "plain files"


class Reading:
    """Reads random rows from a teacher store and from plain `.npy` files.

    Args:
        store: an opened store, as `soaes.data.teacher_store.load` returns it.
        count: rows of the store to read from.
        folder: where each array is written once more as one plain file.
    """

    def __init__(self, store: Any, count: int, folder: Path):
        self.store = store
        self.bytes_per_row: dict[int, float] = {}  # by rows of a read
        rows = []
        for index in range(count):
            fields = store.rows(np.array([index]))
            rows.append({name: field.numpy() for name, field in fields.items()})
        lengths = [len(next(iter(fields.values()))) for fields in rows]
        self.offsets = np.cumsum([0, *lengths])  # row i holds tokens [offsets[i], offsets[i + 1])
        self.plain = {}
        for name in rows[0]:
            whole = np.concatenate([fields[name] for fields in rows])
            self.plain[name] = _memory_mapped(folder / f"{name}.npy", whole)
        rng = np.random.default_rng(0)
        self.indices = {}  # by rows of a read, the row numbers of each read
        for size, reads in READS.items():
            chosen = [rng.choice(count, size, replace=False) for _ in range(reads)]
            self.indices[size] = [np.sort(indices) for indices in chosen]
        contenders: dict[str, Callable[[], float]] = {}
        for source, read in ((STORE, self.read_store), (PLAIN, self.read_plain)):
            for size in READS:
                contenders[_contender(source, size)] = partial(self._rate, read, size)
        self.turns = Turns(contenders)

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every contender."""
        self.turns.run(number, counted)

    def results(self) -> Iterator[dict]:
        """Yield rows and bytes a second of the store, and its ratio to plain files."""
        for size in READS:
            rates = self.turns.values[_contender(STORE, size)]
            megabytes = [rate * self.bytes_per_row[size] / 1e6 for rate in rates]
            ratios = self.turns.ratios(_contender(STORE, size), _contender(PLAIN, size))
            setting = f"{size} at once, {self.store.soft_targets.name}"
            against = f"reading from the store / from plain memory-mapped files, {setting}"
            yield row(f"rows read from the store, {setting}", "rows/s", rates)
            yield row(f"bytes read from the store, {setting}", "MB/s", megabytes)
            yield row(against, "ratio", ratios, limit=1.0)

    def read_store(self, indices: np.ndarray) -> list:
        """Return the fields of some rows from the store."""
        return list(self.store.rows(indices).values())

    def read_plain(self, indices: np.ndarray) -> list:
        """Return the fields of some rows from the plain files."""
        fields = []
        for array in self.plain.values():
            parts = [array[self.offsets[index] : self.offsets[index + 1]] for index in indices]
            fields.append(np.concatenate(parts))
        return fields

    def _rate(self, read: Callable[[np.ndarray], list], size: int) -> float:
        """Rows a second; also notes the bytes of a row."""
        reads = self.indices[size]
        start, num_bytes = perf_counter(), 0
        for indices in reads:
            num_bytes += sum(field.nbytes for field in read(indices))
        seconds = perf_counter() - start
        self.bytes_per_row[size] = num_bytes / (size * len(reads))
        return size * len(reads) / seconds


def _contender(source: str, size: int) -> str:
    return f"{source}, {size}"


def _memory_mapped(path: Path, array: np.ndarray) -> np.ndarray:
    np.save(path, array)
    return np.load(path, mmap_mode="r")
