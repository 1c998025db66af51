"""Tables and verdicts in a terminal: fitted to its width, a line for each row and each claim.

What does not fit is counted; the Markdown files and the page have all of it. A title stands in its
table's header, tables that share their settings stand side by side, and a baseline that several
tables repeat stands in the last. Knows the values of cells, not how they were measured.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from soaes.decode.settings import AutoregressiveSettings
from soaes.metrics.bootstrap import Effect
from soaes.pipeline.store import Store
from soaes.report.claims import NOT_MEASURED, ClaimResult, judge
from soaes.report.layout import GAP, clip, counted, display_width, pad, styled, wrap
from soaes.report.markdown import cell_text, notes, number_text, origin_lines, signed_text
from soaes.report.results import Table, TableRow
from soaes.report.table_spec import ClaimSpec, ColumnSpec, TableSpec

INDENT = "  "
PAPER = "paper"

# Verdict -> its mark, the mark's style, and the verdict of several claims
MARKS = {
    "holds": ("✓", "green", "held"),
    "fails": ("✗", "red", "failed"),
    "undecided": ("~", "yellow", "undecided"),
    NOT_MEASURED: ("·", "dim", NOT_MEASURED),
}

SHORT_STEPS = {
    "stage-1&2 joint SFT": "joint SFT",
    "stage-1 SFT": "SFT-1",
    "stage-2 SFT": "SFT-2",
    "distillation": "distil.",
}

FINER_UNITS = 3  # of a decimal; one that every interval is wider than is not shown
MIN_LABEL = 20  # columns that a row's label is cut to at most, to leave room for a number
MIN_CLAIM = 20  # columns that a claim's text is wrapped to at least
MIN_WIDTH = 60  # columns; a narrower terminal wraps


# ---------------------------------------------------------------- columns


@dataclass(frozen=True)
class Column:
    """A column as it is printed: its cells are as wide as its title."""

    title: str
    cells: tuple[str, ...]
    style: str = ""

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes, with the gap before it."""
        return len(GAP) + display_width(self.title)


@dataclass(frozen=True)
class Metric:
    """A metric of a table: our column, and the paper's beside it if the paper has any value."""

    name: str  # its title, in full
    columns: tuple[Column, ...]
    rank: tuple[int, int]  # the lowest is shown first


@dataclass(frozen=True)
class Block:
    """A table, or several that share their settings."""

    title: str
    labels: tuple[str, ...]
    settings: tuple[Column, ...]
    metrics: tuple[Metric, ...]


@dataclass(frozen=True)
class Fitted:
    """A block as lines of the terminal, and what they lack."""

    lines: list[str]
    left_out: list[str]  # titles of columns


def _text_column(title: str, cells: Sequence[str], style: str = "") -> Column:
    """Align numbers at their end."""
    width = max(map(display_width, [title, *cells]))
    padded = tuple(pad(cell, width, "right") for cell in cells)
    return Column(pad(title, width, "right"), padded, style)


def _interval_column(title: str, cells: Sequence[str]) -> Column:
    """Align `45.85 ±4.56` at the sign of the interval; words stand where the column begins."""
    parts = [cell.partition(" ±") for cell in cells]
    numbers = [number for number, _, _ in parts if number[-1:].isdigit()]
    number_width = max(map(display_width, numbers), default=0)
    aligned = []
    for number, sign, half in parts:
        shown = pad(number, number_width, "right") if number in numbers else number
        aligned.append(shown + sign + half)
    width = max(map(display_width, [title, *aligned]))
    return Column(pad(title, width), tuple(pad(cell, width) for cell in aligned))


# ---------------------------------------------------------------- blocks

JoinedRow = dict[str, TableRow]  # table -> the row, of one label and settings


def blocks(tables: Mapping[str, Table], names: Sequence[str]) -> list[Block]:
    """Arrange tables to be shown: consecutive ones of the same settings become one block.

    Args:
        tables: The tables that were read.
        names: Those to show, in order.
    """
    repeated = _repeated_baselines(tables, names)

    def settings(name: str) -> tuple[str, ...]:
        own = tuple(tables[name].spec.settings)
        return own or (name,)  # without settings a row is told by its label alone: never joined

    arranged = []
    for _, of_block in groupby(names, key=settings):
        joined = list(of_block)
        rows = _joined_rows(tables, joined, repeated)
        specs = [tables[name].spec for name in joined]
        metrics: list[Metric] = []
        for name, spec in zip(joined, specs, strict=True):
            own_rows = [row.get(name) for row in rows]
            metrics += _metrics(own_rows, spec.columns, _ranks(spec))
        title = ", ".join(spec.short or spec.title for spec in specs)
        arranged.append(_block(title, rows, metrics))
    return arranged


