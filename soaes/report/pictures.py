"""What is drawn of a table: points with their 95 % intervals, the paper's beside.

Knows tables as they were read, not the store, and no drawing: `plots` draws the same pictures with
matplotlib, the page draws them in a browser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from statistics import median
from typing import Any

from soaes.metrics.acceptance import predicted_speedup
from soaes.metrics.bootstrap import Effect, effect
from soaes.report.results import Table, TableRow, is_number


@dataclass(frozen=True)
class Look:
    """How a series is drawn. Names are of no library."""

    colour: str  # blue, red, green, grey or black
    marker: str = ""  # circle, square, star, plus, down, up, left or right; empty: a line alone
    line: str = ""  # solid, dotted; empty: points alone
    hollow: bool = False


OURS = Look("blue", "circle")
PAPER = Look("red", "square", hollow=True)
EXPECTED = Look("grey", line="solid")


@dataclass(frozen=True)
class Value:
    """A coordinate, with its interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """A point of a series."""

    x: Value
    y: Value


@dataclass(frozen=True)
class Series:
    """Points of one look. In a panel with categories, y is the category's place."""

    name: str
    look: Look
    points: Sequence[Point]


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    x_label: str
    y_label: str
    series: Sequence[Series]
    title: str = ""
    x_rule: float | None = None  # a line of no effect
    y_rule: float | None = None
    categories: Sequence[str] = field(default=())  # rows of the panel, from the top
    x_ticks: Sequence[float] = field(default=())  # the values that were swept


Picture = Sequence[Panel]


def picture(table: Table, name: str) -> Picture:
    """Return what is drawn of a table; no panel if it has no picture or no cell of it is there."""
    return PICTURES[name](table) if name in PICTURES else []


# ---------------------------------------------------------------- what is drawn of a cell


def _has(row: TableRow, *metrics: str) -> bool:
    return all(is_number(row.values.get(metric)) for metric in metrics)


def _own(row: TableRow, metric: str) -> Value:
    low, high = row.intervals.get(metric, (nan, nan))
    return _value(Effect(row.values[metric], low, high, len(row.measured)))


def _value(measured: Effect) -> Value:
    if isnan(measured.low) or isnan(measured.high):
        return Value(measured.value)
    return Value(measured.value, measured.low, measured.high)


def _compared(
    left: TableRow, right: TableRow, metric: str, combine: Callable[[Sequence[Any]], Any]
) -> Value | None:
    """Compare two rows in the seeds that both have, question by question.

    The interval is narrower than those of the two rows suggest.
    """
    by_seed = []
    for seed, metrics in left.measured.items():
        others = right.measured.get(seed, {})
        if metric in metrics and metric in others:
            by_seed.append([metrics[metric], others[metric]])
    return _value(effect(by_seed, combine)) if by_seed else None


def difference(left: TableRow, right: TableRow) -> Value | None:
    """Return left's Rouge-1 less right's; None without a seed that both have."""
    return _compared(left, right, "rouge1", lambda terms: terms[0] - terms[1])


def _beside(ours: Sequence[Value | None], papers: Sequence[float | None]) -> list[Series]:
    """Ours and the paper's, a category each."""
    measured = [Point(value, Value(place)) for place, value in enumerate(ours) if value is not None]
    printed = [
        Point(Value(value), Value(place)) for place, value in enumerate(papers) if value is not None
    ]
    return [Series("ours", OURS, measured), Series("paper", PAPER, printed)]


# ---------------------------------------------------------------- one function a table


def _retained(table: Table) -> Picture:
    """Table 1: the share of an exam's score that is left after CPT, for both models."""
    columns = table.spec.all_columns
    exams = {exam: column.title for exam, column in columns.items() if exam != "domain"}
    panels, is_measured = [], False
    for size in ("target", "draft"):
        after, before = table.rows[f"{size}_cpt"], table.rows[f"{size}_base"]
        shares = [_compared(after, before, exam, _percent_left) for exam in exams]
        papers = [100 * after.paper[exam] / before.paper[exam] for exam in exams]
        is_measured = is_measured or any(share is not None for share in shares)
        panel = Panel(
            x_label="left after CPT (% of the base's score)\nbars: 95 %",
            y_label="",
            series=_beside(shares, papers),
            title=f"{size}: {before.label}",
            x_rule=100,
            categories=list(exams.values()),
        )
        panels.append(panel)
    return panels if is_measured else []


