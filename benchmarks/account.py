"""From the rounds of a race to results: ratios, and how much of each was to be had. Knows numbers only."""

from collections.abc import Iterator
from statistics import median

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
    named,
)
from benchmarks.rounds import Field, row, spread
from soaes.metrics import acceptance as rates

SPEEDUP = {"greedy": 1.8, "top-p .7": 1.7}  # asked for at n = 3
BEST = 2.0  # and at the best n
ACCOUNTED = 0.9  # of what counts and costs predict
LOOKUP = 0.97  # of autoregression, on every kind of prompt


def results(race: Race) -> list[dict]:
    """Every result of a race. ValueError where one of our greedy decoders wrote anything but the target's tokens."""
    for name in ("transformers", "greedy", "lookup greedy", "wide"):
        _prove(race.fields[name])
    modes = [
        line
        for mode in MODES
        for line in (*_drafts(race, mode), *_lookups(race.fields[f"lookup {mode}"], mode))
    ]
    return [
        *_frameworks(race.fields["transformers"]),
        *modes,
        *_blocks(race),
        *_wide(race),
        *_steps(race),
    ]


def _prove(field: Field) -> None:
    for name in field.contenders.keys() - {GENERATE, ASSISTED, ASSISTED_DEFAULT}:
        if wrong := _differing(field, name):
            raise ValueError(
                f"{name} wrote other greedy tokens than autoregression on prompts {wrong}: no ratio counts before that is found"
            )


def _differing(field: Field, name: str) -> list[int]:
    """Prompts on which a greedy contender's tokens are not our autoregression's, in any round."""
    pairs = [
        list(zip(*of_rounds, strict=True))
        for of_rounds in zip(field.made[name], field.made[PLAIN], strict=True)
    ]
    return [
        index
        for index in range(len(field.questions))
        if any(pair[index][0].tokens != pair[index][1].tokens for pair in pairs)
    ]


def _frameworks(field: Field) -> Iterator[dict]:
    """Over the prompts on which all write the same tokens: near ties may fall otherwise in another library's rounding."""
    lost = {
        index
        for name in (GENERATE, ASSISTED, ASSISTED_DEFAULT)
        for index in _differing(field, name)
    }
    same = [index for index in range(len(field.questions)) if index not in lost]
    if not same:
        raise ValueError(
            "transformers writes other greedy tokens than we do on every prompt: compare the two on one by hand"
        )
    share = 100 * len(same) / len(field.questions)
    yield row(
        "prompts with the same greedy tokens from transformers and from us",
        "%",
        [share] * len(field.made[PLAIN]),
        100.0,
        limit=100.0,
    )
    for ours, theirs, target in ((PLAIN, GENERATE, 1.5), (named(PAPER_N), ASSISTED, 2.0), (named(PAPER_N), ASSISTED_DEFAULT, None),
                                 (ASSISTED, GENERATE, None)):  # fmt: skip
        yield row(f"{ours} / {theirs}", "ratio", field.ratios(ours, theirs, same), target)


