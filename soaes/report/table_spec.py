"""How a table is read: experiments/NAME.yaml as checked records.

A table names the sweeps that its rows come from, the columns, the paper's values and the paper's
claims. Knows the description only: `results` reads the store by it, `claims` judges by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import yaml

from soaes.pipeline import conf_folders
from soaes.pipeline.validation import nearest

EXPERIMENTS = conf_folders.shipped_folder("experiments")

# ---------------------------------------------------------------- sides of a comparison


@dataclass(frozen=True)
class Cell:
    """A metric of a row: `alpha_05`, or `{table: table2, row: full}` of another table."""

    row: str
    metric: str
    table: str | None = None  # None: the claim's own table

    @property
    def text(self) -> str:
        """The cell's name as verdicts.csv shows it."""
        name = f"{self.row}.{self.metric}"
        return f"{self.table}.{name}" if self.table else name

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells whose values `combine` takes, in order."""
        return (self,)

    def combine(self, values: Sequence[Any]) -> Any:
        """Compute the side from its cells' values: numbers, or arrays of replicates."""
        return values[0]


@dataclass(frozen=True)
class Quotient:
    """`{numerator: target_cpt, denominator: target_base}`."""

    numerator: Cell
    denominator: Cell

    @property
    def text(self) -> str:
        """The quotient as verdicts.csv shows it."""
        return f"{self.numerator.text} / {self.denominator.text}"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells whose values `combine` takes, in order."""
        return (self.numerator, self.denominator)

    def combine(self, values: Sequence[Any]) -> Any:
        """Compute the side from its cells' values: numbers, or arrays of replicates."""
        return values[0] / values[1]


@dataclass(frozen=True)
class Curve:
    """What is left of the first row's score where another metric reaches a level.

    `{curve: [base, low, high], score: average, matched: domain, level: 60}`: along the curve
    through these rows, the average where domain reaches 60, over that of `base`.
    """

    rows: tuple[str, ...]
    score: str
    matched: str
    level: float

    @property
    def text(self) -> str:
        """The curve as verdicts.csv shows it."""
        rows = ", ".join(self.rows)
        return f"{self.score} retained at {self.matched} {self.level:g}: {rows}"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells whose values `combine` takes: score and matched metric, row by row."""
        return tuple(
            Cell(row, metric) for row in self.rows for metric in (self.score, self.matched)
        )

    def combine(self, values: Sequence[Any]) -> Any:
        """Compute the side from its cells' values: numbers, or arrays of replicates."""
        return retained_at(values[::2], values[1::2], self.level)


@dataclass(frozen=True)
class Number:
    """A constant, such as the 1 that a quotient is compared with."""

    number: float

    @property
    def text(self) -> str:
        """The number as verdicts.csv shows it."""
        return str(self.number)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """No cells."""
        return ()

    def combine(self, values: Sequence[Any]) -> Any:
        """Return the number."""
        return self.number


Side = Cell | Quotient | Curve | Number


def retained_at(scores: Sequence[Any], matched: Sequence[Any], level: float) -> Any:
    """Interpolate a curve's score where `matched` first reaches `level`.

    Args:
        scores: The score of each point of the curve: numbers, or arrays of replicates.
        matched: The other metric of each point.
        level: The value of `matched` at which the curve is read.

    Returns:
        The score there as a share of the first point's, linear between points; NaN where no point
        reaches the level.
    """
    share = np.nan * (scores[0] + matched[0])
    for index in range(len(scores) - 1):
        start, end = matched[index], matched[index + 1]
        width = np.where(end - start == 0, np.nan, end - start)
        slope = scores[index + 1] - scores[index]
        interpolated = scores[index] + slope * (level - start) / width
        crosses = (start < level) & (end >= level) & np.isnan(share)
        share = np.where(crosses, interpolated / scores[0], share)
    return share


# ---------------------------------------------------------------- claims


@dataclass(frozen=True)
class Pair:
    """Two sides of which the left is claimed to exceed the right."""

    left: Side
    right: Side

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError(f"pair {self.text} compares two numbers; give it a row")

    @property
    def text(self) -> str:
        """The difference as verdicts.csv shows it."""
        return f"{self.left.text} - {self.right.text}"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of both sides, in order."""
        return self.left.cells + self.right.cells

    @property
    def difference(self) -> Callable[[Sequence[Any]], Any]:
        """left - right as a function of the values of `cells`."""

        def of_values(values: Sequence[Any]) -> Any:
            split = len(self.left.cells)
            left, right = values[:split], values[split:]
            return self.left.combine(left) - self.right.combine(right)

        return of_values


@dataclass(frozen=True)
class ClaimSpec:
    """A statement of the paper: it holds if each of its pairs does."""

    text: str  # in words
    pairs: tuple[Pair, ...]
    margin: float = 0.0  # the right side may be missed by this much (non-inferiority)
    within: float | None = None  # instead: the sides differ by no more than this
    # Further metric -> the same pairs by it. They are judged beside the claim and decide nothing.
    also: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.also and (self.margin or self.within is not None):
            raise ValueError(
                f"claim {self.text!r} has also= beside margin or within, which are in points of "
                "its own metric; leave one of them out"
            )
        if self.margin and self.within is not None:
            raise ValueError(
                f"claim {self.text!r} has margin={self.margin:g} and within={self.within:g}; "
                "give one of the two"
            )


# ---------------------------------------------------------------- rows, columns, tables


@dataclass(frozen=True)
class ColumnSpec:
    """A metric as a column: of a row's own metrics.json, or `model.METRIC` of a model it reads."""

    title: str
    digits: int  # decimals shown
    short: str = ""  # the title in a terminal, where the other is too long


