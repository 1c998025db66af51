"""What a block costs, in steps of the target, timed outside the decoding loop.

Knows the parts of our own decoders and the clock. Another library's parts cannot be timed: its
rows have no costs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch

from soaes.decode.backends.base import DecoderPair
from soaes.decode.backends.native import NativePair
from soaes.decode.base import Generation
from soaes.decode.batch import run
from soaes.decode.clock import timed
from soaes.decode.sampling import one_hot
from soaes.decode.speculative import DraftingDecoder, verify
from soaes.metrics.acceptance import MeasuredCosts

# n drafted tokens of a block, K inputs of a matrix, V vocabulary

TURNS = 20  # how often the rounds take turns
REPEATS = 10  # of a round in a row, so that the processor's caches are as its own loop leaves them

Round = dict[str, Callable[[], Any]]  # actions that follow each other, by name


def measure_costs(
    pair: DecoderPair,
    prompt_ids: list[list[int]],
    generations: list[Generation],
    seed: int,
    turns: int = TURNS,
) -> MeasuredCosts | None:
    """Time the parts of decoding on the prompt of median length and half its answer.

    Args:
        pair: The decoder and its baseline. Its method no longer adapts n afterwards.
        prompt_ids: Token ids of the prompts that were measured.
        generations: What the baseline wrote to each of them.
        seed: Of the draws in the timed blocks.
        turns: How often the rounds take turns.

    Returns:
        Costs in steps of autoregression; None where the backend's parts cannot be timed.
    """
    if not isinstance(pair, NativePair):
        return None
    lengths = [
        len(ids) + len(generation.tokens) for ids, generation in zip(prompt_ids, generations)
    ]
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    middle = order[len(order) // 2]
    prompt = prompt_ids[middle]
    tokens = generations[middle].tokens
    half_answered = prompt + tokens[: (len(tokens) + 1) // 2]
    sequence = half_answered[: pair.baseline.target.positions - pair.n]

    rounds = _block_rounds(pair, sequence, torch.Generator().manual_seed(seed))
    of_text = _medians(pair, rounds, turns, len(sequence) - 1, len(sequence) + pair.n + 1)
    prompt_rounds = _prompt_rounds(pair, prompt)
    of_prompt = _medians(pair, prompt_rounds, turns, 0, len(prompt) + pair.n + 1)
    step = of_text["step"]
    verify_costs = [of_text[f"verify {width}"] / step for width in range(1, pair.n + 1)]
    return MeasuredCosts(
        draft_cost=of_text.get("propose", 0.0) / step,
        verify_cost=verify_costs[-1] if verify_costs else 1.0,
        verify_costs=[1.0, *verify_costs],
        prompt_cost=of_prompt["target"] / step,
        draft_prompt_cost=of_prompt.get("draft", 0.0) / step,
        baseline_share=of_text["products"] / step,
        target_step_ms=1000 * step,
    )


def _block_rounds(pair: NativePair, sequence: list[int], generator: torch.Generator) -> list[Round]:
    """A step of autoregression, its matrix products alone, and blocks of every width.

    A draft's step comes after the target has filled the caches with its own weights, and costs
    more there than after another draft's step.
    """
    baseline = pair.baseline
    target = baseline.target
    inputs = [
        (matrix, torch.zeros(1, len(matrix.plain), dtype=target.dtype, device=target.device))
        for matrix in target.matrices
    ]
    rounds: list[Round] = [
        {"step": lambda: run(baseline.step(sequence, generator))},
        {"products": lambda: [matrix(x_1K) for matrix, x_1K in inputs]},
    ]
    if pair.n:
        method = cast(DraftingDecoder, pair.method)
        method.adaptive = None  # costs are those of whole blocks
        widths = range(1, pair.n + 1)
        rounds += [_block_round(method, sequence, width, generator) for width in widths]
    return rounds


def _block_round(
    method: DraftingDecoder, sequence: list[int], width: int, generator: torch.Generator
) -> Round:
    """Draft a whole block, and verify one of `width` tokens."""
    target = method.target
    drafted = (sequence * width)[-width:]  # the clock sees how many tokens there are, not which
    q_nV = one_hot(torch.tensor(drafted, device=target.device), target.vocab, torch.float32)
    return {
        "propose": lambda: run(method.propose(sequence, method.n, generator))[0],
        f"verify {width}": lambda: run(verify(method, sequence, drafted, q_nV, generator)),
    }


def _prompt_rounds(pair: NativePair, prompt: list[int]) -> list[Round]:
    """One forward of each model over the prompt."""
    ids = torch.tensor(prompt, device=pair.baseline.target.device)
    names = zip(("target", "draft"), pair.method.engines)
    return [{name: partial(engine.forward, ids, tail=1) for name, engine in names}]


def _medians(
    pair: NativePair, rounds: list[Round], turns: int, known: int, needed: int
) -> dict[str, float]:
    """Median seconds of each action, the rounds taken in turns; `propose` a drafted token.

    known: tokens in the models' caches before each action. needed: tokens to make room for.
    """
    engines = pair.method.engines
    device = pair.baseline.target.device
    for engine in engines:
        engine.begin(needed)
    seconds: dict[str, list[float]] = {name: [] for round_ in rounds for name in round_}
    in_turn = [round_ for round_ in rounds * turns for _ in range(REPEATS)]
    with torch.inference_mode():
        for round_ in in_turn:
            for name, action in round_.items():
                elapsed, result = timed(device, action)
                parts = max(1, len(result)) if name == "propose" else 1
                seconds[name].append(elapsed / parts)
                for engine in engines:
                    engine.rollback(min(engine.length, known))
    return {name: statistics.median(values) for name, values in seconds.items()}