def _drafts(race: Race, mode: str) -> Iterator[dict]:
    """Speculation over autoregression for each n, whose limit is the prediction; and how much of the prediction it reaches."""
    field = race.fields[mode]
    speedups = {n: field.ratios(named(n), PLAIN) for n in LENGTHS}
    best = max(LENGTHS, key=lambda n: median(speedups[n]))
    predictions = {
        n: [_predicted(field, n, *at) for at in enumerate(race.costs[mode])] for n in LENGTHS
    }
    for n in LENGTHS:
        target = SPEEDUP[mode] if n == PAPER_N else None
        yield row(
            f"{named(n)} / autoregression, {mode}",
            "ratio",
            speedups[n],
            target,
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
        yield _quotient(
            f"measured / predicted speedup, n={n}, {mode}", speedups[n], predictions[n], ACCOUNTED
        )
    for n in sorted({PAPER_N, best}):
        formula = [_formula(field, n, *at) for at in enumerate(race.costs[mode])]
        yield _quotient(
            f"measured / E(a, n) / (n c + v), n={n}, {mode}", speedups[n], formula, None
        )


def _quotient(
    name: str, measured: list[float], predicted: list[float], target: float | None
) -> dict:
    return row(
        name,
        "ratio",
        [one / other for one, other in zip(measured, predicted, strict=True)],
        target,
        limit=1.0,
    )


def _predicted(field: Field, n: int, round_: int, costs: dict) -> float:
    """From the counts of every prompt of a round and the costs taken after it: the loop's own time is left out."""
    pairs = zip(field.made[named(n)][round_], field.made[PLAIN][round_], strict=True)
    counts = [{"new_tokens": len(made.tokens), "steps": made.steps, "drafted": made.drafted, "tests_per_position": made.tests_per_position,
               "autoregressive_new_tokens": len(plain.tokens)} for made, plain in pairs]  # fmt: skip
    return rates.accounted_speedup(counts, costs)


def _formula(field: Field, n: int, round_: int, costs: dict) -> float:
    """The textbook's: independent tests, whole blocks only, and prompts that take no time."""
    made = field.made[named(n)][round_]
    accepts, tests = (
        [sum(column) for column in zip(*(getattr(one, f"{name}_per_position") for one in made))]
        for name in ("accepts", "tests")
    )
    rate = rates.per_position_rate(accepts, tests) / 100
    return rates.predicted_speedup(rate, n, costs["draft_cost"], costs["verify_costs"][n])


def _lookups(field: Field, mode: str) -> Iterator[dict]:
    """By kind of prompt, the kind with the lowest lower bound last and again: that is the one the target is for."""
    kinds = list(dict.fromkeys(question["kind"] for question in field.questions))
    for name, target in (("lookup", None), ("adaptive lookup", LOOKUP)):
        ratios = {kind: field.ratios(name, PLAIN, field.of(kind)) for kind in kinds}
        worst = min(kinds, key=lambda kind: spread(ratios[kind])[1])
        for kind in kinds:
            yield row(
                f"{name} / autoregression, {kind} prompts, {mode}",
                "ratio",
                ratios[kind],
                target,
                limit=_mean_acceptance_length(field, name, kind),
            )
        yield row(
            f"{name} / autoregression, worst kind ({worst}), {mode}", "ratio", ratios[worst], target
        )


def _mean_acceptance_length(field: Field, name: str, kind: str) -> float:
    """What drafts and verifications that cost nothing would give."""
    made = [of_round[index] for of_round in field.made[name] for index in field.of(kind)]
    return sum(len(one.tokens) for one in made) / sum(one.steps for one in made)


def _blocks(race: Race) -> Iterator[dict]:
    """Block over rejection in counts, no clock. Expected: by both rules of the same drafts. Drawn: of texts drawn anew in every round and for
    either rule, so that its spread is mostly the draws'."""
    field = race.fields["top-p .7"]
    for n in BLOCKS:
        yield row(
            f"tokens a block, block / rejection, n={n}, top-p .7, expected",
            "ratio",
            [one[n] for one in race.expected],
            1.0,
        )
        block, single = ([sum(len(one.tokens) for one in made) / sum(one.steps for one in made) for made in field.made[name]]
                         for name in (f"block n={n}", named(n)))  # fmt: skip
        drawn = [one / other for one, other in zip(block, single, strict=True)]
        yield row(f"tokens a step, block / rejection, n={n}, top-p .7, drawn", "ratio", drawn)


def _wide(race: Race) -> Iterator[dict]:
    """The cost side at a wider shape; untrained models accept next to nothing, so the speedup shows what a failing draft costs."""
    field, costs = race.fields["wide"], race.costs["wide"]
    yield row(
        "wide pair: c, a drafted token",
        "steps of the target",
        [one["draft_cost"] for one in costs],
        better="lower",
    )
    wide = [one["verify_cost"] for one in costs]
    yield row(
        f"wide pair: v, verifying {PAPER_N} drafted tokens",
        "steps of the target",
        wide,
        better="lower",
        limit=1.0,
    )
    measured, predicted = (
        field.ratios(named(PAPER_N), PLAIN),
        [_predicted(field, PAPER_N, *at) for at in enumerate(costs)],
    )
    yield _quotient(
        f"wide pair: measured / predicted speedup, n={PAPER_N}, greedy",
        measured,
        predicted,
        ACCOUNTED,
    )


def _steps(race: Race) -> Iterator[dict]:
    """A step of autoregression against the reading of its weights, and against its own matrix products back to back."""
    for name, words in (("greedy", "target"), ("wide", "wide target")):
        size, taken, read = (
            weight_bytes(race.pairs[name].baseline.target),
            race.costs[name],
            [one[name] for one in race.rates],
        )
        ideal = [1000 * size / rate for rate in read]
        shares = [best / one["target_step_ms"] for best, one in zip(ideal, taken, strict=True)]
        yield row(
            f"{words}: a step of autoregression",
            "ms",
            [one["target_step_ms"] for one in taken],
            better="lower",
            limit=median(ideal),
        )
        yield row(
            f"{words}: share of the machine's limit, reading its weights from {source(race, name)}",
            "ratio",
            shares,
            limit=1.0,
        )
        yield row(
            f"{words}: its matrix products alone / the step",
            "ratio",
            [one["baseline_share"] for one in taken],
            limit=1.0,
        )
        yield row(
            f"{words}: read rate over its {size / 1e6:.1f} MB",
            "GB/s",
            [rate / 1e9 for rate in read],
        )
    yield row("read rate of memory", "GB/s", [one["memory"] / 1e9 for one in race.rates])


def source(race: Race, name: str) -> str:
    return lies_in(*(median(one[key] for one in race.rates) for key in (name, "memory")))
