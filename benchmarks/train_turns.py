"""Contenders, each a callable that tells how much it did a second, take turns round by round. Knows callables and numbers alone."""

import random
from collections.abc import Callable
from statistics import median


class Turns:
    """taken[name][round] is what a contender told in a counted round: of `times` turns the median."""

    def __init__(self, contenders: dict[str, Callable[[], float]], times: int = 1):
        self.contenders, self.times = contenders, times
        self.taken: dict[str, list[float]] = {name: [] for name in contenders}

    def run(self, number: int, counted: bool) -> None:
        """One round; each time the contenders go in another order."""
        told: dict[str, list[float]] = {name: [] for name in self.contenders}
        rng = random.Random(number)
        for _ in range(self.times):
            for name in rng.sample(list(told), len(told)):
                told[name].append(self.contenders[name]())
        if counted:
            for name, numbers in told.items():
                self.taken[name].append(median(numbers))

    def ratios(self, one: str, other: str) -> list[float]:
        """One's rate over the other's, a number a round."""
        return [
            ours / theirs for ours, theirs in zip(self.taken[one], self.taken[other], strict=True)
        ]
