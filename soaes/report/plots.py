"""Draw a table where a picture says more than its numbers: ours with its 95 % interval, the paper's value beside it.

Knows tables as they were read, not the store. Matplotlib is imported by the function that draws, so that reading stays quick."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import nan
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from soaes.metrics.acceptance import predicted_speedup
from soaes.metrics.bootstrap import Effect, effect
from soaes.report.results import Table, TableRow, is_number

BLUE, RED, GREEN, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#777777",
)  # told apart by colour-blind readers (Okabe and Ito), and by marker
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


def draw(tables: dict[str, Table], name: str, folder: Path) -> Path | None:
    """folder/NAME.png, 7 x 3.2 inches at 150 dpi; None for a table that has no picture or none of whose cells is there.

    The same table gives the same bytes."""
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


def _has(line: TableRow, *metrics: str) -> bool:
    return all(is_number(line.values.get(metric)) for metric in metrics)


def _own(line: TableRow, metric: str) -> Effect:
    return Effect(line.values[metric], *line.intervals.get(metric, (nan, nan)), len(line.measured))


def _compared(one: TableRow, other: TableRow, metric: str, combine: Callable) -> Effect | None:
    """Two rows in the seeds that both have, question by question: an interval of its own, narrower than the rows' two would suggest."""
    both = [
        [line.measured[seed][metric] for line in (one, other)]
        for seed in one.measured
        if metric in one.measured[seed] and metric in other.measured.get(seed, {})
    ]
    return effect(both, combine) if both else None


def _difference(one: TableRow, other: TableRow) -> Effect | None:
    return _compared(one, other, "rouge1", lambda terms: terms[0] - terms[1])


def _bars(effects: Collection[Effect]) -> list[list[float]]:
    """Lengths below and above; NaN, which draws nothing, where there is no interval. Rounding may pass zero, which matplotlib refuses."""
    return [
        [max(one.value - one.low, 0.0) for one in effects],
        [max(one.high - one.value, 0.0) for one in effects],
    ]


def _beside(
    axes: Any, ours: list[Effect | None], papers: list[float | None], labels: list[str]
) -> None:
    """A row of the picture for each label: ours, and the paper's just below it."""
    there = {place - 0.12: one for place, one in enumerate(ours) if one is not None}
    axes.errorbar(
        [one.value for one in there.values()],
        list(there),
        xerr=_bars(there.values()),
        linestyle="none",
        zorder=3,
        **OURS,
    )
    known = {place + 0.12: one for place, one in enumerate(papers) if one is not None}
    axes.plot(list(known.values()), list(known), linestyle="none", zorder=3, **PAPER)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


# ---------------------------------------------------------------- one function a table


def _retained(table: Table, figure: Any) -> None:
    """Table 1: the share of an exam's score that is left after CPT, for both models."""
    exams = {exam: about["title"] for exam, about in table.columns.items() if exam != "domain"}
    pairs = {
        size: (table.lines[f"{size}_cpt"], table.lines[f"{size}_base"])
        for size in ("target", "draft")
    }
    ours = {
        size: [_compared(*pair, exam, lambda terms: 100 * terms[0] / terms[1]) for exam in exams]
        for size, pair in pairs.items()
    }
    if not any(one for shares in ours.values() for one in shares):
        return
    for axes, (size, (after, before)) in zip(
        figure.subplots(1, 2, sharex=True, sharey=True), pairs.items()
    ):
        _beside(
            axes,
            ours[size],
            [100 * after.paper[exam] / before.paper[exam] for exam in exams],
            list(exams.values()),
        )
        axes.set(
            title=f"{size}: {before.label}",
            xlabel="left after CPT (% of the base's score)\nbars: 95 %",
        )
        axes.axvline(100, **RULE)
    axes.legend(loc="best")


