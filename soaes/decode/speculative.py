"""Draft a few tokens cheaply, verify them in one forward of the target. The output keeps the target's law.

One invariant runs the loop: a cache holds a prefix of the agreed sequence, and a forward reads what its cache misses.
So the prompt and the first block are one forward, and after full acceptance the draft reads its own last token.
"""

import torch

from soaes.decode.autoregressive import next_token
from soaes.decode.distributions import greedy, warp
from soaes.decode.generation import Generation, check_request
from soaes.decode.verify import Verdict, greedy_match, rejection
from soaes.limits import check

# n drafted tokens of a block, V vocabulary


class Speculative:
    """target, draft: Engines over one vocabulary; n: drafted tokens a block; eos ends a text and is part of it."""

    def __init__(self, target, draft, n: int, temperature: float, top_p: float, eos: int):
        check(n=n, temperature=temperature, top_p=top_p)
        _refuse_pair(target, draft)
        self.target, self.draft, self.n = target, draft, n
        self.temperature, self.top_p, self.eos = temperature, top_p, eos
        self.engines = (target, draft)

    def generate(self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator) -> Generation:
        """Decode until eos or max_new_tokens."""
        return draft_and_verify(self, prompt_ids, max_new_tokens, generator)

    def propose(self, sequence: list[int], count: int, generator: torch.Generator):
        """Up to `count` tokens and their distributions_nV (None under greedy); a drafted eos is the last one."""
        drafted, rows = [], []
        while len(drafted) < count and self.eos not in drafted[-1:]:
            token, row_V = next_token(self.draft, sequence + drafted, self.temperature, self.top_p, generator)
            drafted.append(token)
            rows.append(row_V)
        return drafted, torch.stack(rows) if rows and self.temperature > 0 else None


@torch.inference_mode()
def draft_and_verify(decoder, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator) -> Generation:
    """The loop of every drafting decoder: they differ in `propose` alone.

    A block drafts at most what may still be written, less the token that the target adds: nothing is ever cut off.
    """
    check_request(prompt_ids, max_new_tokens)
    for engine in decoder.engines:
        engine.begin(len(prompt_ids) + max_new_tokens)
    out = Generation(tests_per_position=[0] * decoder.n, accepts_per_position=[0] * decoder.n)
    sequence = list(prompt_ids)
    while len(out.tokens) < max_new_tokens and decoder.eos not in out.tokens[-1:]:
        room = max_new_tokens - len(out.tokens) - 1
        drafted, q_nV = decoder.propose(sequence, min(decoder.n, room), generator)
        verdict = verify(decoder, sequence, drafted, q_nV, generator)
        _take(out, sequence, drafted, verdict, decoder.eos)
        for engine in decoder.engines:
            engine.rollback(min(engine.length, len(sequence) - 1))
    return out


def verify(decoder, sequence: list[int], drafted: list[int], q_nV, generator: torch.Generator) -> Verdict:
    """One forward of the target over a block, and the rule that accepts it."""
    target = decoder.target
    ids = torch.tensor(sequence[target.length :] + drafted, device=target.device)
    logits = target.forward(ids, tail=len(drafted) + 1)
    if decoder.temperature == 0:
        return greedy_match(greedy(logits), drafted)
    p_rows = warp(logits, decoder.temperature, decoder.top_p)
    return rejection(p_rows, p_rows[:0] if q_nV is None else q_nV, drafted, generator)


def _take(out: Generation, sequence: list[int], drafted: list[int], verdict: Verdict, eos: int) -> None:
    """Write a verdict down. A drafted eos is the last of its block: once accepted, no token follows it."""
    new = drafted[: verdict.accepted]
    if eos not in new:
        new = [*new, verdict.token]
    sequence.extend(new)
    out.tokens.extend(new)
    out.steps += 1
    out.accepted += verdict.accepted
    out.overlap += verdict.overlap
    for position, passed in enumerate(verdict.passed):
        out.tests_per_position[position] += 1
        out.accepts_per_position[position] += passed


def _refuse_pair(target, draft) -> None:
    if draft is target:
        raise ValueError("the draft is the target: nothing is gained; name a smaller model as draft")
    if draft.vocab != target.vocab:
        raise ValueError(
            f"the draft has a vocabulary of {draft.vocab:,}, the target of {target.vocab:,}; "
            "take a draft with the target's tokenizer and as many rows"
        )
