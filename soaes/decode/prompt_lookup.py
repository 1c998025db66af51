"""Drafts without a model: what followed the last occurrence of the text's own end. The output keeps the target's law.

Knows token ids only. The draft's distribution is a one-hot, so the default rule accepts a token with p(token).
"""

from collections.abc import Callable

import torch

from soaes.decode.adaptive import Costs
from soaes.decode.base import Generation, Verdict
from soaes.decode.sampling import one_hot
from soaes.decode.speculative import adapted, draft_and_verify
from soaes.decode.verify import rejection
from soaes.pipeline.validation import check


class PromptLookup:
    """n: drafted tokens a block at most; max_ngram: the longest n-gram looked for, then shorter ones down to one token.

    rule, adaptive: as Speculative's; the estimates of `adaptive` are kept apart by the length of the match.
    """

    def __init__(self, target, n: int, max_ngram: int, temperature: float, top_p: float, eos: int,
                 rule: Callable[..., Verdict] = rejection, adaptive: bool | Costs = False):  # fmt: skip
        check(n=n, max_ngram=max_ngram, temperature=temperature, top_p=top_p)
        self.target, self.n, self.max_ngram = target, n, max_ngram
        self.temperature, self.top_p, self.eos, self.rule = temperature, top_p, eos, rule
        self.engines = (target,)
        self.adaptive = adapted(self, adaptive)

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode until eos or max_new_tokens."""
        return draft_and_verify(self, prompt_ids, max_new_tokens, generator)

    def propose(self, sequence: list[int], count: int, generator: torch.Generator):
        """Up to `count` tokens and their one-hots_nV (None under greedy); a drafted eos is the last one."""
        drafted, size = lookup(sequence, self.max_ngram, count)
        if self.adaptive and drafted:
            drafted = drafted[: self.adaptive.choose(size)]
        if self.eos in drafted:
            drafted = drafted[: drafted.index(self.eos) + 1]
        if self.temperature == 0 or not drafted:
            return drafted, None
        tokens = torch.tensor(drafted, device=self.target.device)
        return drafted, one_hot(tokens, self.target.vocab, torch.float32)


def lookup(sequence: list[int], max_ngram: int, count: int) -> tuple[list[int], int]:
    """What followed the latest earlier occurrence of the last `max_ngram` tokens, or of fewer, and how many; ([], 0) without one."""
    text = "".join(
        map(chr, sequence)
    )  # one character a token: the search runs in C (ids up to 1,114,111)
    for size in range(min(max_ngram, len(sequence) - 1), 0, -1):
        # sequence [7 8 9 7 8], size 2: the end (7 8) also stands at 0, so 9 7 8 is drafted
        start = text.rfind(text[-size:], 0, -1)
        if start >= 0:
            return sequence[start + size : start + size + count], size
    return [], 0