def _percent_left(terms: Sequence[Any]) -> Any:
    return 100 * terms[0] / terms[1]


def _chains(table: Table) -> Picture:
    """Table 2: what each chain adds to stage-2 SFT alone, in points of Rouge-1.

    Levels differ too much for ours and the paper's to share an axis.
    """
    base = table.rows["sft2"]
    rows = [row for key, row in table.rows.items() if key != "sft2"]
    ours = [difference(row, base) for row in rows]
    if not any(ours):
        return []
    papers = [row.paper["rouge1"] - base.paper["rouge1"] if row.paper else None for row in rows]
    label = "Rouge-1 minus that of stage-2 SFT alone (points)\nbars: 95 % of the difference"
    labels = [row.label for row in rows]
    return [Panel(label, "", _beside(ours, papers), x_rule=0, categories=labels)]


def _distilled(table: Table) -> Picture:
    """Table 3: what distillation adds to the undistilled draft, by alpha and by tau.

    (0.5, 2) stands in both panels.
    """
    base = table.rows["undistilled"]
    swept: dict[str, list[TableRow]] = {"alpha": [], "tau": []}
    for key, row in table.rows.items():
        if key.startswith("alpha"):
            swept["alpha"].append(row)
        if key.startswith("tau") or key == "alpha_05":
            swept["tau"].append(row)
    if not any(difference(row, base) for rows in swept.values() for row in rows):
        return []
    fixed_in = {"alpha": "tau", "tau": "alpha"}
    return [_sweep(rows, key, fixed_in[key], base) for key, rows in swept.items()]


def _sweep(swept: Sequence[TableRow], key: str, fixed: str, base: TableRow) -> Panel:
    """One panel: Rouge-1 above the undistilled draft's at each swept value."""
    by_value = {float(row.settings[key]): row for row in swept if row.settings}
    rows = dict(sorted(by_value.items()))
    ours = []
    for value, row in rows.items():
        gain = difference(row, base)
        if gain is not None:
            ours.append(Point(Value(value), gain))
    papers = [
        Point(Value(value), Value(row.paper["rouge1"] - base.paper["rouge1"]))
        for value, row in rows.items()
    ]
    held = dict.fromkeys(row.settings[fixed] for row in rows.values())
    return Panel(
        x_label=f"{key} ({fixed} = {', '.join(held)})\nbars: 95 % of the difference",
        y_label="Rouge-1 minus the undistilled\ndraft's (points)",
        series=[
            Series("ours", Look("blue", "circle", "solid"), ours),
            Series("paper", Look("red", "square", "dotted", hollow=True), papers),
        ],
        y_rule=0,
        x_ticks=list(rows),
    )


LOOKS = {
    "undistilled": Look("black", "plus"),
    "alpha_02": Look("blue", "down"),
    "alpha_05": Look("red", "star"),
    "alpha_08": Look("blue", "up"),
    "tau_1": Look("green", "left"),
    "tau_3": Look("green", "right"),
}


def _accepted(table: Table) -> Picture:
    """Table 4: speed against acceptance, ours with what theory expects; the paper's beside it.

    Instruct accepts so much less that the other rows would be one point beside it: the axis labels
    give its numbers.
    """
    rows = {key: table.rows[key] for key in LOOKS}
    rate, speedup = "acceptance_rate_per_position", "speedup"
    ours, papers = [], []
    for key, row in rows.items():
        name = key.replace("_0", " 0.").replace("_", " ")
        if _has(row, rate, speedup):
            point = Point(_own(row, rate), _own(row, speedup))
            ours.append(Series(name, LOOKS[key], [point]))
        printed = Point(Value(row.paper[rate]), Value(row.paper[speedup]))
        papers.append(Series(name, LOOKS[key], [printed]))
    if not ours:
        return []
    expected, costs = _expected([row for row in rows.values() if _has(row, rate, speedup)])
    instruct = table.rows["instruct"]
    return [
        _acceptance_panel(f"ours{costs}", "; bars: 95 %", [*expected, *ours], instruct.values),
        _acceptance_panel("paper", "", papers, instruct.paper),
    ]


