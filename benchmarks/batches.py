"""Texts decoded together: tokens a second of batches, autoregressive and speculative.

Knows our own decoders and the clock: not models.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any, NamedTuple

import torch

from benchmarks.prompts import BenchmarkPrompt
from benchmarks.rounds import row
from soaes.decode.base import EngineDecoder
from soaes.decode.batch import Request, generate_all

BATCHES = (1, 2, 4, 8)  # texts that are decoded together


class Round(NamedTuple):
    """All prompts, decoded once."""

    tokens_per_s: float
    texts: list[list[int]]  # new tokens, by prompt


class Batches:
    """Decoders that decode all prompts in batches of each size.

    `rounds[name, batch]` has the counted rounds.

    Args:
        decoders: By name; greedy ones.
        prompts: What all of them decode, the next one where a text has ended.
    """

    def __init__(
        self, decoders: Mapping[str, EngineDecoder], prompts: list[BenchmarkPrompt]
    ) -> None:
        self.decoders = decoders
        self.prompts = prompts
        self.rounds: dict[tuple[str, int], list[Round]] = {
            (name, batch): [] for name in decoders for batch in BATCHES
        }

    def run(self, number: int, counted: bool) -> None:
        """Decode all prompts by each decoder in each batch, in another order every round.

        Args:
            number: The round's number.
            counted: Whether its results are kept.
        """
        contenders = list(self.rounds)
        for name, batch in random.Random(number).sample(contenders, len(contenders)):
            requests = [
                Request(prompt.ids, prompt.max_new_tokens, torch.Generator())
                for prompt in self.prompts
            ]
            start = time.perf_counter()
            generations = generate_all(self.decoders[name], requests, batch)
            seconds = time.perf_counter() - start
            texts = [generation.tokens for generation in generations]
            if counted:
                self.rounds[name, batch].append(Round(sum(map(len, texts)) / seconds, texts))

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield each batch's tokens a second, its gain over one text, and how many texts are equal.

        Products of other widths round differently, and may settle a near tie in another way.
        """
        for (name, batch), rounds in self.rounds.items():
            alone = self.rounds[name, 1]
            rates = [round_.tokens_per_s for round_ in rounds]
            yield row(f"{name}, batch {batch}", "tokens/s", rates)
            if batch == 1:
                continue
            pairs = list(zip(rounds, alone, strict=True))
            gains = [together.tokens_per_s / one.tokens_per_s for together, one in pairs]
            yield row(f"{name}, batch {batch} / batch 1", "ratio", gains, limit=batch)
            equal = [100 * _share_of_equal(together, one) for together, one in pairs]
            name_of_share = f"prompts with the same greedy tokens, {name}, batch {batch}"
            yield row(name_of_share, "%", equal, limit=100.0)


def _share_of_equal(together: Round, alone: Round) -> float:
    return mean(text == other for text, other in zip(together.texts, alone.texts, strict=True))