@dataclass(frozen=True)
class RowSpec:
    """Which job of which sweeps makes a row, and the paper's values beside it."""

    # Goal -> experiment; empty: the row has the paper's values only.
    sweeps: Mapping[str, str] = field(default_factory=dict)
    when: Mapping[str, Any] = field(default_factory=dict)  # the swept values of the row's job
    paper: Mapping[str, Any] = field(default_factory=dict)  # name, and values by column
    note: str = ""  # appended to the label in brackets

    def __post_init__(self) -> None:
        if not self.sweeps and "name" not in self.paper:
            raise ValueError(
                "a row without sweeps shows the paper's values alone; give it paper.name"
            )

    def is_made_by(self, role: str, overrides: Mapping[str, str]) -> bool:
        """Tell whether a job of the sweep of a role makes this row.

        Args:
            role: The goal by which the row names the sweep.
            overrides: What the job sets. Where the sweep has several goals, it sets one of them.
        """
        return overrides.get("goal", role) == role and matches(self.when, overrides)


@dataclass(frozen=True)
class TableSpec:
    """A table: experiments/NAME.yaml."""

    title: str
    asks: str  # the question that the table answers
    rows: Mapping[str, RowSpec]
    columns: Mapping[str, ColumnSpec]
    claims: Mapping[str, ClaimSpec] = field(default_factory=dict)
    label: str = "model"  # the recipe's argument that labels a row: a model or a decoder
    settings: Mapping[str, str] = field(default_factory=dict)  # title -> `when.KEY` or recipe path
    breakdown: Mapping[str, ColumnSpec] = field(default_factory=dict)  # columns of a second table
    few_seeds: tuple[str, ...] = ()  # goals that are run in the first few seeds alone
    shared_metrics: str | None = None  # the role whose value is shown of a metric that several have
    reading: Mapping[str, str] = field(default_factory=dict)  # scale -> what its numbers say
    short: str = ""  # the title in a terminal, where it stands in the header

    def __post_init__(self) -> None:
        roles = {role for row in self.rows.values() for role in row.sweeps}
        named = {*self.few_seeds, *([self.shared_metrics] if self.shared_metrics else [])}
        if unknown := sorted(named - roles):
            raise ValueError(
                f"{self.title}: few_seeds and shared_metrics name {', '.join(unknown)}; "
                f"the rows' sweeps are {', '.join(sorted(roles))}"
            )

    @property
    def all_columns(self) -> dict[str, ColumnSpec]:
        """The columns of the table and of its breakdown."""
        return {**self.columns, **self.breakdown}

    @property
    def experiments(self) -> tuple[str, ...]:
        """The sweeps of all rows, in the order in which rows name them."""
        names = (name for row in self.rows.values() for name in row.sweeps.values())
        return tuple(dict.fromkeys(names))


# ---------------------------------------------------------------- reading the YAML


def table_names() -> list[str]:
    """List the paper's tables, then our own."""
    names = [path.stem for path in EXPERIMENTS.glob("*.yaml")]
    return sorted(names, key=paper_first)


def is_of_paper(name: str) -> bool:
    """Tell whether a table is one of the paper's."""
    return name.startswith("table")


def paper_first(name: str) -> tuple[bool, str]:
    """Sort the paper's tables before ours, by name."""
    return not is_of_paper(name), name


def check_table(name: str) -> None:
    """Check that there is a table of this name.

    Raises:
        ValueError: There is none; the message has the nearest name.
    """
    names = table_names()
    if name not in names:
        raise ValueError(f"{name}: there is no such table; {nearest(name, names)}")


def check_row(name: str, key: str, keys: Iterable[str]) -> None:
    """Check that a table has a row.

    Args:
        name: The table's name.
        key: The row's.
        keys: Those of all its rows.

    Raises:
        ValueError: It has none of this key; the message has the nearest.
    """
    known = list(keys)
    if not key:
        advice = nearest("", known)
        raise ValueError(f"{name}: name a row too, as in {name}.{known[0]}; {advice}")
    if key not in known:
        raise ValueError(f"{name}.{key}: there is no such row; {nearest(key, known)}")


