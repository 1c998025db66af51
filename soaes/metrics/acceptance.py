"""Acceptance and speed of speculative decoding, from counts. Knows numbers, not tokens or models.

"Acceptance rate" has two readings. The paper's 75.78 % fits the rate per position, which counts
the accept tests at all n positions, those after a rejection included (a choice recorded as decision
13). Accepted over drafted tokens is lower: 58.9 % under independence at n = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

Prediction = Mapping[str, Any]  # a line of predictions.jsonl, see metrics.schema
Metrics = dict[str, Any]

# ---------------------------------------------------------------- acceptance, from counts


@dataclass(frozen=True)
class Ratio:
    """A metric that divides one sum over prompts by another."""

    numerator: str  # keys of `prompt_counts`
    denominator: str
    factor: int = 1  # 100 for per cent

    def value(self, sums: Mapping[str, float | None]) -> float | None:
        """Return the ratio of two sums; None where one is not reported or nothing was counted."""
        part, whole = sums[self.numerator], sums[self.denominator]
        if part is None or not whole:
            return None
        return self.factor * part / whole


# The one definition of these metrics; metrics.samples resamples the same sums.
RATIOS = {
    # per cent of all accept tests that passed: the paper's reading
    "acceptance_rate_per_position": Ratio("accepts", "tests", 100),
    # per cent of the drafted tokens that were emitted: that of vLLM and most papers
    "draft_acceptance_rate": Ratio("accepted", "drafted", 100),
    # mean of sum min(p, q) over drafted positions in per cent: the expected rate per position,
    # with less noise
    "overlap": Ratio("overlap", "drafted", 100),
    # new tokens per forward of the target; 1 for autoregression
    "mean_acceptance_length": Ratio("new_tokens", "steps"),
    "new_tokens_mean": Ratio("new_tokens", "prompts"),
}


def prompt_counts(prediction: Prediction) -> dict[str, float | None]:
    """Return the counts of one prompt that `RATIOS` sums; None where a backend reports none."""
    return {
        "accepts": sum(prediction["accepts_per_position"]),
        "tests": sum(prediction["tests_per_position"]),
        "accepted": prediction["accepted"],
        "drafted": prediction["drafted"],
        "overlap": prediction["overlap"],
        "new_tokens": prediction["new_tokens"],
        "steps": prediction["steps"],
        "prompts": 1,
    }


def acceptance_metrics(predictions: Sequence[Prediction]) -> Metrics:
    """Compute the acceptance metrics of some prompts.

    Args:
        predictions: Lines of `acceptance` or `speed`.

    Returns:
        The metrics of `RATIOS`, None where a backend does not report the counts; tests and passed
        tests by position; answers that were cut at the limit of new tokens.
    """
    counts = [prompt_counts(prediction) for prediction in predictions]
    sums = {name: _sum([row[name] for row in counts]) for name in counts[0]}
    metrics: Metrics = {name: ratio.value(sums) for name, ratio in RATIOS.items()}
    for name in ("tests_per_position", "accepts_per_position"):
        columns = zip(*(prediction[name] for prediction in predictions), strict=True)
        metrics[name] = [sum(column) for column in columns]
    metrics["num_cut"] = sum(prediction["is_cut"] for prediction in predictions)
    return metrics


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def by_task(
    measure: Callable[[Sequence[Prediction]], Metrics], predictions: Sequence[Prediction]
) -> Metrics:
    """Compute metrics of all predictions, and of each task under prefixed names: report_speedup.

    Args:
        measure: Predictions -> metrics.
        predictions: Lines with a `task`.
    """
    metrics = measure(predictions)
    for task in sorted({prediction["task"] for prediction in predictions}):
        of_task = [prediction for prediction in predictions if prediction["task"] == task]
        task_metrics = measure(of_task)
        metrics |= {f"{task}_{name}": value for name, value in task_metrics.items()}
    return metrics


# ---------------------------------------------------------------- speed, from counts and costs


@dataclass(frozen=True)
class MeasuredCosts:
    """What the parts of decoding cost, in steps of autoregression."""

    draft_cost: float  # c: one drafted token
    verify_cost: float  # v: one verification of n drafted tokens
    verify_costs: list[float]  # verification of 0, 1 .. n drafted tokens; that of none is 1
    prompt_cost: float  # the target reads a prompt
    draft_prompt_cost: float  # the draft reads a prompt
    baseline_share: float  # share of a step that its matrix products take alone, 0..1
    target_step_ms: float  # one step of autoregression, in milliseconds


def cost_metrics(costs: MeasuredCosts | None) -> Metrics:
    """Return the costs as entries of metrics.json, all None where there are none."""
    if costs is None:
        return dict.fromkeys(field.name for field in fields(MeasuredCosts))
    return asdict(costs)


def expected_tokens(rate: float, n: int) -> float:
    """E(a, n) = (1 - a^(n+1)) / (1 - a): tokens a step if each of n tokens is accepted with a.

    Written as 1 + a + ... + a^n, the same number, which also holds at a = 1.

    Args:
        rate: a, in [0, 1]; tokens are accepted independently.
        n: Drafted tokens in a block.
    """
    return sum(rate**position for position in range(n + 1))


def predicted_speedup(rate: float, n: int, draft_cost: float, verify_cost: float) -> float:
    """Compute E(a, n) / (n c + v), the textbook's speedup over autoregression.

    Assumes n drafted tokens in every step: an upper bound for prompt lookup, which drafts only
    where it finds a match.

    Args:
        rate: a, in [0, 1].
        n: Drafted tokens in a block.
        draft_cost: c, one drafted token in steps of the target.
        verify_cost: v, one verification in steps of the target.
    """
    return expected_tokens(rate, n) / (n * draft_cost + verify_cost)


def accounted_speedup(
    predictions: Sequence[Prediction], costs: MeasuredCosts | None
) -> float | None:
    """Compute the speedup that counts and costs account for, if the loop itself took no time.

    Autoregression reads the prompt, which brings the first token, and takes a step for each of the
    others. A draft reads the prompt, which brings its first token, and takes c for each of the
    others; the target reads prompt and first block at once, and then takes v(k) for each block of
    k drafted tokens. Blocks that drafted less than n, at the end of a text or where a lookup found
    nothing, are counted as such.

    Args:
        predictions: Lines of `speed`, of which the counts are read.
        costs: What the parts cost; None gives None.
    """
    if costs is None:
        return None
    plain_steps = sum(
        costs.prompt_cost + prediction["autoregressive_new_tokens"] - 1
        for prediction in predictions
    )
    steps = sum(_steps_taken(prediction, costs) for prediction in predictions)
    tokens = sum(prediction["new_tokens"] for prediction in predictions)
    plain_tokens = sum(prediction["autoregressive_new_tokens"] for prediction in predictions)
    return tokens / steps / (plain_tokens / plain_steps)


def _steps_taken(prediction: Prediction, costs: MeasuredCosts) -> float:
    """Steps of autoregression that a prompt and its blocks take."""
    tests = prediction["tests_per_position"]  # blocks that drafted at least 1, 2 .. n tokens
    reached = [prediction["steps"], *tests, 0]
    blocks = [more - fewer for more, fewer in zip(reached, reached[1:])]  # of 0, 1 .. n tokens
    verified = sum(count * cost for count, cost in zip(blocks, costs.verify_costs))
    # the prompt is read with the first block, one of the longest that there are
    first = max((width for width, count in enumerate(blocks) if count), default=0)
    verified = verified - costs.verify_costs[first]
    drafted = max(0, prediction["drafted"] - 1) * costs.draft_cost + costs.draft_prompt_cost
    return costs.prompt_cost + verified + drafted
