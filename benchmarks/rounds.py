"""Contenders take turns over the same prompts, round by round; a ratio is taken within a round, and a result is its median over them.

Knows callables, the clock and numbers: not models, not files' contents."""

import json
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch

CONFIDENCE = 0.92  # of a median's interval; the least and the greatest of five rounds enclose it with 0.9375, the 2nd and 7th of eight with 0.930


class Field:
    """Decoders in one race. contenders: by name, each with generate(ids, most, generator); questions: dicts with ids, most and kind.

    taken[name][round][question] is (seconds, new tokens), made[name][round][question] the Generation."""

    def __init__(self, contenders: dict[str, Any], questions: list[dict], seed: int = 0):
        self.contenders, self.questions, self.seed = contenders, questions, seed
        self.taken: dict[str, list] = {name: [] for name in contenders}
        self.made: dict[str, list] = {name: [] for name in contenders}

    def run(self, number: int, counted: bool) -> None:
        """One round: at every question the contenders go in another order, so that each runs after each. A round has texts of its own."""
        for rows in (self.taken, self.made) if counted else ():
            for of_rounds in rows.values():
                of_rounds.append([])
        for index, question in enumerate(self.questions):
            seed = self.seed + number * len(self.questions) + index
            for name in random.Random(seed).sample(list(self.contenders), len(self.contenders)):
                seconds, made = _timed(self.contenders[name], question, seed)
                if counted:
                    self.taken[name][-1].append((seconds, len(made.tokens)))
                    self.made[name][-1].append(made)

    def of(self, kind: str) -> list[int]:
        """The questions of a kind."""
        return [index for index, question in enumerate(self.questions) if question["kind"] == kind]

    def ratios(self, one: str, other: str, of: list[int] | None = None) -> list[float]:
        """Tokens a second of one contender over another's, a number a round; over some questions, or all."""
        return [
            per_second(ours, of) / per_second(theirs, of)
            for ours, theirs in zip(self.taken[one], self.taken[other], strict=True)
        ]


def _timed(decoder, question: dict, seed: int):
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    made = decoder.generate(question["ids"], question["most"], generator)
    return time.perf_counter() - start, made


def per_second(taken: list[tuple[float, int]], of: list[int] | None = None) -> float:
    """New tokens a second of one round."""
    chosen = taken if of is None else [taken[index] for index in of]
    return sum(tokens for _, tokens in chosen) / sum(seconds for seconds, _ in chosen)


def spread(values: list[float]) -> tuple[float, float, float]:
    """(median, low, high): low and high are the innermost two rounds that enclose the true median with CONFIDENCE.

    By order statistics: it lies outside the k-th least and k-th greatest of N with 2 P(Binomial(N, 1/2) < k). Fewer than five rounds
    cannot reach it and give the least and the greatest."""
    ordered, count = sorted(values), len(values)
    outside = [
        2 * sum(math.comb(count, i) for i in range(k)) / 2**count
        for k in range(1, (count + 1) // 2 + 1)
    ]
    k = max((k for k, chance in enumerate(outside, 1) if 1 - chance >= CONFIDENCE), default=1)
    return statistics.median(ordered), ordered[k - 1], ordered[-k]


def row(
    name: str,
    unit: str,
    values: list[float],
    target: float | None = None,
    better: str = "higher",
    limit: float | None = None,
) -> dict:
    """A result. target: what is asked for; limit: what could be had at best here, in the same unit; None: neither is."""
    median, low, high = spread(values)
    return {"name": name, "unit": unit, "median": median, "low": low, "high": high, "rounds": len(values), "target": target,
            "better": better, "limit": limit}  # fmt: skip


def met(result: dict) -> str:
    """yes: the whole interval reaches the target; median: the median alone does."""
    if result["target"] is None:
        return ""
    worst, sign = ("low", 1) if result["better"] == "higher" else ("high", -1)
    reached = {key: sign * result[key] >= sign * result["target"] for key in (worst, "median")}
    return "yes" if reached[worst] else "median" if reached["median"] else "NO"


def markdown(results: list[dict]) -> str:
    """The results as one table."""
    lines = [
        "| what | median | low .. high | unit | target | met | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        target, limit = (
            "" if result[key] is None else f"{result[key]:.4g}" for key in ("target", "limit")
        )
        between = f"{result['low']:.4g} .. {result['high']:.4g}"
        lines.append(
            f"| {result['name']} | {result['median']:.4g} | {between} | {result['unit']} | {target} | {met(result)} | {limit} |"
        )
    return "\n".join(lines)


def write(path: Path, results: list[dict], **facts: Any) -> None:
    """results, with what they were measured on and of beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({**facts, "results": results}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )


def options(words: list[str], defaults: dict[str, str], least: dict[str, int]) -> dict[str, str]:
    """A benchmark's command line, with its defaults. ValueError for a word that it does not know or a number below its least."""
    given = dict(word.partition("=")[::2] for word in words)
    for key, value in given.items():
        if key not in defaults or not value:
            raise ValueError(f"{key}={value}: give {', '.join(f'{name}=...' for name in defaults)}")
        if key in least and not (value.isdecimal() and int(value) >= least[key]):
            raise ValueError(f"{key}={value}: a whole number from {least[key]} on")
    return defaults | given
