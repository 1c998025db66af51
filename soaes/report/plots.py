"""Draw tables that a picture shows better: ours with its 95 % interval, the paper's value beside.

Knows tables as they were read, not the store. Matplotlib is imported by the function that draws,
so that reading stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from soaes.metrics.acceptance import predicted_speedup
from soaes.metrics.bootstrap import Effect, effect
from soaes.report.results import Table, TableRow, is_number

# colours that colour-blind readers can tell apart (Okabe and Ito); markers differ too
BLUE = "#0072B2"
RED = "#D55E00"
GREEN = "#009E73"
GREY = "#777777"
OURS = {
    "color": BLUE,
    "marker": "o",
    "markersize": 5,
    "capsize": 2,
    "elinewidth": 1,
    "label": "ours",
}
PAPER = {"color": RED, "marker": "s", "markersize": 5, "markerfacecolor": "none", "label": "paper"}
RULE = {"color": GREY, "linewidth": 0.8, "linestyle": "--", "zorder": 0}
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.titlesize": 9,
}


def draw(tables: Mapping[str, Table], name: str, folder: Path) -> Path | None:
    """Write folder/NAME.png, 7 x 3.2 inches at 150 dpi. The same table gives the same bytes.

    Args:
        tables: The table, by name.
        name: The table's name.
        folder: Where the picture goes.

    Returns:
        The picture; None for a table that has no picture or none of whose cells is there.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if name not in PICTURES:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2), dpi=150, layout="constrained")
        PICTURES[name](tables[name], figure)
        if not figure.axes:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return folder / f"{name}.png"


# ---------------------------------------------------------------- what is drawn of a cell


def _has(row: TableRow, *metrics: str) -> bool:
    return all(is_number(row.values.get(metric)) for metric in metrics)


def _own(row: TableRow, metric: str) -> Effect:
    low, high = row.intervals.get(metric, (nan, nan))
    return Effect(row.values[metric], low, high, len(row.measured))


def _compared(
    left: TableRow, right: TableRow, metric: str, combine: Callable[[Sequence[Any]], Any]
) -> Effect | None:
    """Compare two rows in the seeds that both have, question by question.

    The interval is narrower than those of the two rows suggest.
    """
    by_seed = []
    for seed, metrics in left.measured.items():
        others = right.measured.get(seed, {})
        if metric in metrics and metric in others:
            by_seed.append([metrics[metric], others[metric]])
    return effect(by_seed, combine) if by_seed else None


def _difference(left: TableRow, right: TableRow) -> Effect | None:
    return _compared(left, right, "rouge1", lambda terms: terms[0] - terms[1])


def _bars(effects: Collection[Effect]) -> list[list[float]]:
    """Lengths of the bars below and above; NaN, which draws nothing, without an interval.

    Rounding may make a length negative, which matplotlib refuses.
    """
    below = [max(effect.value - effect.low, 0.0) for effect in effects]
    above = [max(effect.high - effect.value, 0.0) for effect in effects]
    return [below, above]


def _beside(
    axes: Any,
    ours: Sequence[Effect | None],
    papers: Sequence[float | None],
    labels: Sequence[str],
) -> None:
    """A row of the picture for each label: ours, and the paper's just below it."""
    effects = {place - 0.12: effect for place, effect in enumerate(ours) if effect is not None}
    values = [effect.value for effect in effects.values()]
    bars = _bars(effects.values())
    axes.errorbar(values, list(effects), xerr=bars, linestyle="none", zorder=3, **OURS)
    known = {place + 0.12: value for place, value in enumerate(papers) if value is not None}
    axes.plot(list(known.values()), list(known), linestyle="none", zorder=3, **PAPER)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


# ---------------------------------------------------------------- one function a table


def _retained(table: Table, figure: Any) -> None:
    """Table 1: the share of an exam's score that is left after CPT, for both models."""
    columns = table.spec.all_columns
    exams = {exam: column.title for exam, column in columns.items() if exam != "domain"}
    pairs = {
        size: (table.rows[f"{size}_cpt"], table.rows[f"{size}_base"])
        for size in ("target", "draft")
    }
    shares: dict[str, list[Effect | None]] = {}
    for size, (after, before) in pairs.items():
        shares[size] = [_compared(after, before, exam, _percent_left) for exam in exams]
    if not any(share for of_size in shares.values() for share in of_size):
        return
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (size, (after, before)) in zip(panels, pairs.items()):
        papers = [100 * after.paper[exam] / before.paper[exam] for exam in exams]
        _beside(axes, shares[size], papers, list(exams.values()))
        axes.set_title(f"{size}: {before.label}")
        axes.set_xlabel("left after CPT (% of the base's score)\nbars: 95 %")
        axes.axvline(100, **RULE)
    axes.legend(loc="best")


