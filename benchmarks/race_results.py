"""From the rounds of a race to results: ratios, and how much of each was to be had.

Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.machine_limit import lies_in, weight_bytes
from benchmarks.race import (
    ASSISTED,
    ASSISTED_DEFAULT,
    BLOCKS,
    GENERATE,
    LENGTHS,
    MODES,
    PAPER_N,
    PLAIN,
    Race,
    speculation_name,
)
from benchmarks.rounds import Field, row, spread
from soaes.decode.base import Generation
from soaes.metrics.acceptance import MeasuredCosts, accounted_speedup, predicted_speedup

SPEEDUP = {"greedy": 1.8, "top-p .7": 1.7}  # asked for at n = 3
BEST = 2.0  # and at the best n
ACCOUNTED = 0.9  # of what counts and costs predict
LOOKUP = 0.97  # of autoregression, on every kind of prompt

Result = dict[str, Any]  # made by rounds.row


def results(race: Race) -> list[Result]:
    """Compute every result of a race.

    Raises:
        ValueError: One of our greedy decoders wrote anything but the target's tokens.
    """
    for name in ("transformers", "greedy", "lookup greedy", "wide"):
        _check_equal_tokens(race.fields[name])
    all_results = list(_frameworks(race.fields["transformers"]))
    for mode in MODES:
        all_results += _drafts(race, mode)
        all_results += _lookups(race.fields[f"lookup {mode}"], mode)
    all_results += race.batches.results()
    return [*all_results, *_blocks(race), *_wide(race), *_steps(race)]


def _check_equal_tokens(field: Field) -> None:
    """Raise ValueError if a decoder of ours differs from our autoregression."""
    for name in field.contenders.keys() - {GENERATE, ASSISTED, ASSISTED_DEFAULT}:
        if differing := _differing(field, name):
            raise ValueError(
                f"{name} wrote other greedy tokens than autoregression on prompts {differing}: "
                "no ratio counts before that is found"
            )


def _differing(field: Field, name: str) -> list[int]:
    """Prompts on which a greedy contender's tokens are not our autoregression's, in any round."""
    differing = set()
    for outputs, references in zip(field.generations[name], field.generations[PLAIN], strict=True):
        for index, (output, reference) in enumerate(zip(outputs, references, strict=True)):
            if output.tokens != reference.tokens:
                differing.add(index)
    return sorted(differing)


def _frameworks(field: Field) -> Iterator[Result]:
    """Over the prompts on which all write the same tokens.

    Near ties may fall otherwise in another library's rounding.
    """
    lost = set()
    for name in (GENERATE, ASSISTED, ASSISTED_DEFAULT):
        lost.update(_differing(field, name))
    same = [index for index in range(len(field.prompts)) if index not in lost]
    if not same:
        raise ValueError(
            "transformers writes other greedy tokens than we do on every prompt: "
            "compare the two on one by hand"
        )
    share = 100 * len(same) / len(field.prompts)
    yield row(
        "prompts with the same greedy tokens from transformers and from us",
        "%",
        [share] * len(field.generations[PLAIN]),
        100.0,
        limit=100.0,
    )
    speculation = speculation_name(PAPER_N)
    comparisons = (
        (PLAIN, GENERATE, 1.5),
        (speculation, ASSISTED, 2.0),
        (speculation, ASSISTED_DEFAULT, None),
        (ASSISTED, GENERATE, None),
    )
    for ours, theirs, target in comparisons:
        yield row(f"{ours} / {theirs}", "ratio", field.ratios(ours, theirs, same), target)


def _drafts(race: Race, mode: str) -> Iterator[Result]:
    """Speculation over autoregression for each n, whose limit is the prediction.

    And how much of the prediction it reaches.
    """
    field = race.fields[mode]
    costs = race.costs[mode]
    speedups = {n: field.ratios(speculation_name(n), PLAIN) for n in LENGTHS}
    best = max(LENGTHS, key=lambda n: median(speedups[n]))
    predictions = {n: _predictions(field, n, costs) for n in LENGTHS}
    for n in LENGTHS:
        yield row(
            f"{speculation_name(n)} / autoregression, {mode}",
            "ratio",
            speedups[n],
            SPEEDUP[mode] if n == PAPER_N else None,
            limit=median(predictions[n]),
        )
    yield row(
        f"best n ({best}) / autoregression, {mode}",
        "ratio",
        speedups[best],
        BEST,
        limit=median(predictions[best]),
    )
    yield row(
        f"adaptive speculation / autoregression, {mode}",
        "ratio",
        field.ratios("adaptive speculation", PLAIN),
    )
    for n in LENGTHS:
        name = f"measured / predicted speedup, n={n}, {mode}"
        yield _quotient(name, speedups[n], predictions[n], ACCOUNTED)
    for n in sorted({PAPER_N, best}):
        formula = [
            _formula(generations, n, round_costs)
            for generations, round_costs in zip(
                field.generations[speculation_name(n)], costs, strict=True
            )
        ]
        name = f"measured / E(a, n) / (n c + v), n={n}, {mode}"
        yield _quotient(name, speedups[n], formula, None)


def _quotient(
    name: str, measured: list[float], predicted: list[float], target: float | None
) -> Result:
    quotients = [value / prediction for value, prediction in zip(measured, predicted, strict=True)]
    return row(name, "ratio", quotients, target, limit=1.0)


def _predictions(field: Field, n: int, costs: list[MeasuredCosts]) -> list[float]:
    """Of each round, what the counts of its prompts and the costs taken after it account for.

    The loop's own time is left out.
    """
    predictions = []
    outputs, references = field.generations[speculation_name(n)], field.generations[PLAIN]
    for generations, plain, round_costs in zip(outputs, references, costs, strict=True):
        counts = [
            {
                "new_tokens": len(generation.tokens),
                "steps": generation.steps,
                "drafted": generation.drafted,
                "tests_per_position": generation.tests_per_position,
                "autoregressive_new_tokens": len(reference.tokens),
            }
            for generation, reference in zip(generations, plain, strict=True)
        ]
        speedup = accounted_speedup(counts, round_costs)
        assert speedup is not None
        predictions.append(speedup)
    return predictions


def _formula(generations: list[Generation], n: int, costs: MeasuredCosts) -> float:
    """The textbook's speedup: independent tests, whole blocks, and prompts that take no time."""
    accepts = sum(sum(generation.accepts_per_position) for generation in generations)
    tests = sum(sum(generation.tests_per_position) for generation in generations)
    return predicted_speedup(accepts / tests, n, costs.draft_cost, costs.verify_costs[n])