def breakdown(table: Table) -> Block:
    """Arrange the second table of a table: where the speed comes from."""
    specs, columns = table.spec.rows, table.spec.breakdown
    rows = [row for key, row in table.rows.items() if specs[key].sweeps]
    ranks = {metric: (0, index) for index, metric in enumerate(columns)}
    metrics = list(_metrics(rows, columns, ranks))
    return _block("where the speed comes from", [{"": row} for row in rows], metrics)


def _joined_rows(
    tables: Mapping[str, Table], names: Sequence[str], repeated: set[tuple[str, str]]
) -> list[JoinedRow]:
    """Join the rows of one label and settings; the paper's own and repeated ones are left out."""
    rows: dict[tuple[str, ...], JoinedRow] = {}
    for name in names:
        seen: Counter[tuple[str, ...]] = Counter()
        for key, row in tables[name].rows.items():
            if not tables[name].spec.rows[key].sweeps or (name, key) in repeated:
                continue
            shown = (row.label, *row.settings.values())
            seen[shown] += 1  # two rows of one table stay two
            rows.setdefault((*shown, str(seen[shown])), {})[name] = row
    return list(rows.values())


def _block(title: str, rows: Sequence[JoinedRow], metrics: Sequence[Metric]) -> Block:
    first = [next(iter(row.values())) for row in rows]
    settings = []
    for setting in dict.fromkeys(key for row in first for key in row.settings):
        cells = [row.settings.get(setting, "-") for row in first]
        settings.append(_text_column(setting, cells))
    labels = [INDENT + _short_label(row.label) for row in first]
    return Block(title, tuple(labels), tuple(settings), tuple(metrics))


def _repeated_baselines(tables: Mapping[str, Table], names: Sequence[str]) -> set[tuple[str, str]]:
    """Find the rows of autoregression that stand in a later table too, as (table, row)."""
    repeated, later = set(), set()
    for name in reversed(names):
        goals = {}
        for key, row in tables[name].rows.items():
            if _is_autoregression(row):
                goals[key] = frozenset(goal.name for goal in row.goals)
        repeated |= {(name, key) for key, of_row in goals.items() if of_row in later}
        later |= set(goals.values())
    return repeated


def _is_autoregression(row: TableRow) -> bool:
    decoders = [goal.arguments.get("decode") for goal in row.goals]
    targets = [decoder["_target_"] for decoder in decoders if isinstance(decoder, dict)]
    ours = [target.endswith(f".{AutoregressiveSettings.__name__}") for target in targets]
    return bool(ours) and len(ours) == len(decoders) and all(ours)


def _short_label(label: str) -> str:
    for step, short in SHORT_STEPS.items():
        label = label.replace(step, short)
    return label


def _metrics(
    rows: Sequence[TableRow | None],
    columns: Mapping[str, ColumnSpec],
    ranks: Mapping[str, tuple[int, int]],
) -> Iterator[Metric]:
    for metric, spec in columns.items():
        digits = _digits(spec, metric, rows)
        cells = ["-" if row is None else cell_text(row, metric, digits) for row in rows]
        shown = [_interval_column(spec.short or spec.title, cells)]
        paper = [row.paper.get(metric) if row else None for row in rows]
        if any(value is not None for value in paper):
            texts = [number_text(value, digits) for value in paper]
            shown.append(_text_column(PAPER, texts, "dim"))
        yield Metric(spec.title, tuple(shown), ranks[metric])


def _ranks(spec: TableSpec) -> dict[str, tuple[int, int]]:
    """Rank metrics: what claims are judged by, what they are judged by beside, then the others."""
    metrics = list(spec.columns)
    claims = spec.claims.values()
    judged = {metric for claim in claims for metric in _metrics_of(claim)}
    beside = {metric for claim in claims for metric in claim.also}
    ranks = {}
    for index, metric in enumerate(metrics):
        group = 0 if metric in judged else 1 if metric in beside else 2
        ranks[metric] = (group, index)
    return ranks


def _metrics_of(claim: ClaimSpec) -> set[str]:
    return {cell.metric for pair in claim.pairs for cell in pair.cells}


def _digits(spec: ColumnSpec, metric: str, rows: Sequence[TableRow | None]) -> int:
    """Leave out a last decimal that every interval of the column is much wider than."""
    widths = []
    for row in rows:
        if row is not None and metric in row.intervals:
            low, high = row.intervals[metric]
            if high > low:
                widths.append((high - low) / 2)
    coarser = spec.digits - 1
    if widths and coarser >= 0 and min(widths) >= FINER_UNITS * 10**-coarser:
        return coarser
    return spec.digits


# ---------------------------------------------------------------- a block, fitted


