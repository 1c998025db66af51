"""Drafts without a draft model: what followed the last occurrence of the text's own end.

Knows token ids only. The draft's distribution is a one-hot, so rejection accepts a token x with
probability p(x). The loop, and the proof that the text keeps the target's distribution, are those
of soaes.decode.speculative.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from soaes.decode.adaptive import BlockCosts
from soaes.decode.base import Generation, Rule
from soaes.decode.batch import run
from soaes.decode.engine import Engine, Steps
from soaes.decode.sampling import one_hot
from soaes.decode.settings import PromptLookupSettings, SamplingSettings
from soaes.decode.speculative import Draft, adaptive_length, speculate
from soaes.decode.verify import REJECTION, RULES

# n drafted tokens of a block, V vocabulary


class PromptLookup:
    """Speculative decoding that drafts by looking up n-grams in the text so far.

    Args:
        target: The model that verifies.
        n: Drafted tokens in a block at most.
        max_ngram: Tokens of the longest n-gram looked for; shorter ones are tried down to 1 token.
        temperature: At least 0; 0 is greedy.
        top_p: In (0, 1].
        eos: Id of the token that ends a text and is part of it.
        rule: An acceptance rule of soaes.decode.verify.
        adaptive: As for `Speculative`; acceptance is estimated for each n-gram length by itself.

    Raises:
        ValueError: A setting is out of its range.
    """

    def __init__(
        self,
        target: Engine,
        n: int,
        max_ngram: int,
        temperature: float,
        top_p: float,
        eos: int,
        rule: Rule = REJECTION,
        adaptive: bool | BlockCosts = False,
    ) -> None:
        PromptLookupSettings(n, max_ngram)  # checks the two
        SamplingSettings(temperature, top_p)
        self.engines: tuple[Engine, ...] = (target,)
        self.n = n
        self.max_ngram = max_ngram
        self.temperature = temperature
        self.top_p = top_p
        self.eos = eos
        self.rule = rule
        self.adaptive = adaptive_length(self, adaptive)

    @property
    def target(self) -> Engine:
        """The model that verifies."""
        return self.engines[0]

    @classmethod
    def from_settings(
        cls,
        settings: PromptLookupSettings,
        engines: Mapping[str, Engine],
        sampling: SamplingSettings,
        eos: int,
    ) -> PromptLookup:
        """Construct the decoder, see `DecoderSettings.build`."""
        return cls(
            engines["target"],
            settings.n,
            settings.max_ngram,
            sampling.temperature,
            sampling.top_p,
            eos,
            rule=RULES[settings.rule],
            adaptive=settings.adaptive,
        )

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode until eos or `max_new_tokens`."""
        return run(self.decode(prompt_ids, max_new_tokens, generator))

    def decode(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Steps[Generation]:
        """Decode step by step."""
        return speculate(self, prompt_ids, max_new_tokens, generator)

    def propose(self, sequence: list[int], count: int, generator: torch.Generator) -> Steps[Draft]:
        """Draft up to `count` tokens; a drafted eos is the last one.

        Returns:
            The tokens and their one-hot distributions_nV; None for greedy decoding or no tokens.
        """
        yield from ()  # no forward is needed
        drafted, ngram = lookup(sequence, self.max_ngram, count)
        if self.adaptive and drafted:
            drafted = drafted[: self.adaptive.choose(ngram)]
        if self.eos in drafted:
            drafted = drafted[: drafted.index(self.eos) + 1]
        if self.temperature == 0 or not drafted:
            return drafted, None
        tokens = torch.tensor(drafted, device=self.target.device)
        return drafted, one_hot(tokens, self.target.vocab, torch.float32)


def lookup(sequence: list[int], max_ngram: int, count: int) -> tuple[list[int], int]:
    """Find what followed the latest earlier occurrence of the sequence's last tokens.

    Args:
        sequence: Token ids below 1,114,112 (the search runs over characters).
        max_ngram: How many last tokens are looked for at first; then one fewer, down to 1.
        count: Tokens to return at most.

    Returns:
        The tokens that followed, and the length of the n-gram that was found; ([], 0) without one.
    """
    text = "".join(map(chr, sequence))  # one character a token: the search runs in C
    for ngram in range(min(max_ngram, len(sequence) - 1), 0, -1):
        # sequence [7 8 9 7 8], ngram 2: the end (7 8) also stands at 0, so 9 7 8 is drafted
        start = text.rfind(text[-ngram:], 0, -1)
        if start >= 0:
            return sequence[start + ngram : start + ngram + count], ngram
    return [], 0