def _lookups(field: Field, mode: str) -> Iterator[Result]:
    """By kind of prompt; the kind with the lowest lower bound last and again: the target's."""
    kinds = list(dict.fromkeys(prompt.kind for prompt in field.prompts))
    for name, target in (("lookup", None), ("adaptive lookup", LOOKUP)):
        ratios = {kind: field.ratios(name, PLAIN, field.of_kind(kind)) for kind in kinds}
        worst = min(kinds, key=lambda kind: spread(ratios[kind])[1])
        for kind in kinds:
            yield row(
                f"{name} / autoregression, {kind} prompts, {mode}",
                "ratio",
                ratios[kind],
                target,
                limit=_mean_acceptance_length_of_kind(field, name, kind),
            )
        name_of_worst = f"{name} / autoregression, worst kind ({worst}), {mode}"
        yield row(name_of_worst, "ratio", ratios[worst], target)


def _mean_acceptance_length_of_kind(field: Field, name: str, kind: str) -> float:
    """The speedup if drafts and verifications cost nothing."""
    indices = field.of_kind(kind)
    generations = [of_round[index] for of_round in field.generations[name] for index in indices]
    return _mean_acceptance_length(generations)


def _mean_acceptance_length(generations: list[Generation]) -> float:
    tokens = sum(len(generation.tokens) for generation in generations)
    return tokens / sum(generation.steps for generation in generations)


def _blocks(race: Race) -> Iterator[Result]:
    """Block over rejection in counts, without a clock.

    Expected: by both rules of the same drafts. Drawn: of texts drawn anew in every round and for
    either rule, so that its spread is mostly that of the draws.
    """
    field = race.fields["top-p .7"]
    for n in BLOCKS:
        yield row(
            f"tokens a block, block / rejection, n={n}, top-p .7, expected",
            "ratio",
            [expected[n] for expected in race.expected],
            1.0,
        )
        drawn = [
            _mean_acceptance_length(block) / _mean_acceptance_length(rejection)
            for block, rejection in zip(
                field.generations[f"block n={n}"],
                field.generations[speculation_name(n)],
                strict=True,
            )
        ]
        yield row(f"tokens a step, block / rejection, n={n}, top-p .7, drawn", "ratio", drawn)


def _wide(race: Race) -> Iterator[Result]:
    """The costs at a wider shape.

    Untrained models accept next to nothing, so the speedup shows what a failing draft costs.
    """
    field, costs = race.fields["wide"], race.costs["wide"]
    yield row(
        "wide pair: c, a drafted token",
        "steps of the target",
        [round_costs.draft_cost for round_costs in costs],
        better="lower",
    )
    yield row(
        f"wide pair: v, verifying {PAPER_N} drafted tokens",
        "steps of the target",
        [round_costs.verify_cost for round_costs in costs],
        better="lower",
        limit=1.0,
    )
    yield _quotient(
        f"wide pair: measured / predicted speedup, n={PAPER_N}, greedy",
        field.ratios(speculation_name(PAPER_N), PLAIN),
        _predictions(field, PAPER_N, costs),
        ACCOUNTED,
    )


def _steps(race: Race) -> Iterator[Result]:
    """A step of autoregression against reading its weights, and against its products alone."""
    for name, words in (("greedy", "target"), ("wide", "wide target")):
        size = weight_bytes(race.pairs[name].baseline.target)
        rates = [round_rates[name] for round_rates in race.rates]
        steps = [round_costs.target_step_ms for round_costs in race.costs[name]]
        ideal = [1000 * size / rate for rate in rates]
        yield row(
            f"{words}: a step of autoregression", "ms", steps, better="lower", limit=median(ideal)
        )
        yield row(
            f"{words}: share of the machine's limit, reading its weights from {source(race, name)}",
            "ratio",
            [best / step for best, step in zip(ideal, steps, strict=True)],
            limit=1.0,
        )
        yield row(
            f"{words}: its matrix products alone / the step",
            "ratio",
            [round_costs.baseline_share for round_costs in race.costs[name]],
            limit=1.0,
        )
        yield row(
            f"{words}: read rate over its {size / 1e6:.1f} MB",
            "GB/s",
            [rate / 1e9 for rate in rates],
        )
    memory = [round_rates["memory"] / 1e9 for round_rates in race.rates]
    yield row("read rate of memory", "GB/s", memory)


def source(race: Race, name: str) -> str:
    """Say where a target's weights are read from, by the medians of the rates."""
    near = median(rates[name] for rates in race.rates)
    far = median(rates["memory"] for rates in race.rates)
    return lies_in(near, far)
