"""Judge the paper's claims: holds, fails or undecided, from an effect and its 95 % interval.

The effect of a pair is left - right (`table_spec` has the sides). A pair holds where its interval
lies above zero and fails where it lies below. With `margin: m` the right side may be missed by m
(non-inferiority); with `within: w` the sides are claimed to be about equal: the interval must lie
inside +-w, and the pair fails outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from soaes.metrics import bootstrap
from soaes.metrics.bootstrap import Effect, Measured
from soaes.report.results import Table, TableRow, is_number
from soaes.report.table_spec import Cell, ClaimSpec, Pair

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Comparison:
    """One pair of a claim, measured."""

    text: str  # `left - right`
    verdict: str  # holds, fails, undecided or not measured
    effect: Effect | None  # None: a side is not measured
    paper: float | None  # the paper's effect; None: it lacks a side
    strength: float  # how far the effect is on the claim's side, in half widths of its interval


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict."""

    claim: str  # its key, such as T1a
    text: str  # in words, with its tolerance
    verdict: str
    pairs: list[Comparison]
    also: Mapping[str, ClaimResult] = field(default_factory=dict)  # by further metrics

    @property
    def weakest(self) -> Comparison:
        """The pair that decides: among those of the claim's verdict, the one it favours least."""
        deciding = [pair for pair in self.pairs if pair.verdict == self.verdict]
        return min(deciding, key=lambda pair: pair.strength)


def judge(tables: Mapping[str, Table], name: str) -> list[ClaimResult]:
    """Judge every claim of a table.

    Args:
        tables: The table, and those whose rows its claims compare with.
        name: The table's name.
    """
    results = []
    for key, claim in tables[name].spec.claims.items():
        result = _result(tables, name, key, claim, claim.pairs)
        also = {
            metric: _result(tables, name, key, claim, pairs) for metric, pairs in claim.also.items()
        }
        results.append(replace(result, also=also))
    return results


def _result(
    tables: Mapping[str, Table], name: str, key: str, claim: ClaimSpec, pairs: Sequence[Pair]
) -> ClaimResult:
    compared = [_compare(tables, name, pair, claim) for pair in pairs]
    verdict_of_claim = _combine([pair.verdict for pair in compared])
    return ClaimResult(key, claim.text + _tolerance(claim), verdict_of_claim, compared)


def _tolerance(claim: ClaimSpec) -> str:
    margin = f" (margin {claim.margin:g})" if claim.margin else ""
    within = f" (within {claim.within:g})" if claim.within is not None else ""
    return margin + within


def _combine(verdicts: list[str]) -> str:
    """A claim fails with any of its pairs, and holds only with all."""
    for verdict_of_pair in ("fails", NOT_MEASURED, "undecided"):
        if verdict_of_pair in verdicts:
            return verdict_of_pair
    return "holds"


def _compare(tables: Mapping[str, Table], name: str, pair: Pair, claim: ClaimSpec) -> Comparison:
    rows = [_row(tables, name, cell) for cell in pair.cells]
    effect = effect_of(rows, pair)
    paper = _paper_effect(rows, pair)
    if effect is None:
        return Comparison(pair.text, NOT_MEASURED, None, paper, float("-inf"))
    verdict_of_pair = verdict(effect, claim.margin, claim.within)
    return Comparison(pair.text, verdict_of_pair, effect, paper, _strength(effect, claim))


def _row(tables: Mapping[str, Table], name: str, cell: Cell) -> TableRow:
    return tables[cell.table or name].rows[cell.row]


def verdict(effect: Effect, margin: float = 0.0, within: float | None = None) -> str:
    """Judge one effect.

    Args:
        effect: left - right; without an interval (NaN) it decides nothing.
        margin: How much the right side may be missed by.
        within: If given, the claim is that the effect lies inside +-within.

    Returns:
        holds, fails or undecided.
    """
    low, high = effect.low, effect.high
    if within is not None:
        if -within < low and high < within:
            return "holds"
        return "fails" if low > within or high < -within else "undecided"
    if low > -margin:
        return "holds"
    return "fails" if high < -margin else "undecided"


def _strength(effect: Effect, claim: ClaimSpec) -> float:
    if claim.within is not None:
        distance = claim.within - abs(effect.value)
    else:
        distance = effect.value + claim.margin
    half_width = (effect.high - effect.low) / 2
    return distance / half_width if half_width > 0 else distance


def effect_of(rows: Sequence[TableRow], pair: Pair) -> Effect | None:
    """Measure a pair over the seeds in which all its cells are there.

    Args:
        rows: The row of each of the pair's cells, in order.
        pair: What is compared.

    Returns:
        left - right, with its interval; None where no seed has all cells.
    """
    by_seed = []
    for seed in rows[0].measured:
        values = [
            _of_seed(row, cell.metric, seed) for row, cell in zip(rows, pair.cells, strict=True)
        ]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            by_seed.append(known)
    return bootstrap.effect(by_seed, pair.difference) if by_seed else None


def _of_seed(row: TableRow, metric: str, seed: int) -> Measured | None:
    measured = row.measured.get(seed, {}).get(metric)
    return measured if measured and is_number(measured.value) else None


def _paper_effect(rows: list[TableRow], pair: Pair) -> float | None:
    cells = zip(rows, pair.cells, strict=True)
    values = [row.paper.get(cell.metric) for row, cell in cells]
    return None if None in values else float(pair.difference(values))