def load(name: str) -> TableSpec:
    """Read experiments/NAME.yaml.

    Raises:
        ValueError: The file has an unknown key, or a value that the records refuse.
    """
    path = EXPERIMENTS / f"{name}.yaml"
    try:
        return parse(yaml.safe_load(path.read_text("utf-8")))
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from error


def parse(spec: Mapping[str, Any]) -> TableSpec:
    """Make a table from its YAML mapping."""
    parsed = dict(spec)
    parsed["rows"] = {key: _record(RowSpec, row) for key, row in spec["rows"].items()}
    for columns in ("columns", "breakdown"):
        entries = spec.get(columns, {}).items()
        parsed[columns] = {metric: _record(ColumnSpec, column) for metric, column in entries}
    claims = spec.get("claims", {}).items()
    parsed["claims"] = {key: parse_claim(claim) for key, claim in claims}
    parsed["few_seeds"] = tuple(spec.get("few_seeds", ()))
    return _record(TableSpec, parsed)


def parse_claim(spec: Mapping[str, Any]) -> ClaimSpec:
    """Make a claim from its YAML mapping.

    `metric` names the metric of all pairs, or stands in each pair; `also` lists further metrics, by
    which the same pairs are judged beside the claim, with a minus before those of which less is
    better. A side is a row's key, a number, `{table, row}`, `{numerator, denominator}`, or
    `{curve, score, matched, level}`.
    """
    parsed = dict(spec)
    metric = parsed.pop("metric", None)
    parsed["pairs"] = tuple(_pair(pair, metric) for pair in spec["pairs"])
    parsed["also"] = {
        other.removeprefix("-"): _pairs_by(other, spec["pairs"]) for other in spec.get("also", ())
    }
    return _record(ClaimSpec, parsed)


def _pairs_by(metric: str, specs: Sequence[Mapping[str, Any]]) -> tuple[Pair, ...]:
    """The pairs by another metric; `-METRIC` swaps their sides, since less of it is better."""
    pairs = [_pair(spec, metric.removeprefix("-")) for spec in specs]
    if metric.startswith("-"):
        pairs = [Pair(pair.right, pair.left) for pair in pairs]
    return tuple(pairs)


def _pair(spec: Mapping[str, Any], metric: str | None) -> Pair:
    _refuse_unknown(spec, ("left", "right", "metric"))
    own = spec.get("metric", metric)
    return Pair(_side(spec["left"], own), _side(spec["right"], own))


def _side(spec: Any, metric: str | None) -> Side:
    if isinstance(spec, (int, float)) and not isinstance(spec, bool):
        return Number(spec)
    if isinstance(spec, Mapping) and "curve" in spec:
        _refuse_unknown(spec, ("curve", "score", "matched", "level"))
        return Curve(tuple(spec["curve"]), spec["score"], spec["matched"], spec["level"])
    if metric is None:
        raise ValueError(
            f"side {spec!r} of a claim has no metric; give it to the claim or the pair"
        )
    if isinstance(spec, str):
        return Cell(spec, metric)
    if set(spec) == {"table", "row"}:
        return Cell(spec["row"], metric, spec["table"])
    if set(spec) == {"numerator", "denominator"}:
        return Quotient(_cell(spec["numerator"], metric), _cell(spec["denominator"], metric))
    raise ValueError(
        f"side {spec!r} of a claim is none of: a row, a number, {{table, row}}, "
        "{numerator, denominator}, {curve, score, matched, level}"
    )


def _refuse_unknown(spec: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse a key that a pair or a side does not have: it would be ignored."""
    for key in spec:
        if key not in known:
            raise ValueError(
                f"{key}: a claim's {spec!r} has no such key; known: {', '.join(known)}"
            )


def _cell(row: str, metric: str) -> Cell:
    return Cell(row, metric)


def _record(kind: Any, spec: Mapping[str, Any]) -> Any:
    known = [known_field.name for known_field in fields(kind)]
    if unknown := [key for key in spec if key not in known]:
        hint = nearest(unknown[0], known)
        raise ValueError(f"{unknown[0]} is no key of a {kind.__name__}; {hint}")
    return kind(**spec)


# ---------------------------------------------------------------- rows of a sweep


def matches(when: Mapping[str, Any], overrides: Mapping[str, str]) -> bool:
    """Tell whether a job's overrides have the values of a row, whatever their spelling."""
    return all(
        key in overrides and same_value(value, overrides[key]) for key, value in when.items()
    )


def same_value(value: Any, text: str) -> bool:
    """Compare a YAML value with an override by value: 1 is `1.0`, 0.0003 is `3e-4`."""
    parsed = _parsed(text)
    wanted = _parsed(value) if isinstance(value, str) else value
    if isinstance(parsed, bool) or isinstance(wanted, bool):
        return parsed is wanted
    return parsed == wanted


def _parsed(text: str) -> Any:
    value = yaml.safe_load(text)
    if not isinstance(value, str):
        return value
    try:
        return float(value)  # YAML 1.1 reads 3e-4 as a string
    except ValueError:
        return value
