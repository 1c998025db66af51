"""Several texts decoded together: one forward of a model reads for all that wait for it.

A text's decoding is a generator. It yields each forward that it needs, gets the logits back, and
returns its result; so it is written as if it were alone, and `run_together` is the loop of one text
and of many. A text has its own caches, random numbers, acceptance and end. Knows when forwards run,
not what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from soaes.decode.base import EngineDecoder, Generation
from soaes.decode.engine import Forward, Result, Steps

_size = attrgetter("num_weights")


class Request(NamedTuple):
    """A prompt to decode, see `Decoder.generate`."""

    prompt_ids: list[int]
    max_new_tokens: int
    generator: torch.Generator


def generate_all(
    decoder: EngineDecoder, requests: Sequence[Request], batch: int
) -> list[Generation]:
    """Decode prompts, up to `batch` of them together.

    The next prompt takes the place of a text that has ended, until none is left; then the batch
    shrinks. Each text has the distribution that it has alone, and greedy text its tokens but for
    near ties: products of other widths round differently.

    Args:
        decoder: Whose models and settings all texts share.
        requests: The prompts; each has a generator of its own.
        batch: At least 1.

    Returns:
        The generations, in the order of the requests.

    Raises:
        ValueError: The decoder cannot decode several texts at once.
    """
    rows = [decoder]
    while len(rows) < min(batch, len(requests)):
        rows.append(_beside(decoder))
    generations: dict[int, Generation] = {}
    waiting = iter(enumerate(requests))

    def decode_in_turn(row: EngineDecoder) -> Steps[None]:
        for index, request in waiting:
            generations[index] = yield from row.decode(*request)

    run_together([decode_in_turn(row) for row in rows])
    return [generations[index] for index in range(len(requests))]


def _beside(decoder: EngineDecoder) -> EngineDecoder:
    """The same decoder over the same weights, for a text of its own."""
    if getattr(decoder, "adaptive", None):
        raise ValueError(
            "adaptive=true: the costs by which n is chosen are those of one text; set "
            "adaptive=false, or batch=1"
        )
    other = copy(decoder)
    other.engines = tuple(engine.beside() for engine in decoder.engines)
    return other


def run(steps: Steps[Result]) -> Result:
    """Run one text's steps, or a part of them, to the end."""
    return run_together([steps])[0]


@torch.inference_mode()
def run_together(texts: Sequence[Steps[Result]]) -> list[Result]:
    """Run the steps of several texts to their ends.

    The smallest model that any text waits for runs first. So a draft goes on until all texts wait
    for the target, whose weights are then read once for all.

    Returns:
        What each text returned.
    """
    results: dict[int, Result] = {}
    pending: dict[int, Forward] = {}

    def advance(index: int, logits_TV: Any) -> None:
        try:
            pending[index] = texts[index].send(logits_TV)
        except StopIteration as end:
            pending.pop(index, None)
            results[index] = end.value

    for index in range(len(texts)):
        advance(index, None)
    while pending:
        smallest = min((forward.engine for forward in pending.values()), key=_size)
        together = [
            index for index, forward in pending.items() if smallest.shares_weights(forward.engine)
        ]
        logits = smallest.forward_together([pending[index] for index in together])
        for index, logits_TV in zip(together, logits, strict=True):
            advance(index, logits_TV)
    return [results[index] for index in range(len(texts))]