def _percent_left(terms: Sequence[Any]) -> Any:
    return 100 * terms[0] / terms[1]


def _chains(table: Table, figure: Any) -> None:
    """Table 2: what each chain adds to stage-2 SFT alone, in points of Rouge-1.

    Levels differ too much for ours and the paper's to share an axis.
    """
    base = table.rows["sft2"]
    rows = [row for key, row in table.rows.items() if key != "sft2"]
    ours = [_difference(row, base) for row in rows]
    if not any(ours):
        return
    axes = figure.subplots()
    papers = [row.paper["rouge1"] - base.paper["rouge1"] if row.paper else None for row in rows]
    _beside(axes, ours, papers, [fill(row.label, 46) for row in rows])
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set_xlabel(
        "Rouge-1 minus that of stage-2 SFT alone (points)\nbars: 95 % of the difference"
    )
    axes.axvline(0, **RULE)
    axes.legend(loc="best")


def _distilled(table: Table, figure: Any) -> None:
    """Table 3: what distillation adds to the undistilled draft, by alpha and by tau.

    (0.5, 2) stands in both panels.
    """
    base = table.rows["undistilled"]
    panels: dict[str, list[TableRow]] = {"alpha": [], "tau": []}
    for key, row in table.rows.items():
        if key.startswith("alpha"):
            panels["alpha"].append(row)
        if key.startswith("tau") or key == "alpha_05":
            panels["tau"].append(row)
    if not any(_difference(row, base) for rows in panels.values() for row in rows):
        return
    fixed_in = {"alpha": "tau", "tau": "alpha"}
    for axes, swept in zip(figure.subplots(1, 2, sharey=True), panels):
        by_value = {float(row.settings[swept]): row for row in panels[swept] if row.settings}
        rows = dict(sorted(by_value.items()))
        _sweep(axes, rows, base)
        fixed = fixed_in[swept]
        values = dict.fromkeys(row.settings[fixed] for row in rows.values())
        axes.set_xlabel(f"{swept} ({fixed} = {', '.join(values)})")
    figure.axes[0].set_ylabel("Rouge-1 minus the undistilled\ndraft's (points)")
    figure.axes[1].legend(loc="best")
    figure.supxlabel("bars: 95 % of the difference", fontsize=8)


def _sweep(axes: Any, rows: dict[float, TableRow], base: TableRow) -> None:
    """One panel: Rouge-1 above the undistilled draft's at each swept value."""
    differences = {x: _difference(row, base) for x, row in rows.items()}
    ours = {x: effect for x, effect in differences.items() if effect}
    values = [effect.value for effect in ours.values()]
    bars = {"yerr": _bars(ours.values()), "linewidth": 0.8, "zorder": 3}
    axes.errorbar(list(ours), values, **bars, **OURS)
    papers = [row.paper["rouge1"] - base.paper["rouge1"] for row in rows.values()]
    axes.plot(list(rows), papers, linestyle=":", linewidth=0.8, zorder=2, **PAPER)
    axes.set_xticks(list(rows), [f"{x:g}" for x in rows])
    axes.axhline(0, **RULE)


MARKERS = {
    "undistilled": ("black", "P"),
    "alpha_02": (BLUE, "v"),
    "alpha_05": (RED, "*"),
    "alpha_08": (BLUE, "^"),
    "tau_1": (GREEN, "<"),
    "tau_3": (GREEN, ">"),
}


def _accepted(table: Table, figure: Any) -> None:
    """Table 4: speed against acceptance, ours with what theory expects; the paper's beside it.

    Instruct accepts so much less that the other rows would be one point beside it: the axis labels
    give its numbers.
    """
    drawn = {key: table.rows[key] for key in MARKERS}
    measured = {
        key: row
        for key, row in drawn.items()
        if _has(row, "acceptance_rate_per_position", "speedup")
    }
    if not measured:
        return
    left, right = figure.subplots(1, 2)
    for key, row in drawn.items():
        if key in measured:
            x, y = _own(row, "acceptance_rate_per_position"), _own(row, "speedup")
            bars = {"xerr": _bars([x]), "yerr": _bars([y]), "elinewidth": 0.6}
            left.errorbar([x.value], [y.value], **bars, **_look(key))
        x_paper, y_paper = row.paper["acceptance_rate_per_position"], row.paper["speedup"]
        label = key.replace("_0", " 0.").replace("_", " ")
        right.plot([x_paper], [y_paper], label=label, **_look(key))
    with_costs = [row for row in measured.values() if _has(row, "draft_cost", "verify_cost", "n")]
    expected = _expected(left, with_costs)
    instruct = table.rows["instruct"]
    _describe(left, f"ours{expected}", "; bars: 95 %", instruct.values)
    _describe(right, "paper", "", instruct.paper)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center")


