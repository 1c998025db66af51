"""Draft a few tokens cheaply, verify them in one forward of the target. The output keeps the target's law under an exact rule.

One invariant runs the loop: a cache holds a prefix of the agreed sequence, and a forward reads what its cache misses.
So the prompt and the first block are one forward, and after full acceptance the draft reads its own last token.
"""

import time
from collections.abc import Callable

import torch

from soaes.decode.adaptive import Adaptive, Costs
from soaes.decode.autoregressive import next_token
from soaes.decode.base import Generation, Verdict, check_request
from soaes.decode.sampling import greedy, one_hot, warp
from soaes.decode.verify import greedy_match, rejection
from soaes.pipeline.validation import check

# n drafted tokens of a block, V vocabulary
COST_TURNS, COST_BLOCK = 5, 3


class Speculative:
    """target, draft: Engines over one vocabulary; n: drafted tokens a block; eos ends a text and is part of it.

    rule: one of soaes.decode.verify; adaptive: choose 0 .. n anew for every block, by the costs given or, if True, timed here and now.
    """

    def __init__(self, target, draft, n: int, temperature: float, top_p: float, eos: int,
                 rule: Callable[..., Verdict] = rejection, adaptive: bool | Costs = False):  # fmt: skip
        check(n=n, temperature=temperature, top_p=top_p)
        _refuse_pair(target, draft)
        self.target, self.draft, self.n = target, draft, n
        self.temperature, self.top_p, self.eos, self.rule = temperature, top_p, eos, rule
        self.engines = (target, draft)
        self.adaptive = adapted(self, adaptive)

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode until eos or max_new_tokens."""
        return draft_and_verify(self, prompt_ids, max_new_tokens, generator)

    def propose(self, sequence: list[int], count: int, generator: torch.Generator):
        """Up to `count` tokens and their distributions_nV (None under greedy); a drafted eos is the last one."""
        count = min(count, self.adaptive.choose()) if self.adaptive else count
        text, rows, start = list(sequence), [], len(sequence)
        while len(rows) < count and self.eos not in text[start:][-1:]:
            token, row_V = next_token(self.draft, text, self.temperature, self.top_p, generator)
            text.append(token)
            rows.append(row_V)
        return text[start:], torch.stack(rows) if rows and self.temperature > 0 else None


@torch.inference_mode()
def draft_and_verify(
    decoder, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
) -> Generation:
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
        if decoder.adaptive:
            decoder.adaptive.learn(len(drafted), verdict.accepted)
        _take(out, sequence, drafted, verdict, decoder.eos)
        for engine in decoder.engines:
            engine.rollback(min(engine.length, len(sequence) - 1))
    return out


def verify(
    decoder, sequence: list[int], drafted: list[int], q_nV, generator: torch.Generator
) -> Verdict:
    """One forward of the target over a block, and the rule that accepts it."""
    target = decoder.target
    ids = torch.tensor(sequence[target.length :] + drafted, device=target.device)
    logits = target.forward(ids, tail=len(drafted) + 1)
    if decoder.temperature == 0:
        return greedy_match(greedy(logits), drafted)
    return decoder.rule(warp(logits, decoder.temperature, decoder.top_p), q_nV, drafted, generator)


def _take(
    out: Generation, sequence: list[int], drafted: list[int], verdict: Verdict, eos: int
) -> None:
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


def adapted(decoder, adaptive: bool | Costs) -> Adaptive | None:
    """What chooses the decoder's n, or None for a fixed one."""
    decoder.adaptive = None  # costs are those of whole blocks
    if adaptive is False:
        return None
    return Adaptive(decoder.n, timed_costs(decoder) if adaptive is True else adaptive)


@torch.inference_mode()
def timed_costs(decoder) -> Costs:
    """c and v of a decoder on this machine: the quickest of some blocks on a short text, because other work only ever slows one.

    Takes about COST_TURNS * COST_BLOCK * (n + 1) steps, once. A clock in the choice of n moves the speed, not the law of the text;
    give Costs where a run is to be repeated draw by draw.
    """
    text, generator, seconds = [0] * 8, torch.Generator(), [[] for _ in range(decoder.n + 2)]
    for engine in decoder.engines:
        engine.begin(len(text) + decoder.n + 1)
    for width in [*range(decoder.n + 1)] * COST_TURNS:
        for _ in range(
            COST_BLOCK
        ):  # the same block again finds its matrices in the processor's caches, as in a text
            if width:
                taken, (drafted, _) = _timed(decoder.propose, text, width, generator)
                seconds[-1].append(taken / max(1, len(drafted)))
            seconds[width].append(
                _timed(
                    verify, decoder, text, text[:1] * width, _certain(decoder, width), generator
                )[0]
            )
            for engine in decoder.engines:
                engine.rollback(min(engine.length, len(text) - 1))
    *verifications, draft = map(min, seconds)
    return Costs(draft / verifications[0], [wide / verifications[0] for wide in verifications])


def _timed(action, *arguments):
    start = time.perf_counter()
    result = action(*arguments)
    return time.perf_counter() - start, result


def _certain(decoder, width):
    tokens = torch.zeros(width, dtype=torch.long, device=decoder.target.device)
    return one_hot(tokens, decoder.target.vocab, torch.float32)


def _refuse_pair(target, draft) -> None:
    if draft is target:
        raise ValueError(
            "the draft is the target: nothing is gained; name a smaller model as draft"
        )
    if draft.vocab != target.vocab:
        raise ValueError(
            f"the draft has a vocabulary of {draft.vocab:,}, the target of {target.vocab:,}; "
            "take a draft with the target's tokenizer and as many rows"
        )