def fit(block: Block, width: int) -> Fitted:
    """Lay a block out in a width: metrics by rank, each with the paper's values if these fit.

    Args:
        block: What is to be shown.
        width: Columns of the terminal.
    """
    width = max(width, MIN_WIDTH)
    label_width = max(map(display_width, [block.title, *block.labels]))
    fixed = sum(column.width for column in block.settings)
    first = min(block.metrics, key=lambda metric: metric.rank)
    least = first.columns[0].width
    marker_width = len(GAP) + len("+99")
    room = width - fixed - label_width - marker_width
    if room < least:
        label_width = max(MIN_LABEL, label_width - (least - room))
        room = width - fixed - label_width - marker_width
    shown = _chosen(block.metrics, room)
    columns = [*block.settings]
    left_out = []
    for index, metric in enumerate(block.metrics):
        columns += metric.columns[: shown[index]]
        hidden = metric.columns[shown[index] :]
        if hidden == metric.columns:
            left_out.append(metric.name)
        elif hidden:
            left_out.append(f"{metric.name} in the paper")
    title = pad(clip(block.title, label_width), label_width)
    header = [styled(title, "bold")]
    header += [styled(column.title, column.style or "bold") for column in columns]
    if left_out:
        header.append(styled(f"+{len(left_out)}", "dim"))
    lines = [GAP.join(header).rstrip()]
    for index, label in enumerate(block.labels):
        cells = [pad(_clip_steps(label, label_width), label_width)]
        cells += [styled(column.cells[index], column.style) for column in columns]
        lines.append(GAP.join(cells).rstrip())
    return Fitted(lines, left_out)


def _chosen(metrics: Sequence[Metric], room: int) -> list[int]:
    """Choose how many columns of each metric are shown: none, ours, or the paper's too."""
    chosen = [0] * len(metrics)
    for index in sorted(range(len(metrics)), key=lambda index: metrics[index].rank):
        columns = metrics[index].columns
        for count in range(len(columns), 0, -1):
            width = sum(column.width for column in columns[:count])
            if width <= room:
                chosen[index] = count
                room -= width
                break
    return chosen


def _clip_steps(label: str, width: int) -> str:
    """Cut a label in front: its last steps tell it from the others."""
    steps = label.split(" + ")
    while display_width(label) > width and len(steps) > 1:
        del steps[0]
        label = " + ".join([f"{INDENT}…", *steps])
    return clip(label, width)


# ---------------------------------------------------------------- claims


def claim_lines(results: Sequence[ClaimResult], width: int, pairs: bool = False) -> list[str]:
    """Format claims: a line each with its mark, the effect of the weakest pair and the paper's.

    Args:
        results: The judged claims.
        width: Columns of the terminal.
        pairs: Whether each pair of a claim follows in a line of its own.
    """
    rows = [row for result in results for row in _claim_rows(result, pairs)]
    if not rows:
        return []
    effects = _interval_column("effect", [row.effect for row in rows])
    paper = _text_column(PAPER, [row.paper for row in rows])
    key_width = max(display_width(row.key) for row in rows)
    first_width = len("✓ ") + key_width
    needed = max(display_width(row.text) for row in rows)
    room = width - first_width - len(GAP) - effects.width - paper.width
    text_width = max(MIN_CLAIM, min(needed, room))
    counts = Counter(result.verdict for result in results)
    summary = [
        f"{mark} {counts[verdict]} {word}"
        for verdict, (mark, _, word) in MARKS.items()
        if counts[verdict]
    ]
    title_width = first_width + len(GAP) + text_width
    *above, title = wrap(f"Claims: {', '.join(summary)}", title_width, hanging=INDENT)
    header = GAP.join([pad(title, title_width), effects.title, paper.title])
    lines = [styled(line, "bold") for line in [*above, header]]
    for index, row in enumerate(rows):
        mark, style, _ = MARKS[row.verdict]
        first, *further = wrap(_fitted_text(row.text, text_width), text_width)
        cells = [
            f"{styled(mark, style)} {pad(row.key, key_width)}",
            pad(first, text_width),
            effects.cells[index],
            styled(paper.cells[index], "dim"),
        ]
        lines.append(GAP.join(cells).rstrip())
        lines += [" " * (first_width + len(GAP)) + line for line in further]
    return lines


@dataclass(frozen=True)
class _ClaimRow:
    key: str
    verdict: str
    text: str
    effect: str
    paper: str


