"""Run contenders in turns, round by round. Knows only callables that return a number."""

import random
from collections.abc import Callable
from statistics import median


class Turns:
    """Measures contenders in interleaved turns.

    Args:
        contenders: by name, a callable that does its work once and returns its rate, or its time.
        times: turns of each contender in a round.

    Attributes:
        values: `values[name][round]`, the median over the turns of a counted round.
    """

    def __init__(self, contenders: dict[str, Callable[[], float]], times: int = 1):
        self.contenders, self.times = contenders, times
        self.values: dict[str, list[float]] = {name: [] for name in contenders}

    def run(self, number: int, counted: bool) -> None:
        """Run one round; the order of the contenders is drawn anew for each turn."""
        values: dict[str, list[float]] = {name: [] for name in self.contenders}
        rng = random.Random(number)
        for _ in range(self.times):
            for name in rng.sample(list(values), len(values)):
                values[name].append(self.contenders[name]())
        if counted:
            for name, measured in values.items():
                self.values[name].append(median(measured))

    def ratios(self, name: str, baseline: str) -> list[float]:
        """Return one contender's value over another's, one ratio a round."""
        pairs = zip(self.values[name], self.values[baseline], strict=True)
        return [value / baseline_value for value, baseline_value in pairs]
