"""Draw the picture of a table with matplotlib: ours with its 95 % interval, the paper's beside.

Knows pictures, not what they mean. Matplotlib is imported by the function that draws, so that
reading stays quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from soaes.report.pictures import Look, Panel, Picture, Series, Value, picture
from soaes.report.results import Table

# colours that colour-blind readers can tell apart (Okabe and Ito); markers differ too
COLOURS = {
    "blue": "#0072B2",
    "red": "#D55E00",
    "green": "#009E73",
    "grey": "#777777",
    "black": "black",
}
MARKERS = {
    "": "",
    "circle": "o",
    "square": "s",
    "star": "*",
    "plus": "P",
    "down": "v",
    "up": "^",
    "left": "<",
    "right": ">",
}
SIZES = {"circle": 5, "square": 5, "star": 9}  # of markers, in points; 6 for any other
LINES = {"": "none", "solid": "-", "dotted": ":"}
RULE = {"color": COLOURS["grey"], "linewidth": 0.8, "linestyle": "--", "zorder": 0}
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
OFFSET = 0.12  # of ours above its category and the paper's below


def draw(tables: Mapping[str, Table], name: str, folder: Path) -> Path | None:
    """Write folder/NAME.png, 7 x 3.2 inches at 150 dpi. The same table gives the same bytes.

    Args:
        tables: The table, by name.
        name: The table's name.
        folder: Where the picture goes.

    Returns:
        The picture; None for a table that has no picture or none of whose cells is there.
    """
    panels = picture(tables[name], name)
    if not panels:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2), dpi=150, layout="constrained")
        _draw_panels(figure, panels)
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return folder / f"{name}.png"


def _draw_panels(figure: Any, panels: Picture) -> None:
    """Draw panels side by side, with one legend: inside the last if few series need one."""
    have_categories = bool(panels[0].categories)
    labels = [panel.y_label for panel in panels]
    shares_y = have_categories or bool(panels[0].x_ticks)
    grid = figure.subplots(1, len(panels), squeeze=False, sharex=have_categories, sharey=shares_y)
    for index, (axes, panel) in enumerate(zip(grid[0], panels, strict=True)):
        _draw_panel(axes, panel)
        if index == 0 or not shares_y:
            axes.set_ylabel(labels[index])
    handles, names = grid[0][-1].get_legend_handles_labels()
    if len(names) > 2:
        figure.legend(handles, names, loc="outside right center")
    else:
        grid[0][-1].legend(loc="best")


def _draw_panel(axes: Any, panel: Panel) -> None:
    for index, series in enumerate(panel.series):
        offset = OFFSET * (2 * index - 1) if panel.categories else 0.0
        _draw_series(axes, series, offset)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    if panel.x_rule is not None:
        axes.axvline(panel.x_rule, **RULE)
    if panel.y_rule is not None:
        axes.axhline(panel.y_rule, **RULE)
    if panel.categories:
        names = [fill(name, 46) for name in panel.categories]
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", labelsize=7.5)
    if panel.x_ticks:
        axes.set_xticks(panel.x_ticks, [f"{tick:g}" for tick in panel.x_ticks])


def _draw_series(axes: Any, series: Series, offset: float) -> None:
    x = [point.x for point in series.points]
    y = [point.y for point in series.points]
    values_x = [value.value for value in x]
    values_y = [value.value + offset for value in y]
    bars = {"xerr": _bars(x), "yerr": _bars(y), "capsize": 2, "elinewidth": 0.8}
    axes.errorbar(values_x, values_y, label=series.name, zorder=3, **bars, **_style(series.look))


def _style(look: Look) -> dict[str, Any]:
    colour = COLOURS[look.colour]
    style = {
        "color": colour,
        "marker": MARKERS[look.marker],
        "markersize": SIZES.get(look.marker, 6),
        "linestyle": LINES[look.line],
        "linewidth": 0.8,
    }
    if look.hollow:
        style["markerfacecolor"] = "white"
    return style


def _bars(values: Sequence[Value]) -> list[list[float]] | None:
    """Lengths of the bars below and above; None where no value has an interval.

    Rounding may make a length negative, which matplotlib refuses.
    """
    if all(value.low is None or value.high is None for value in values):
        return None
    below, above = [], []
    for value in values:
        low = value.value if value.low is None else value.low
        high = value.value if value.high is None else value.high
        below.append(max(value.value - low, 0.0))
        above.append(max(high - value.value, 0.0))
    return [below, above]