def _acceptance_panel(
    title: str, bars: str, series: Sequence[Series], instruct: Mapping[str, Any]
) -> Panel:
    label = f"acceptance rate (%){bars}"
    if {"acceptance_rate_per_position", "speedup"} <= instruct.keys():
        rate, speedup = instruct["acceptance_rate_per_position"], instruct["speedup"]
        label += f"\nInstruct: {rate:.1f} %, {speedup:.2f}x"
    return Panel(label, "speedup (x)", series, title, y_rule=1)


def _expected(rows: Sequence[TableRow]) -> tuple[list[Series], str]:
    """The line E(a, n) / (n c + v) over the measured acceptance rates, at the rows' median costs.

    Returns:
        The line and what the title says of it; neither without rows whose costs are known.
    """
    rows = [row for row in rows if _has(row, "draft_cost", "verify_cost", "n")]
    if not rows:
        return [], ""
    n = int(median(row.values["n"] for row in rows))
    c = median(row.values["draft_cost"] for row in rows)
    v = median(row.values["verify_cost"] for row in rows)
    measured = [row.values["acceptance_rate_per_position"] for row in rows]
    low, high = max(0, min(measured) - 3), min(100, max(measured) + 3)
    points = []
    for step in range(51):
        rate = low + (high - low) * step / 50
        speedup = predicted_speedup(rate / 100, n, c, v)
        points.append(Point(Value(rate), Value(speedup)))
    title = f", and expected at c = {c:.2f}, v = {v:.2f}"
    return [Series("expected", EXPECTED, points)], title


def _speedups(table: Table) -> Picture:
    """Tables 5 and 6: how much faster than autoregression each way of decoding is."""
    rows = list(table.rows.values())
    ours = [_own(row, "speedup") if _has(row, "speedup") else None for row in rows]
    if not any(ours):
        return []
    labels = []
    for row in rows:
        settings = [f"{key} = {value}" for key, value in row.settings.items() if value != "-"]
        labels.append(", ".join([row.label, *settings]))
    series = _beside(ours, [row.paper.get("speedup") for row in rows])
    label = "speedup over autoregression (x); bars: 95 %"
    return [Panel(label, "", series, x_rule=1, categories=labels)]


SIZES = {"large": "blue", "medium": "green", "small": "red"}


def _frontier(table: Table) -> Picture:
    """Retention: general against domain knowledge.

    From each base a line for each share of replay, towards higher learning rates.
    """
    rows = [row for row in table.rows.values() if _has(row, "average", "domain")]
    if not any(row.settings["replay"] != "-" for row in rows):
        return []
    series = []
    for size, colour in SIZES.items():
        series += _frontier_of_size(
            size, colour, [row for row in rows if row.settings["size"] == size]
        )
    labels = "domain exam (%); bars: 95 %", "general exams, average (%)"
    return [Panel(*labels, series)]


def _frontier_of_size(size: str, colour: str, rows: Sequence[TableRow]) -> list[Series]:
    looks = {
        "0": Look(colour, "circle", "solid"),
        "0.25": Look(colour, "square", "dotted", hollow=True),
    }
    base = [row for row in rows if row.settings["replay"] == "-"]
    series = []
    for replay, look in looks.items():
        curve = [row for row in rows if row.settings["replay"] == replay]
        curve.sort(key=lambda row: float(row.settings["lr"]))
        if curve:
            name = f"{size}, replay {100 * float(replay):g} %"
            series.append(Series(name, look, _walk(base + curve)))
    if base:
        series.append(Series(f"{size}, base", Look(colour, "star"), _walk(base)))
    return series


def _walk(rows: Sequence[TableRow]) -> list[Point]:
    return [Point(_own(row, "domain"), _own(row, "average")) for row in rows]


PICTURES: dict[str, Callable[[Table], Picture]] = {
    "table1": _retained,
    "table2": _chains,
    "table3": _distilled,
    "table4": _accepted,
    "table5": _speedups,
    "table6": _speedups,
    "retention": _frontier,
}