def _claim_rows(result: ClaimResult, pairs: bool) -> Iterator[_ClaimRow]:
    weakest = result.weakest
    effect, paper = _effect_text(weakest.effect), signed_text(weakest.paper)
    yield _ClaimRow(result.claim, result.verdict, result.text, effect, paper)
    if not pairs:
        return
    for pair in result.pairs if len(result.pairs) > 1 else ():
        effect, paper = _effect_text(pair.effect), signed_text(pair.paper)
        yield _ClaimRow("", pair.verdict, pair.text, effect, paper)
    for other in result.also.values():
        pair = other.weakest
        text = f"beside the claim: {pair.text}"
        yield _ClaimRow("", other.verdict, text, _effect_text(pair.effect), "-")


def _effect_text(effect: Effect | None) -> str:
    """Format an effect as a cell: `+1.25 ±0.95`, half the width of its 95 % interval."""
    if effect is None:
        return "-"
    value = signed_text(effect.value)
    if not isfinite(effect.low):
        return value
    half = f"{(effect.high - effect.low) / 2:#.2g}".rstrip(".")
    return f"{value} ±{half}"


def _fitted_text(text: str, width: int) -> str:
    """Leave out remarks in brackets, from the first on, until a claim fits its line."""
    remarks = re.findall(r" \([^()]*\)", text)
    for remark in remarks:
        if display_width(text) <= width:
            break
        text = text.replace(remark, "", 1)
    return text


# ---------------------------------------------------------------- all tables, or some in detail


def overview(
    tables: Mapping[str, Table], names: Sequence[str], store: Store, width: int
) -> list[str]:
    """Show tables on one screen: their rows, all claims, and what is left out.

    Args:
        tables: The tables that were read.
        names: Those to show, in order.
        store: Where the rows were read, for their origin.
        width: Columns of the terminal.
    """
    lines, num_columns = [], 0
    for block in blocks(tables, names):
        fitted = fit(block, width)
        lines += fitted.lines
        num_columns += len(fitted.left_out)
    results = [result for name in names for result in judge(tables, name)]
    lines += ["", *claim_lines(results, width), ""]
    shown = [tables[name] for name in names]
    failed = [row.reason for table in shown for row in table.rows.values() if row.reason]
    for reason in dict.fromkeys(failed):
        lines += wrap(reason, width, hanging=INDENT)
    num_columns += sum(len(table.spec.breakdown) for table in shown)
    num_notes = sum(len(notes(table)) for table in shown)
    num_of_paper = sum(len(_paper_only(table)) for table in shown)
    num_repeated = len(_repeated_baselines(tables, names))
    not_shown = [
        (num_columns, "column"),
        (num_of_paper, "paper-only row"),
        (num_repeated, "repeated baseline"),
        (num_notes, "note"),
    ]
    parts = [counted(count, what) for count, what in not_shown if count]
    if parts:
        text = f"Not shown: {', '.join(parts)}; the files have all."
        lines += wrap(text, width, hanging=INDENT)
    return lines + _origin(shown, store, width)


def details(
    tables: Mapping[str, Table], names: Sequence[str], store: Store, width: int
) -> list[str]:
    """Show some tables with all that the terminal has room for: notes, breakdown, every pair.

    Args:
        tables: The tables that were read.
        names: Those to show, in order.
        store: Where the rows were read, for their origin.
        width: Columns of the terminal.
    """
    lines: list[str] = []
    for name in names:
        lines += [*_table_in_detail(tables, name, width), ""]
    return lines + _origin([tables[name] for name in names], store, width)


def _table_in_detail(tables: Mapping[str, Table], name: str, width: int) -> list[str]:
    table = tables[name]
    (block,) = blocks(tables, [name])
    fitted = fit(block, width)
    lines = [*wrap(table.spec.asks.strip(), width), "", *fitted.lines]
    left_out = fitted.left_out
    if table.spec.breakdown:
        fitted = fit(breakdown(table), width)
        lines += fitted.lines
        left_out = left_out + fitted.left_out
    if left_out:
        text = f"{counted(len(left_out), 'more column')}: {'; '.join(left_out)}"
        lines += ["", *wrap(text, width, hanging=INDENT)]
    paper_only = _paper_only(table)
    if paper_only:
        lines += wrap(f"In the paper alone: {'; '.join(paper_only)}", width, hanging=INDENT)
    for note in notes(table):
        lines += wrap(note, width, hanging=INDENT)
    claims = claim_lines(judge(tables, name), width, pairs=True)
    return [*lines, "", *claims] if claims else lines


def _paper_only(table: Table) -> list[str]:
    """Name the rows that only the paper has."""
    return [row.paper["name"] for row in table.spec.rows.values() if not row.sweeps]


def _origin(tables: Sequence[Table], store: Store, width: int) -> list[str]:
    sentences = [line.strip() for line in origin_lines(tables, store)]
    return [line for text in sentences if text for line in wrap(text, width, hanging=INDENT)]
