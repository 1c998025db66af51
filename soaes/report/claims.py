"""The paper's claims as verdicts on measured lines: holds, fails or undecided, each from an effect and its 95 % interval.

A claim is a list of pairs, the effect of a pair is left - right; a side is `row.metric`, `table.row.metric`, the quotient of two, a
number, or `average kept at domain 60: base, low, high`: along the rows' curve, what is left of the first row's average where domain
reaches 60. A pair holds where its interval lies above zero, fails where it lies below. With `margin: m` the right side may be missed by
m (non-inferiority); with `within: w` the sides are claimed to be about equal (the interval must lie inside +-w, and fails outside)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from soaes.metrics import bootstrap
from soaes.metrics.bootstrap import Effect, Measured
from soaes.report.results import Table, TableRow, is_number

Side = str | float
NOT_MEASURED = "not measured"
KEPT = " kept at "


@dataclass(frozen=True)
class Comparison:
    text: str  # `left - right`
    verdict: str
    effect: Effect | None  # None: a side is not measured
    paper: float | None
    strength: float  # how far the effect is on the claim's side, in half widths of its interval


@dataclass(frozen=True)
class ClaimResult:
    claim: str
    text: str
    verdict: str
    pairs: list[Comparison]

    @property
    def weakest(self) -> Comparison:
        """The pair that decides: of those with the claim's verdict the one that is least on the claim's side."""
        return min(
            (pair for pair in self.pairs if pair.verdict == self.verdict),
            key=lambda pair: pair.strength,
        )


def judge(tables: dict[str, Table], name: str) -> list[ClaimResult]:
    """Every claim of a table. `tables` must have those that its claims speak of."""
    return [
        ClaimResult(
            key, claim["text"] + _tolerance(claim), _all([pair.verdict for pair in pairs]), pairs
        )
        for key, claim in tables[name].claims.items()
        if (pairs := [_pair(tables, name, sides, claim) for sides in claim["pairs"]])
    ]


def _tolerance(claim: dict[str, Any]) -> str:
    return "".join(f" ({key} {claim[key]:g})" for key in ("margin", "within") if key in claim)


def _all(verdicts: list[str]) -> str:
    """Of a claim, by its pairs: it fails with any, and holds only with all."""
    return next(
        (verdict for verdict in ("fails", NOT_MEASURED, "undecided") if verdict in verdicts),
        "holds",
    )


def _pair(
    tables: dict[str, Table], name: str, sides: list[Side], claim: dict[str, Any]
) -> Comparison:
    effect = _effect(tables, name, sides)
    paper = _paper(tables, name, sides)
    text = " - ".join(map(str, sides))
    if effect is None:
        return Comparison(text, NOT_MEASURED, None, paper, float("-inf"))
    return Comparison(
        text,
        verdict(effect, claim.get("margin", 0.0), claim.get("within")),
        effect,
        paper,
        _strength(effect, claim),
    )


def verdict(effect: Effect, margin: float = 0.0, within: float | None = None) -> str:
    """An effect without an interval (NaN) decides nothing."""
    low, high = effect.low, effect.high
    if within is not None:
        return (
            "holds"
            if -within < low and high < within
            else "fails"
            if low > within or high < -within
            else "undecided"
        )
    return "holds" if low > -margin else "fails" if high < -margin else "undecided"


def _strength(effect: Effect, claim: dict[str, Any]) -> float:
    on_its_side = (
        claim["within"] - abs(effect.value)
        if "within" in claim
        else effect.value + claim.get("margin", 0.0)
    )
    half_width = (effect.high - effect.low) / 2
    return on_its_side / half_width if half_width > 0 else on_its_side


def _effect(tables: dict[str, Table], name: str, sides: list[Side]) -> Effect | None:
    """Over the seeds in which both sides are measured; None without any."""
    terms = list(_terms(tables, name, sides))
    common = [
        seed
        for seed in terms[0][0].measured
        if all(_of_seed(line, metric, seed) for line, metric in terms)
    ]
    by_seed = [[_of_seed(line, metric, seed) for line, metric in terms] for seed in common]
    return bootstrap.effect(by_seed, _difference(sides)) if by_seed else None


def _of_seed(line: TableRow, metric: str, seed: int) -> Measured | None:
    found = line.measured.get(seed, {}).get(metric)
    return found if found and is_number(found.value) else None


def _paper(tables: dict[str, Table], name: str, sides: list[Side]) -> float | None:
    values = [line.paper.get(metric) for line, metric in _terms(tables, name, sides)]
    return None if None in values else float(_difference(sides)(values))


def _terms(
    tables: dict[str, Table], name: str, sides: list[Side]
) -> Iterator[tuple[TableRow, str]]:
    for text in terms(sides):
        *where, row, metric = text.split(".")
        yield tables[where[0] if where else name].lines[row], metric


def terms(sides: list[Side]) -> list[str]:
    """What a pair speaks of, in order: `row.metric` or `table.row.metric`; numbers are left out."""
    return [term for side in sides if isinstance(side, str) for term in _terms_of(side)]


def _terms_of(side: str) -> list[str]:
    if KEPT not in side:
        return side.split(" / ")
    metric, about = side.split(KEPT)
    matched, rows = about.split(": ")
    return [f"{row}.{name}" for row in rows.split(", ") for name in (metric, matched.split()[0])]


def _difference(sides: list[Side]) -> Callable:
    """left - right, of the values of their terms in order; a side of two terms is their quotient."""

    def of(values: list) -> Any:
        rest = iter(values)
        sums = [
            _value(side, [next(rest) for _ in _terms_of(side)]) if isinstance(side, str) else side
            for side in sides
        ]
        return sums[0] - sums[1]

    return of


def _value(side: str, values: list) -> Any:
    if KEPT in side:
        return kept_at(values[::2], values[1::2], float(side.split(": ")[0].split()[-1]))
    return values[0] if len(values) == 1 else values[0] / values[1]


def kept_at(scores: list, matched: list, level: float) -> Any:
    """Along a curve of points, the score where `matched` first reaches `level`, as a share of the first point's score; straight between
    points, NaN where no point reaches it. Numbers, or one array of replicates a point."""
    found = np.nan * (scores[0] + matched[0])
    for at in range(len(scores) - 1):
        step = matched[at + 1] - matched[at]
        crosses = (matched[at] < level) & (matched[at + 1] >= level) & np.isnan(found)
        here = scores[at] + (scores[at + 1] - scores[at]) * (level - matched[at]) / np.where(
            step == 0, np.nan, step
        )
        found = np.where(crosses, here / scores[0], found)
    return found
