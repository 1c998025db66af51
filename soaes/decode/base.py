"""What a decoder returns, and what every decoder asks of its prompt. Counts only: rates stand in metrics.acceptance."""

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass
class Generation:
    """New tokens with the counts of their making. Position i is the i-th drafted token of a block, counted from 0."""

    tokens: list[int] = field(default_factory=list)
    steps: int = 0  # forwards of the target
    accepted: int = 0  # drafted tokens that were emitted
    tests_per_position: list[int] = field(default_factory=list)
    accepts_per_position: list[int] = field(
        default_factory=list
    )  # passed tests, also after a block's first rejection
    overlap: float = 0.0  # sum of min(p, q) over all drafted positions

    @property
    def drafted(self) -> int:
        """Every drafted token is tested once."""
        return sum(self.tests_per_position)


def check_request(prompt_ids: list[int], max_new_tokens: int) -> None:
    """ValueError where there is nothing to read or nothing to write."""
    if not prompt_ids:
        raise ValueError(
            "the prompt has 0 tokens, decoding starts from at least 1; give the chat template a user turn"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: a generation has at least 1 new token")


class Verdict(NamedTuple):
    """What one block came to. `passed` holds the rule's own test at all n positions, also after the first failure."""

    accepted: int
    token: (
        int  # emitted after the accepted ones: the correction, or the bonus when all are accepted
    )
    passed: list[bool]
    overlap: float  # sum over the n positions of sum min(p, q)
