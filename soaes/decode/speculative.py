"""Speculative decoding: draft a few tokens cheaply, verify them in one forward of the target.

Under an exact rule the text keeps the target's distribution. Read from top to bottom:
`Speculative.propose` drafts, `speculate` is the loop, `verify` runs the target over a block and
calls the rule (soaes.decode.verify), `emit` writes the accepted tokens and the bonus token down.

One invariant runs the loop: a cache holds a prefix of the agreed sequence, and a forward reads
what its cache misses. So the prompt and the first block are one forward, and after full acceptance
the draft reads its own last token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from soaes.decode.adaptive import Adaptive, BlockCosts
from soaes.decode.autoregressive import next_token
from soaes.decode.base import EngineDecoder, Generation, Rule, Verdict, check_request
from soaes.decode.batch import run
from soaes.decode.clock import timed
from soaes.decode.engine import Engine, Forward, Steps
from soaes.decode.sampling import greedy, one_hot, warp
from soaes.decode.settings import SamplingSettings, SpeculativeSettings
from soaes.decode.verify import REJECTION, RULES, verify_block, verify_greedy

# n drafted tokens of a block, V vocabulary

COST_ROUNDS = 5  # how often `timed_costs` goes through all block sizes
COST_REPEATS = 3  # blocks of one size in a row

# drafted tokens, and their distributions_nV: None for greedy decoding or no tokens
Draft = tuple[list[int], torch.Tensor | None]


class DraftingDecoder(EngineDecoder, Protocol):
    """A decoder that `speculate` runs: drafting decoders differ in `propose` alone."""

    temperature: float
    top_p: float
    eos: int
    rule: Rule
    adaptive: Adaptive | None  # chooses the length of the next block; None: always n

    def propose(self, sequence: list[int], count: int, generator: torch.Generator) -> Steps[Draft]:
        """Draft up to `count` tokens after a sequence, with their distributions_nV."""


class Speculative:
    """Speculative decoding with a draft model.

    Args:
        target: The model that verifies.
        draft: The model that drafts, over the same vocabulary.
        n: Drafted tokens in a block.
        temperature: At least 0; 0 is greedy.
        top_p: In (0, 1].
        eos: Id of the token that ends a text and is part of it.
        rule: An acceptance rule of soaes.decode.verify.
        adaptive: Choose 0 .. n anew for every block, by the given costs or, if True, by costs
            timed here and now.

    Raises:
        ValueError: A setting is out of its range, or the two models do not go together.
    """

    def __init__(
        self,
        target: Engine,
        draft: Engine,
        n: int,
        temperature: float,
        top_p: float,
        eos: int,
        rule: Rule = REJECTION,
        adaptive: bool | BlockCosts = False,
    ) -> None:
        SpeculativeSettings(n)  # checks it
        SamplingSettings(temperature, top_p)
        _check_pair(target, draft)
        self.engines: tuple[Engine, ...] = (target, draft)
        self.n = n
        self.temperature = temperature
        self.top_p = top_p
        self.eos = eos
        self.rule = rule
        self.adaptive = adaptive_length(self, adaptive)

    @property
    def target(self) -> Engine:
        """The model that verifies."""
        return self.engines[0]

    @property
    def draft(self) -> Engine:
        """The model that drafts."""
        return self.engines[1]

    @classmethod
    def from_settings(
        cls,
        settings: SpeculativeSettings,
        engines: Mapping[str, Engine],
        sampling: SamplingSettings,
        eos: int,
    ) -> Speculative:
        """Construct the decoder, see `DecoderSettings.build`."""
        return cls(
            engines["target"],
            engines["draft"],
            settings.n,
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
            The tokens and the distributions_nV that they were drawn from; None for greedy decoding
            or no tokens.
        """
        if self.adaptive:
            count = min(count, self.adaptive.choose())
        text = list(sequence)
        drafted: list[int] = []
        rows: list[torch.Tensor] = []
        while len(drafted) < count and self.eos not in drafted[-1:]:
            token, row_V = yield from next_token(
                self.draft, text, self.temperature, self.top_p, generator
            )
            text.append(token)
            drafted.append(token)
            if row_V is not None:
                rows.append(row_V)
        return drafted, torch.stack(rows) if rows else None


def speculate(
    decoder: DraftingDecoder,
    prompt_ids: list[int],
    max_new_tokens: int,
    generator: torch.Generator,
) -> Steps[Generation]:
    """Decode one prompt block by block: draft, verify, accept, roll the caches back.

    A block drafts at most what may still be written, less the token that the target adds: nothing
    is ever cut off.

    Args:
        decoder: Proposes the drafts, and holds models, sampling and rule.
        prompt_ids: At least one token id.
        max_new_tokens: At least 1.
        generator: All randomness of the text.
    """
    check_request(prompt_ids, max_new_tokens)
    for engine in decoder.engines:
        engine.begin(len(prompt_ids) + max_new_tokens)
    out = Generation(tests_per_position=[0] * decoder.n, accepts_per_position=[0] * decoder.n)
    sequence = list(prompt_ids)
    while len(out.tokens) < max_new_tokens and decoder.eos not in out.tokens[-1:]:
        room = max_new_tokens - len(out.tokens) - 1
        drafted, q_nV = yield from decoder.propose(sequence, min(decoder.n, room), generator)
        verdict = yield from verify(decoder, sequence, drafted, q_nV, generator)
        sequence += emit(out, drafted, verdict, decoder.eos)
        if decoder.adaptive:
            decoder.adaptive.learn(len(drafted), verdict.accepted)
        for engine in decoder.engines:
            engine.rollback(min(engine.length, len(sequence) - 1))
    return out


