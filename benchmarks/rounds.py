"""Contenders take turns over the same prompts, round by round.

A ratio is taken within a round, and a result is its median over the rounds. Knows decoders by
their interface, the clock and numbers: not models, not files' contents.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.prompts import BenchmarkPrompt
from soaes.decode.base import Decoder, Generation

# of a median's interval; the least and the greatest of five rounds enclose it with 0.9375, the 2nd
# and 7th of eight with 0.930
CONFIDENCE = 0.92


Timings = list[tuple[float, int]]  # of a round: (seconds, new tokens) by prompt


class Field:
    """Decoders in one race.

    `timings[name][round][prompt]` is (seconds, new tokens), `generations[name][round][prompt]` the
    output.

    Args:
        contenders: The decoders by name.
        prompts: What all of them decode.
        seed: Of the texts and of the order of turns.
    """

    def __init__(
        self, contenders: dict[str, Decoder], prompts: list[BenchmarkPrompt], seed: int = 0
    ) -> None:
        self.contenders = contenders
        self.prompts = prompts
        self.seed = seed
        self.timings: dict[str, list[Timings]] = {name: [] for name in contenders}
        self.generations: dict[str, list[list[Generation]]] = {name: [] for name in contenders}

    def run(self, number: int, counted: bool) -> None:
        """Run one round.

        At every prompt the contenders go in another order, so that each runs after each. A round
        has texts of its own.

        Args:
            number: The round's number.
            counted: Whether its results are kept.
        """
        if counted:
            for name in self.contenders:
                self.timings[name].append([])
                self.generations[name].append([])
        names = list(self.contenders)
        for index, prompt in enumerate(self.prompts):
            seed = self.seed + number * len(self.prompts) + index
            for name in random.Random(seed).sample(names, len(names)):
                seconds, generation = _timed(self.contenders[name], prompt, seed)
                if counted:
                    self.timings[name][-1].append((seconds, len(generation.tokens)))
                    self.generations[name][-1].append(generation)

    def of_kind(self, kind: str) -> list[int]:
        """Return the indices of the prompts of a kind."""
        return [index for index, prompt in enumerate(self.prompts) if prompt.kind == kind]

    def ratios(self, contender: str, other: str, prompts: list[int] | None = None) -> list[float]:
        """Return one contender's tokens a second over another's, a number a round.

        Args:
            contender: Name of the numerator.
            other: Name of the denominator.
            prompts: Indices of prompts to count; None: all.
        """
        return [
            per_second(ours, prompts) / per_second(theirs, prompts)
            for ours, theirs in zip(self.timings[contender], self.timings[other], strict=True)
        ]


def _timed(decoder: Decoder, prompt: BenchmarkPrompt, seed: int) -> tuple[float, Generation]:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    generation = decoder.generate(prompt.ids, prompt.max_new_tokens, generator)
    return time.perf_counter() - start, generation


def per_second(timings: Timings, prompts: list[int] | None = None) -> float:
    """Return the new tokens a second of one round, over some prompts or all."""
    chosen = timings if prompts is None else [timings[index] for index in prompts]
    return sum(tokens for _, tokens in chosen) / sum(seconds for seconds, _ in chosen)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return a median and its interval.

    By order statistics: the true median lies outside the k-th least and k-th greatest of N with
    2 P(Binomial(N, 1/2) < k). Fewer than five rounds cannot reach CONFIDENCE and give the least and
    the greatest.

    Returns:
        (median, low, high): low and high are the innermost two rounds that enclose the true median
        with CONFIDENCE.
    """
    ordered, count = sorted(values), len(values)
    innermost = 1
    for k in range(1, (count + 1) // 2 + 1):
        outside = 2 * sum(math.comb(count, i) for i in range(k)) / 2**count
        if 1 - outside >= CONFIDENCE:
            innermost = k
    return statistics.median(ordered), ordered[innermost - 1], ordered[-innermost]


def row(
    name: str,
    unit: str,
    values: list[float],
    target: float | None = None,
    better: str = "higher",
    limit: float | None = None,
) -> dict[str, Any]:
    """Make a result.

    Args:
        name: What was measured.
        unit: Its unit.
        values: One a round.
        target: What is asked for; None: nothing.
        better: higher or lower.
        limit: What could be had at best here, in the same unit; None: unknown.
    """
    median, low, high = spread(values)
    return {
        "name": name,
        "unit": unit,
        "median": median,
        "low": low,
        "high": high,
        "rounds": len(values),
        "target": target,
        "better": better,
        "limit": limit,
    }


def met(result: dict[str, Any]) -> str:
    """Say how a target is met: `yes` by the whole interval, `median` by the median alone, `NO`."""
    if result["target"] is None:
        return ""
    worst, sign = ("low", 1) if result["better"] == "higher" else ("high", -1)
    if sign * result[worst] >= sign * result["target"]:
        return "yes"
    return "median" if sign * result["median"] >= sign * result["target"] else "NO"


def markdown(results: list[dict[str, Any]]) -> str:
    """Format results as one table."""
    lines = [
        "| what | median | low .. high | unit | target | met | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [
            result["name"],
            f"{result['median']:.4g}",
            f"{result['low']:.4g} .. {result['high']:.4g}",
            result["unit"],
            "" if result["target"] is None else f"{result['target']:.4g}",
            met(result),
            "" if result["limit"] is None else f"{result['limit']:.4g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(path: Path, results: list[dict[str, Any]], **facts: Any) -> None:
    """Write results with what they were measured on beside them.

    Args:
        path: The JSON file.
        results: Made by `row`.
        **facts: Commit, machine, versions, models ...
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**facts, "results": results}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


Options = dict[str, str]  # by key, as given on the command line


def options(words: list[str], defaults: Options, least: dict[str, int]) -> Options:
    """Read a benchmark's command line.

    Args:
        words: key=value each.
        defaults: Every key that is known, with its default.
        least: The least value of keys that are whole numbers.

    Raises:
        ValueError: A key is unknown, or a number below its least.
    """
    given = dict(word.partition("=")[::2] for word in words)
    for key, value in given.items():
        if key not in defaults or not value:
            known = ", ".join(f"{name}=..." for name in defaults)
            raise ValueError(f"{key}={value}: give {known}")
        if key in least and not (value.isdecimal() and int(value) >= least[key]):
            raise ValueError(f"{key}={value}: a whole number from {least[key]} on")
    return defaults | given
