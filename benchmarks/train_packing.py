"""Packing of a million lengths, and of the documents of given rows: seconds and fill.

Compares our packers with first-fit decreasing. TRL's packing `bfd` places the same pieces into rows
of the same lengths (tests/data/test_packing.py), so its fill is ours and it is not timed.
Knows lengths only."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.rounds import row
from benchmarks.train_turns import Turns
from soaes.data.packing import best_fit, sum_of_squares

CAPACITIES = (8192, 4096, 1024, 256)
TARGET_SECONDS = 5.0
TARGET_FILL = 99.5  # per cent
OURS, FIRST, SQUARES = "best-fit decreasing", "first-fit decreasing", "sum of squares"
FIRST_CONTENDER = f"{FIRST}, rows of {CAPACITIES[0]}"


class Packing:
    """Packs log-normal lengths, as texts have them, and the documents of some given rows.

    Half of the drawn lengths are below 330 tokens and one in a hundred is above 4,300. A document
    longer than a row is split.

    Args:
        count: number of lengths to draw.
        world: the lengths of some documents, and the capacity of the rows they were packed into.

    Attributes:
        rows: by (packer, capacity), the number of rows of its last turn.
    """

    def __init__(self, count: int, world: tuple[list[int], int]):
        drawn = np.random.default_rng(0).lognormal(5.8, 1.1, count).astype(int)
        self.lengths = np.clip(drawn, 8, None).tolist()
        self.world = world
        self.rows: dict[tuple[Callable[[list[int], int], int], int], int] = {}
        contenders: dict[str, Callable[[], float]] = {}
        for capacity in CAPACITIES:
            contenders[_ours(capacity)] = partial(self._seconds, best_fit_rows, capacity)
        contenders[FIRST_CONTENDER] = partial(self._seconds, first_fit, CAPACITIES[0])
        self.turns = Turns(contenders)

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every packer. The `rates` are seconds here: less is better."""
        self.turns.run(number, counted)

    def results(self) -> Iterator[dict]:
        """Yield seconds and fill of each packer."""
        million = f"{len(self.lengths):,} log-normal lengths"
        for capacity in CAPACITIES:
            name = _ours(capacity)
            seconds = self.turns.values[name]
            packed = self.rows[best_fit_rows, capacity]
            yield row(f"{name}, {million}", "s", seconds, TARGET_SECONDS, "lower")
            yield _fill(f"fill of {name}, {million}", self.lengths, capacity, packed, len(seconds))
        seconds = self.turns.values[FIRST_CONTENDER]
        capacity = CAPACITIES[0]
        packed = self.rows[first_fit, capacity]
        name = f"fill of {FIRST_CONTENDER}, {million}"
        by_tree = f"{FIRST_CONTENDER}, by a tree of rooms, {million}"
        yield row(by_tree, "s", seconds, better="lower")
        yield _fill(name, self.lengths, capacity, packed, len(seconds))
        yield from self._world_fill(len(seconds))

    def _world_fill(self, rounds: int) -> Iterator[dict]:
        """The fill of the given rows, which were packed by `sum_of_squares`: it has a target."""
        lengths, capacity = self.world
        documents = f"the {len(lengths):,} documents of these rows"
        for name, pack, target in ((OURS, best_fit, None), (SQUARES, sum_of_squares, TARGET_FILL)):
            packed = pack(lengths, capacity, "split").rows
            title = f"fill of {name}, rows of {capacity}, {documents}"
            yield _fill(title, lengths, capacity, packed, rounds, target)

    def _seconds(self, pack: Callable[[list[int], int], int], capacity: int) -> float:
        start = time.perf_counter()
        self.rows[pack, capacity] = pack(self.lengths, capacity)
        return time.perf_counter() - start


def best_fit_rows(lengths: list[int], capacity: int) -> int:
    """Return the number of rows of our best-fit decreasing."""
    return best_fit(lengths, capacity, "split").rows


def first_fit(lengths: list[int], capacity: int) -> int:
    """Return the number of rows of first-fit decreasing.

    Each piece, the longest first, goes to the first row that holds it. A scan over the rows would
    take quadratic time. A binary tree whose nodes hold the largest free space below them finds the
    row in log2(rows) steps.
    """
    pieces = []
    for length in lengths:
        for start in range(0, length, capacity):
            pieces.append(min(capacity, length - start))
    pieces.sort(reverse=True)
    # at most one row is less than half full, so twice the tokens bound the number of rows
    leaves = 1 << (2 * sum(pieces) // capacity + 1).bit_length()
    free = [capacity] * (2 * leaves)  # largest free space below node i; children 2 i and 2 i + 1
    rows = 0
    for piece in pieces:
        node = 1
        while node < leaves:
            left = 2 * node
            node = left if free[left] >= piece else left + 1
        rows = max(rows, node - leaves + 1)
        free[node] -= piece
        while node > 1:
            node //= 2
            largest = max(free[2 * node], free[2 * node + 1])
            if free[node] == largest:
                break
            free[node] = largest
    return rows


def _ours(capacity: int) -> str:
    return f"{OURS}, rows of {capacity}"


def _fill(
    name: str,
    lengths: list[int],
    capacity: int,
    rows: int,
    rounds: int,
    target: float | None = TARGET_FILL,
) -> dict:
    """A result in per cent; its limit is the fill of the fewest rows that can hold the tokens."""
    tokens = sum(lengths)
    fewest = -(-tokens // capacity)
    fill = 100 * tokens / (rows * capacity)
    limit = 100 * tokens / (fewest * capacity)
    return row(name, "%", [fill] * rounds, target, limit=limit)
