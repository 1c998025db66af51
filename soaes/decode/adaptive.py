"""How many tokens to draft next: as many as the acceptance seen so far makes worth it, none where drafting loses time.

A choice reads the past alone, so sampled text keeps the target's law and greedy text its tokens, whatever the estimates or the clock say.
"""

from dataclasses import dataclass
from typing import NamedTuple

DECAY = 0.98  # a block counts e times less after 50 more: an estimate follows the texts
SHARE = 0.01  # of the steps that drafting may lose for good, to find out whether it pays again
MARGIN = 0.03  # that drafting must promise over one token a step, because estimates and clocks err
START, CAP = (
    2,
    10,
)  # blocks of n_max tokens that may fail one after the other: at first, and once drafting has paid


class Costs(NamedTuple):
    """In steps of the target: c of one drafted token, and v of verifying 0, 1 .. n drafted tokens (v of none is 1)."""

    draft: float
    verify: list[float]


@dataclass
class Seen:
    """What is known of one situation: accepted tokens and blocks that failed, both fading, and steps that may still be lost."""

    purse: float
    accepted: float = 2.0  # as if a few blocks had been seen: a = 2/3
    failed: float = 1.0


class Adaptive:
    """Chooses n of 0 .. n_max before every block to maximise E(a, n) / (n c + v(n)), and drafts what it can afford of it.

    a: accepted tokens over accepted tokens and failures, an estimate for each situation (prompt lookup's is the length of the match)
    that lasts across texts. E(a, n) = 1 + a + .. + a^n tokens a block. No draft counts 1 + MARGIN.
    A situation's purse, in steps, pays for what its blocks cost beyond their tokens: it starts with START failures, gains what drafting
    gains and SHARE of a step a block, and n is cut until the purse can bear that the whole block fails. Where the best n is 0, it holds
    one try of one token at most. So the loss where nothing is accepted stays below SHARE of the steps and the start, and drafting comes
    back soon after a try succeeds.
    """

    def __init__(self, n: int, costs: Costs):
        if len(costs.verify) != n + 1:
            raise ValueError(
                f"{len(costs.verify)} costs of verification with n={n}: give n + 1, for 0 to n drafted tokens"
            )
        step = costs.verify[0]
        self.prices = [
            (count * costs.draft + wide) / step for count, wide in enumerate(costs.verify)
        ]
        self.worst = max(price - 1 for price in self.prices)
        self.seen: dict[int, Seen] = {}
        self.now: Seen | None = None

    def choose(self, situation: int = 0) -> int:
        """Tokens to draft in this situation."""
        self.now = self.seen.setdefault(situation, Seen(purse=START * self.worst))
        n = self._fastest(self.now.accepted / (self.now.accepted + self.now.failed))
        if n == 0:
            n, self.now.purse = 1, min(self.now.purse, self.prices[1] - 1)
        while n and self.prices[n] - 1 > self.now.purse:
            n -= 1
        return n

    def learn(self, drafted: int, accepted: int) -> None:
        """What came of the block that was chosen last; nothing where none was."""
        if self.now is None:
            return
        gained = SHARE + accepted + 1 - self.prices[drafted]
        self.now.purse = min(CAP * self.worst, self.now.purse + gained)
        if drafted:
            self.now.accepted = DECAY * self.now.accepted + accepted
            self.now.failed = DECAY * self.now.failed + (accepted < drafted)
        self.now = None

    def _fastest(self, rate: float) -> int:
        tokens, power, speeds = 0.0, 1.0, []
        for price in self.prices:
            tokens += power
            power *= rate
            speeds.append(tokens / price)
        speeds[0] *= 1 + MARGIN
        return speeds.index(max(speeds))