def verify(
    decoder: DraftingDecoder,
    sequence: list[int],
    drafted: list[int],
    q_nV: torch.Tensor | None,
    generator: torch.Generator,
) -> Steps[Verdict]:
    """Run the target once over a block of drafted tokens, and let the rule accept them.

    Args:
        decoder: Holds the target, its sampling and the rule.
        sequence: The agreed text, whose end may be missing from the target's cache.
        drafted: n drafted tokens; n may be 0.
        q_nV: The distributions that they were drawn from; None for greedy decoding.
        generator: Source of the rule's draws.
    """
    target = decoder.target
    block = torch.tensor(sequence[target.length :] + drafted, device=target.device)
    logits = yield Forward(target, block, tail=len(drafted) + 1)  # [n + 1, V]
    if decoder.temperature == 0:
        return verify_greedy(greedy(logits), drafted)
    p_rows = warp(logits, decoder.temperature, decoder.top_p)
    return verify_block(decoder.rule, p_rows, q_nV, drafted, generator)


def emit(out: Generation, drafted: list[int], verdict: Verdict, eos: int) -> list[int]:
    """Append a block's accepted tokens, and the correction or bonus token, to the generation.

    A drafted eos is the last of its block: once it is accepted, no token follows it.

    Returns:
        The new tokens.
    """
    new_tokens = drafted[: verdict.accepted]
    if eos not in new_tokens:
        new_tokens = [*new_tokens, verdict.token]
    out.tokens += new_tokens
    out.steps += 1
    out.accepted += verdict.accepted
    out.overlap = (out.overlap or 0.0) + verdict.overlap
    for position, passed in enumerate(verdict.passed):
        out.tests_per_position[position] += 1
        out.accepts_per_position[position] += passed
    return new_tokens


def _check_pair(target: Engine, draft: Engine) -> None:
    """Raise ValueError for two models that cannot work together."""
    if draft is target:
        raise ValueError(
            "the draft is the target: nothing is gained; name a smaller model as draft"
        )
    if draft.vocab != target.vocab:
        raise ValueError(
            f"the draft has a vocabulary of {draft.vocab:,}, the target of {target.vocab:,}; "
            "take a draft with the target's tokenizer and as many rows"
        )


# ---------------------------------------------------------------- costs, for an adaptive n


def adaptive_length(decoder: DraftingDecoder, adaptive: bool | BlockCosts) -> Adaptive | None:
    """Return what chooses the decoder's block length, or None for a fixed one.

    Args:
        decoder: The decoder, complete but for `adaptive`.
        adaptive: The costs to choose by; True: time them now; False: a fixed length.
    """
    decoder.adaptive = None  # costs are those of whole blocks
    if adaptive is False:
        return None
    return Adaptive(decoder.n, timed_costs(decoder) if adaptive is True else adaptive)


@torch.inference_mode()
def timed_costs(decoder: DraftingDecoder) -> BlockCosts:
    """Time drafting and verification on this machine, over blocks of a short text.

    The quickest block counts, because other work only ever slows one. Takes about
    COST_ROUNDS * COST_REPEATS * (n + 1) steps, once. A clock in the choice of n changes the speed,
    not the distribution of the text; pass BlockCosts where a run must be repeatable draw by draw.
    """
    device = decoder.target.device
    text = [0] * 8
    generator = torch.Generator()
    verify_seconds: list[list[float]] = [[] for _ in range(decoder.n + 1)]
    draft_seconds: list[float] = []
    for engine in decoder.engines:
        engine.begin(len(text) + decoder.n + 1)
    for width in [*range(decoder.n + 1)] * COST_ROUNDS:
        # the same block again finds its matrices in the processor's caches, as within a text
        for _ in range(COST_REPEATS):
            if width:
                seconds, (drafted, _) = timed(device, run, decoder.propose(text, width, generator))
                draft_seconds.append(seconds / max(1, len(drafted)))
            q_nV = _certain(decoder, width)
            verification = verify(decoder, text, text[:1] * width, q_nV, generator)
            seconds, _ = timed(device, run, verification)
            verify_seconds[width].append(seconds)
            for engine in decoder.engines:
                engine.rollback(min(engine.length, len(text) - 1))
    quickest = [min(of_width) for of_width in verify_seconds]
    step = quickest[0]
    return BlockCosts(min(draft_seconds) / step, [seconds / step for seconds in quickest])


def _certain(decoder: DraftingDecoder, width: int) -> torch.Tensor:
    """One-hot draft distributions_nV of a block of token 0."""
    tokens = torch.zeros(width, dtype=torch.long, device=decoder.target.device)
    return one_hot(tokens, decoder.target.vocab, torch.float32)
