"""How many tokens to draft next: as many as recent acceptance makes worthwhile, none where
drafting loses time.

A choice reads the past alone, so sampled text keeps the target's distribution and greedy text its
tokens, whatever the estimates or the clock say.
"""

from __future__ import annotations

from dataclasses import dataclass

DECAY = 0.98  # a block's weight falls by a factor e in 50 more: estimates follow the texts
SHARE = 0.01  # of the steps may be lost for good on finding out whether drafting pays again
MARGIN = 0.03  # drafting must promise this much over one token a step: estimates and clocks err
START = 2  # blocks of n_max tokens that may fail in a row at the start
CAP = 10  # and once drafting has paid


@dataclass(frozen=True)
class BlockCosts:
    """What the parts of a block cost, in steps of the target."""

    draft: float  # c: one drafted token
    verify: list[float]  # v: verifying 0, 1 .. n drafted tokens; that of none is 1


@dataclass
class Situation:
    """What is known of one situation; the counts decay."""

    budget: float  # steps that may still be lost on drafts that fail
    accepted: float = 2.0  # accepted tokens; starts as if a few blocks had been seen: a = 2/3
    failed: float = 1.0  # blocks with a rejected token


class Adaptive:
    """Chooses the block length n of 0 .. n_max before every block.

    The goal is max E(a, n) / (n c + v(n)), with E(a, n) = 1 + a + .. + a^n tokens a block. The
    acceptance rate a is estimated as accepted tokens over accepted tokens and failures, for each
    situation by itself (that of prompt lookup is the length of the match), and lasts across texts.
    No draft counts 1 + MARGIN.

    A situation has a budget, in steps, which pays for what its blocks cost beyond their tokens. It
    starts with START failures; drafting that gains adds its gain, and every block adds SHARE of a
    step. n is cut until the budget covers a block that fails entirely. Where the best n is 0, the
    budget holds one try of one token at most. So where nothing is accepted, the loss stays below
    SHARE of the steps plus the start, and drafting returns soon after a try succeeds.

    Args:
        n: Drafted tokens in a block at most.
        costs: What a block costs, with n + 1 costs of verification.

    Raises:
        ValueError: There are not n + 1 costs of verification.
    """

    def __init__(self, n: int, costs: BlockCosts) -> None:
        if len(costs.verify) != n + 1:
            raise ValueError(
                f"{len(costs.verify)} costs of verification with n={n}: "
                "give n + 1, for 0 to n drafted tokens"
            )
        step = costs.verify[0]
        # of a block of 0 .. n drafted tokens, in steps of autoregression
        self.prices = [
            (count * costs.draft + verify) / step for count, verify in enumerate(costs.verify)
        ]
        self.worst_loss = max(price - 1 for price in self.prices)
        self.situations: dict[int, Situation] = {}
        self.current: Situation | None = None

    def choose(self, situation: int = 0) -> int:
        """Return how many tokens to draft in a situation."""
        if situation not in self.situations:
            self.situations[situation] = Situation(budget=START * self.worst_loss)
        state = self.current = self.situations[situation]
        n = self._fastest(state.accepted / (state.accepted + state.failed))
        if n == 0:
            n = 1
            state.budget = min(state.budget, self.prices[1] - 1)
        while n and self.prices[n] - 1 > state.budget:
            n -= 1
        return n

    def learn(self, drafted: int, accepted: int) -> None:
        """Take in the outcome of the block whose length was chosen last, if one was chosen."""
        state = self.current
        if state is None:
            return
        gain = SHARE + accepted + 1 - self.prices[drafted]
        state.budget = min(CAP * self.worst_loss, state.budget + gain)
        if drafted:
            state.accepted = DECAY * state.accepted + accepted
            state.failed = DECAY * state.failed + (accepted < drafted)
        self.current = None

    def _fastest(self, rate: float) -> int:
        """The n with the most tokens per step if each drafted token is accepted with `rate`."""
        tokens = 0.0
        power = 1.0
        speeds = []
        for price in self.prices:
            tokens += power
            power *= rate
            speeds.append(tokens / price)
        speeds[0] *= 1 + MARGIN
        return speeds.index(max(speeds))
