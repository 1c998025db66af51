"""One token a step from the target alone: the baseline of every other decoder.

Its text has the distribution that every exact decoder must keep.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from soaes.decode.base import Generation, check_request
from soaes.decode.batch import run
from soaes.decode.engine import Engine, Forward, Steps
from soaes.decode.sampling import greedy, sample, warp
from soaes.decode.settings import AutoregressiveSettings, SamplingSettings

# V vocabulary


class Autoregressive:
    """Decodes with the target alone.

    Args:
        target: The model.
        temperature: At least 0; 0 is greedy.
        top_p: In (0, 1].
        eos: Id of the token that ends a text and is part of it.

    Raises:
        ValueError: `temperature` or `top_p` is out of its range.
    """

    n = 0

    def __init__(self, target: Engine, temperature: float, top_p: float, eos: int) -> None:
        SamplingSettings(temperature, top_p)  # checks the two
        self.engines: tuple[Engine, ...] = (target,)
        self.temperature = temperature
        self.top_p = top_p
        self.eos = eos

    @classmethod
    def from_settings(
        cls,
        settings: AutoregressiveSettings,
        engines: Mapping[str, Engine],
        sampling: SamplingSettings,
        eos: int,
    ) -> Autoregressive:
        """Construct the decoder, see `DecoderSettings.build`."""
        return cls(engines["target"], sampling.temperature, sampling.top_p, eos)

    @property
    def target(self) -> Engine:
        """The model."""
        return self.engines[0]

    def generate(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Generation:
        """Decode until eos or `max_new_tokens`."""
        return run(self.decode(prompt_ids, max_new_tokens, generator))

    def decode(
        self, prompt_ids: list[int], max_new_tokens: int, generator: torch.Generator
    ) -> Steps[Generation]:
        """Decode step by step; prompt and first token are one forward."""
        check_request(prompt_ids, max_new_tokens)
        self.target.begin(len(prompt_ids) + max_new_tokens)
        out = Generation()
        sequence = list(prompt_ids)
        while len(out.tokens) < max_new_tokens and self.eos not in out.tokens[-1:]:
            token = yield from self.step(sequence, generator)
            sequence.append(token)
            out.tokens.append(token)
            out.steps += 1
        return out

    def step(self, sequence: list[int], generator: torch.Generator) -> Steps[int]:
        """Return the token that follows a sequence, whose end may be missing from the cache."""
        token, _ = yield from next_token(
            self.target, sequence, self.temperature, self.top_p, generator
        )
        return token


def next_token(
    engine: Engine,
    sequence: list[int],
    temperature: float,
    top_p: float,
    generator: torch.Generator,
) -> Steps[tuple[int, torch.Tensor | None]]:
    """Read what the cache misses of a sequence, and choose the token that follows it.

    Returns:
        The token, and the distribution_V that it was drawn from; None for greedy decoding, which
        needs none.
    """
    unread = torch.tensor(sequence[engine.length :], device=engine.device)
    logits_1V = yield Forward(engine, unread, tail=1)
    if temperature == 0:
        return greedy(logits_1V)[0], None
    probabilities_V = warp(logits_1V[0], temperature, top_p)
    return sample(probabilities_V, generator), probabilities_V
