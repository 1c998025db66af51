"""What all decoders share: their interface, what they return, and the record of an acceptance rule.

Counts only; soaes.metrics.acceptance turns them into rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from soaes.decode.engine import Engine, Steps

# n drafted tokens of a block, V vocabulary


@dataclass
class Generation:
    """New tokens of one prompt and the counts of how they were made.

    Position i is the i-th drafted token of a block, counted from 0.
    """

    tokens: list[int] = field(default_factory=list)  # a final eos included
    steps: int = 0  # forwards of the target
    accepted: int = 0  # drafted tokens that were emitted
    tests_per_position: list[int] = field(default_factory=list)
    # passed tests, those after a block's first rejection included
    accepts_per_position: list[int] = field(default_factory=list)
    # sum of min(p, q) over all drafted positions; None where a library does not report it
    overlap: float | None = 0.0

    @property
    def drafted(self) -> int:
        """Drafted tokens: each is tested once."""
        return sum(self.tests_per_position)


class Decoder(Protocol):
    """The interface of every decoder, ours or another library's."""

    n: int  # drafted tokens in a block at most; 0 for autoregression

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode one prompt until eos or `max_new_tokens`.

        Args:
            prompt_ids: At least one token id.
            max_new_tokens: At least 1.
            generator: All randomness of the text; greedy decoding draws nothing from it.
        """


class EngineDecoder(Decoder, Protocol):
    """A decoder over our own engine."""

    engines: tuple[Engine, ...]  # all models that it runs, the target first

    @property
    def target(self) -> Engine:
        """The model whose text is wanted."""

    def decode(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Steps[Generation]:
        """Decode one prompt as `generate` does, step by step, see soaes.decode.batch."""


def check_request(prompt_ids: list[int], max_new_tokens: int) -> None:
    """Check a decoder's input.

    Raises:
        ValueError: The prompt is empty, or `max_new_tokens` is below 1.
    """
    if not prompt_ids:
        raise ValueError(
            "the prompt has 0 tokens, decoding starts from at least 1; "
            "give the chat template a user turn"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: a generation has at least 1 new token")


class Verdict(NamedTuple):
    """The outcome of verifying one block."""

    accepted: int  # drafted tokens that are emitted
    token: int  # emitted after them: a correction, or the bonus token if all are accepted
    passed: list[bool]  # the rule's test at all n positions, those after the first failure included
    overlap: float  # sum over the n positions of sum min(p, q)


class AcceptanceTest(NamedTuple):
    """What a rule says of one block before anything is drawn.

    Tests enumerate this object; decoding samples from it. So what is proved is what runs.
    """

    accept_probs: list[float]  # probability that test i passes, each test drawn independently
    count: Callable[[list[bool]], int]  # tests passed -> drafted tokens accepted
    next_probs: Callable[[int], torch.Tensor]  # accepted -> distribution_V of the token after them


@dataclass(frozen=True)
class Rule:
    """An acceptance rule: how drafted tokens are tested against the target's distribution."""

    name: str  # as in rule=NAME on the command line
    exact: bool  # whether the emitted text has the target's distribution
    # (p_rows [n + 1, V], q_rows [n, V], drafted token ids) -> the tests of the block
    test: Callable[[torch.Tensor, torch.Tensor, list[int]], AcceptanceTest]

    @property
    def label(self) -> str:
        """The name, marked where the rule is biased: `block`, `paper_literal (biased)`."""
        return self.name if self.exact else f"{self.name} (biased)"