def _chains(table: Table, figure: Any) -> None:
    """Table 2: what each chain adds to stage-2 SFT alone, in points of Rouge-1: levels differ too much to share an axis with the paper."""
    base, lines = table.lines["sft2"], [line for key, line in table.lines.items() if key != "sft2"]
    ours = [_difference(line, base) for line in lines]
    if not any(ours):
        return
    axes = figure.subplots()
    papers = [line.paper["rouge1"] - base.paper["rouge1"] if line.paper else None for line in lines]
    _beside(axes, ours, papers, [fill(line.label, 46) for line in lines])
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set_xlabel(
        "Rouge-1 minus that of stage-2 SFT alone (points)\nbars: 95 % of the difference"
    )
    axes.axvline(0, **RULE)
    axes.legend(loc="best")


def _distilled(table: Table, figure: Any) -> None:
    """Table 3: what distillation adds to the undistilled draft, by alpha and by tau; (0.5, 2) stands in both."""
    base = table.lines["undistilled"]
    shown = {key: line for key, line in table.lines.items() if not line.aside}
    panels = {
        "alpha": [line for key, line in shown.items() if key.startswith("alpha")],
        "tau": [line for key, line in shown.items() if key.startswith("tau") or key == "alpha_05"],
    }
    if not any(_difference(line, base) for lines in panels.values() for line in lines):
        return
    for axes, swept, fixed in zip(
        figure.subplots(1, 2, sharey=True), ("alpha", "tau"), ("tau", "alpha")
    ):
        placed = sorted(
            (float(line.settings[swept]), line) for line in panels[swept] if line.settings
        )
        _sweep(axes, dict(placed), base)
        axes.set_xlabel(
            f"{swept} ({fixed} = {', '.join({line.settings[fixed]: None for _, line in placed})})"
        )
    figure.axes[0].set_ylabel("Rouge-1 minus the undistilled\ndraft's (points)")
    figure.axes[1].legend(loc="best")
    figure.supxlabel("bars: 95 % of the difference", fontsize=8)


def _sweep(axes: Any, lines: dict[float, TableRow], base: TableRow) -> None:
    """One panel: Rouge-1 above the undistilled draft's at each value of what is swept, ours and the paper's."""
    ours = {x: found for x, line in lines.items() if (found := _difference(line, base))}
    axes.errorbar(
        list(ours),
        [one.value for one in ours.values()],
        yerr=_bars(ours.values()),
        linewidth=0.8,
        zorder=3,
        **OURS,
    )
    axes.plot(
        list(lines),
        [line.paper["rouge1"] - base.paper["rouge1"] for line in lines.values()],
        linestyle=":",
        linewidth=0.8,
        zorder=2,
        **PAPER,
    )
    axes.set_xticks(list(lines), [f"{x:g}" for x in lines])
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
    """Table 4: speed against acceptance, ours with what theory expects of it; the paper's in a panel of its own.

    Instruct accepts so much less that beside it the others would be one point: it is told in words."""
    lines = {key: table.lines[key] for key in MARKERS}
    ours = [
        line for line in lines.values() if _has(line, "acceptance_rate_per_position", "speedup")
    ]
    if not ours:
        return
    left, right = figure.subplots(1, 2)
    for key, line in lines.items():
        colour, marker = MARKERS[key]
        look = {
            "color": colour,
            "marker": marker,
            "markersize": 8 if marker == "*" else 6,
            "linestyle": "none",
            "zorder": 3,
        }
        if line in ours:
            x, y = _own(line, "acceptance_rate_per_position"), _own(line, "speedup")
            left.errorbar(
                [x.value], [y.value], xerr=_bars([x]), yerr=_bars([y]), elinewidth=0.6, **look
            )
        right.plot(
            [line.paper["acceptance_rate_per_position"]],
            [line.paper["speedup"]],
            label=key.replace("_0", " 0.").replace("_", " "),
            **look,
        )
    expected = _expected(
        left, [line for line in ours if _has(line, "draft_cost", "verify_cost", "n")]
    )
    instruct = table.lines["instruct"]
    for axes, title, bars, values in (
        (left, f"ours{expected}", "; bars: 95 %", instruct.values),
        (right, "paper", "", instruct.paper),
    ):
        axes.set(
            title=title,
            xlabel=f"acceptance rate (%){bars}{_instruct(values)}",
            ylabel="speedup (x)",
        )
        axes.axhline(1, **RULE)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center")