def _look(key: str) -> dict[str, Any]:
    colour, marker = MARKERS[key]
    size = 8 if marker == "*" else 6
    shape = {"color": colour, "marker": marker, "markersize": size}
    return {**shape, "linestyle": "none", "zorder": 3}


def _describe(axes: Any, title: str, bars: str, instruct: Mapping[str, Any]) -> None:
    axes.set_title(title)
    axes.set_xlabel(f"acceptance rate (%){bars}{_instruct(instruct)}")
    axes.set_ylabel("speedup (x)")
    axes.axhline(1, **RULE)


def _instruct(values: Mapping[str, Any]) -> str:
    if not {"acceptance_rate_per_position", "speedup"} <= values.keys():
        return ""
    rate, speedup = values["acceptance_rate_per_position"], values["speedup"]
    return f"\nInstruct: {rate:.1f} %, {speedup:.2f}x"


def _expected(axes: Any, rows: Sequence[TableRow]) -> str:
    """Draw E(a, n) / (n c + v) over the measured acceptance rates, at the rows' median costs.

    Returns:
        What the title says of the line; empty without rows.
    """
    if not rows:
        return ""
    n, c, v = (
        median(row.values[metric] for row in rows) for metric in ("n", "draft_cost", "verify_cost")
    )
    measured = [row.values["acceptance_rate_per_position"] for row in rows]
    low, high = max(0, min(measured) - 3), min(100, max(measured) + 3)
    rates = [low + (high - low) * step / 50 for step in range(51)]
    speedups = [predicted_speedup(rate / 100, int(n), c, v) for rate in rates]
    axes.plot(rates, speedups, color=GREY, linewidth=1, zorder=1)
    return f", and expected at c = {c:.2f}, v = {v:.2f}"


def _speedups(table: Table, figure: Any) -> None:
    """Tables 5 and 6: how much faster than autoregression each way of decoding is."""
    rows = list(table.rows.values())
    ours = [_own(row, "speedup") if _has(row, "speedup") else None for row in rows]
    if not any(ours):
        return
    axes = figure.subplots()
    labels = []
    for row in rows:
        settings = [f"{key} = {value}" for key, value in row.settings.items() if value != "-"]
        labels.append(", ".join([row.label, *settings]))
    _beside(axes, ours, [row.paper.get("speedup") for row in rows], labels)
    axes.set_xlabel("speedup over autoregression (x); bars: 95 %")
    axes.axvline(1, **RULE)
    axes.legend(loc="best")


SIZES = {"large": BLUE, "medium": GREEN, "small": RED}
REPLAYS: dict[str, dict[str, Any]] = {
    "0": {"linestyle": "-", "marker": "o"},
    "0.25": {"linestyle": ":", "marker": "s", "markerfacecolor": "white"},
}


def _frontier(table: Table, figure: Any) -> None:
    """Retention: general against domain knowledge.

    From each base a line for each share of replay, towards higher learning rates.
    """
    rows = [row for row in table.rows.values() if _has(row, "average", "domain")]
    if not any(row.settings["replay"] != "-" for row in rows):
        return
    axes = figure.subplots()
    for size, colour in SIZES.items():
        _frontier_of_size(axes, size, colour, [row for row in rows if row.settings["size"] == size])
    axes.set(xlabel="domain exam (%); bars: 95 %", ylabel="general exams, average (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")


def _frontier_of_size(axes: Any, size: str, colour: str, rows: Sequence[TableRow]) -> None:
    base = [row for row in rows if row.settings["replay"] == "-"]
    for replay, style in REPLAYS.items():
        curve = [row for row in rows if row.settings["replay"] == replay]
        curve.sort(key=lambda row: float(row.settings["lr"]))
        if curve:
            label = f"{size}, replay {100 * float(replay):g} %"
            _walk(axes, base + curve, {**style, "color": colour, "markersize": 4, "label": label})
    if base:
        star = {"linestyle": "none", "marker": "*", "markersize": 10}
        _walk(axes, base, {**star, "color": colour, "label": f"{size}, base"})


def _walk(axes: Any, rows: Sequence[TableRow], look: dict[str, Any]) -> None:
    x = [_own(row, "domain") for row in rows]
    y = [_own(row, "average") for row in rows]
    bars = {"xerr": _bars(x), "yerr": _bars(y), "elinewidth": 0.5, "linewidth": 0.9}
    axes.errorbar([point.value for point in x], [point.value for point in y], **bars, **look)


PICTURES: dict[str, Callable[[Table, Any], None]] = {
    "table1": _retained,
    "table2": _chains,
    "table3": _distilled,
    "table4": _accepted,
    "table5": _speedups,
    "table6": _speedups,
    "retention": _frontier,
}