def _instruct(values: dict[str, Any]) -> str:
    return (
        f"\nInstruct: {values['acceptance_rate_per_position']:.1f} %, {values['speedup']:.2f}x"
        if {"acceptance_rate_per_position", "speedup"} <= values.keys()
        else ""
    )


def _expected(axes: Any, lines: list[TableRow]) -> str:
    """Draw E(a, n) / (n c + v) over the measured acceptance rates, at the rows' median costs; what the title says of it."""
    if not lines:
        return ""
    n, c, v = (
        median(line.values[key] for line in lines) for key in ("n", "draft_cost", "verify_cost")
    )
    measured = [line.values["acceptance_rate_per_position"] for line in lines]
    low, high = max(0, min(measured) - 3), min(100, max(measured) + 3)
    rates = [low + (high - low) * step / 50 for step in range(51)]
    axes.plot(
        rates,
        [predicted_speedup(rate / 100, int(n), c, v) for rate in rates],
        color=GREY,
        linewidth=1,
        zorder=1,
    )
    return f", and expected at c = {c:.2f}, v = {v:.2f}"


def _speedups(table: Table, figure: Any) -> None:
    """Tables 5 and 6: how much faster than autoregression each way of decoding is."""
    lines = list(table.lines.values())
    ours = [_own(line, "speedup") if _has(line, "speedup") else None for line in lines]
    if not any(ours):
        return
    axes = figure.subplots()
    labels = [
        ", ".join(
            [
                line.label,
                *(f"{key} = {value}" for key, value in line.settings.items() if value != "-"),
            ]
        )
        for line in lines
    ]
    _beside(axes, ours, [line.paper.get("speedup") for line in lines], labels)
    axes.set_xlabel("speedup over autoregression (x); bars: 95 %")
    axes.axvline(1, **RULE)
    axes.legend(loc="best")


SIZES = {"large": BLUE, "medium": GREEN, "small": RED}


def _frontier(table: Table, figure: Any) -> None:
    """Retention: general against domain knowledge; from each base a line per share of replay, towards higher learning rates."""
    lines = [line for line in table.lines.values() if _has(line, "average", "domain")]
    if not any(line.settings["replay"] != "-" for line in lines):
        return
    axes = figure.subplots()
    for size, colour in SIZES.items():
        of_size = [line for line in lines if line.settings["size"] == size]
        base = [line for line in of_size if line.settings["replay"] == "-"]
        for replay, look in (
            ("0", {"linestyle": "-", "marker": "o"}),
            ("0.25", {"linestyle": ":", "marker": "s", "markerfacecolor": "white"}),
        ):
            way = sorted(
                (line for line in of_size if line.settings["replay"] == replay),
                key=lambda line: float(line.settings["lr"]),
            )
            if way:
                _walk(
                    axes,
                    base + way,
                    {
                        **look,
                        "color": colour,
                        "markersize": 4,
                        "label": f"{size}, replay {100 * float(replay):g} %",
                    },
                )
        if base:
            _walk(
                axes,
                base,
                {
                    "color": colour,
                    "linestyle": "none",
                    "marker": "*",
                    "markersize": 10,
                    "label": f"{size}, base",
                },
            )
    axes.set(xlabel="domain exam (%); bars: 95 %", ylabel="general exams, average (%)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")


def _walk(axes: Any, lines: list[TableRow], look: dict[str, Any]) -> None:
    x, y = ([_own(line, metric) for line in lines] for metric in ("domain", "average"))
    axes.errorbar(
        [one.value for one in x],
        [one.value for one in y],
        xerr=_bars(x),
        yerr=_bars(y),
        elinewidth=0.5,
        linewidth=0.9,
        **look,
    )


PICTURES = {
    "table1": _retained,
    "table2": _chains,
    "table3": _distilled,
    "table4": _accepted,
    "table5": _speedups,
    "table6": _speedups,
    "retention": _frontier,
}
