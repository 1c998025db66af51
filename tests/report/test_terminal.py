"""What a terminal shows fits it and is never cut in a number; what it does not show is counted."""

import io
import re

import pytest

from soaes.metrics.bootstrap import Effect, Measured
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report import layout, table_spec, terminal
from soaes.report.claims import ClaimResult, Comparison
from soaes.report.layout import display_width
from soaes.report.results import Table, TableRow

COLUMNS = {
    "rouge2": {"title": "Rouge-2", "digits": 2},
    "loss": {"title": "Loss of the references (ours)", "digits": 3, "short": "Loss"},
    "rouge1": {"title": "Rouge-1", "digits": 2},
    "entropy": {"title": "Entropy", "digits": 1},
}
CLAIM = {
    "text": "the second model answers better (by a point) than the first",
    "metric": "rouge1",
    "also": ["-loss"],
    "pairs": [{"left": "second", "right": "first"}],
}
LABELS = {
    "first": "Base 2x8 + stage-1 SFT",
    "second": "海泽大模型 + CPT + stage-1 SFT + distillation",
}


def spec(**changes):
    rows = {key: {"sweeps": {"evaluate": "toy"}, "paper": {"rouge1": 30.0}} for key in LABELS}
    toy = {"title": "Table 0: toys", "asks": "?", "columns": COLUMNS, "claims": {"T0a": CLAIM}}
    paper_only = {"absent": {"paper": {"name": "Absent", "rouge1": 9.0}}}
    return {**toy, "rows": rows | paper_only, **changes}


def row(label, goal=None, **values):
    recipes = {0: {"evaluate": goal}} if goal else {}
    return TableRow(
        label,
        settings={"tau": "2"},
        values=values,
        intervals={key: (value - 1, value + 1) for key, value in values.items()},
        paper={"rouge1": 30.0},
        missing="" if values else "not built",
        recipes=recipes,
        measured={0: {key: Measured(value) for key, value in values.items()}},
    )


def toy(labels=LABELS, **changes):
    scores = {"rouge2": 4.5, "loss": 2.25, "rouge1": 45.85, "entropy": 7.0}
    rows = {key: row(label, **scores) for key, label in labels.items()}
    absent = TableRow("Absent", paper={"rouge1": 9.0}, missing="the paper's only")
    return Table(table_spec.parse(spec(**changes)), rows | {"absent": absent})


@pytest.mark.parametrize("width", [60, 100, 200])
def test_every_line_fits_whatever_the_script(tmp_path, width):
    tables = {"table0": toy()}
    shown = terminal.overview(tables, ["table0"], Store(tmp_path), width)
    detail = terminal.details(tables, ["table0"], Store(tmp_path), width)
    assert max(map(display_width, shown + detail)) <= width
    assert sum("SFT-1" in line for line in shown) == len(LABELS)
    assert sum(line.startswith("· T0a") or line.startswith("~ T0a") for line in shown) == 1
    assert "1 paper-only row" in " ".join(shown) and "Absent" in " ".join(detail)
    assert all("Absent" not in line for line in shown)


def test_metrics_that_claims_are_judged_by_come_first_and_no_number_is_cut():
    (block,) = terminal.blocks({"table0": toy()}, ["table0"])
    narrow, wide = terminal.fit(block, 80), terminal.fit(block, 200)
    assert "45.9 ±1.0   30.0" in narrow.lines[1], "Rouge-1, then the paper's"
    assert narrow.left_out and "Rouge-1" not in narrow.left_out
    assert narrow.lines[0].endswith(f"+{len(narrow.left_out)}")
    assert not wide.left_out and "+" not in wide.lines[0]
    order = re.findall(r"Rouge-2|Loss|Rouge-1|Entropy|paper", wide.lines[0])
    assert order == ["Rouge-2", "Loss", "Rouge-1", "paper", "Entropy"], "the table's order"
    for width in range(60, 120):
        assert max(map(display_width, terminal.fit(block, width).lines)) <= width


def test_a_label_too_long_loses_its_first_steps():
    labels = {key: f"{'Model-of-a-long-name' * 3} + CPT + {key}" for key in LABELS}
    (block,) = terminal.blocks({"table0": toy(labels)}, ["table0"])
    assert terminal.fit(block, 60).lines[1].startswith("  … + CPT + first ")


def test_tables_of_the_same_settings_are_one_block_and_rows_of_one_label_stay_two():
    speed = {"speedup": {"title": "Speedup", "digits": 2}}
    settings = {"settings": {"tau": "tau"}}
    answers = toy(**settings, short="Answers")
    other = toy({"first": LABELS["first"], "second": LABELS["first"]}, **settings, short="Speed")
    other = Table(
        table_spec.parse(spec(**settings, short="Speed", columns=speed, claims={})),
        {key: row(one.label, speedup=1.5) for key, one in other.rows.items()},
    )
    (block,) = terminal.blocks({"table1": answers, "table2": other}, ["table1", "table2"])
    lines = terminal.fit(block, 200).lines
    assert lines[0].startswith("Answers, Speed") and "Speedup" in lines[0]
    assert len(lines) == 4, "a header, two rows of the first table, a second of the same label"
    assert "45.9" in lines[1] and "1.5" in lines[1]
    apart = terminal.blocks({"table1": toy(), "table2": toy()}, ["table1", "table2"])
    assert len(apart) == 2, "without settings"


def test_a_baseline_of_several_tables_stands_in_the_last(tmp_path):
    decoder = {"_target_": "soaes.decode.settings.AutoregressiveSettings"}
    baseline = Recipe("soaes.stages.speculate.speed", {"decode": decoder})
    other = Recipe("soaes.stages.speculate.speed", {"decode": {**decoder, "_target_": "a.Draft"}})
    tables = {}
    for name in ("table5", "table6"):
        rows = {"first": row("None", baseline, rouge1=1.0), "second": row("A", other, rouge1=2.0)}
        tables[name] = Table(table_spec.parse(spec()), rows)
    earlier, later = terminal.blocks(tables, ["table5", "table6"])
    assert [label.strip() for label in earlier.labels] == ["A"]
    assert [label.strip() for label in later.labels] == ["None", "A"]
    assert "1 repeated baseline" in " ".join(
        terminal.overview(tables, [*tables], Store(tmp_path), 99)
    )


@pytest.mark.parametrize(
    ("half", "digits"), [(0.29, 2), (0.31, 1), (3.0, 1)], ids=["narrow", "wide", "one less at most"]
)
def test_a_decimal_far_below_every_interval_is_not_shown(half, digits):
    rows = [TableRow("a", intervals={"m": (5 - half, 5 + half)}), TableRow("b"), None]
    assert terminal._digits(table_spec.ColumnSpec("M", 2), "m", rows) == digits


def result(verdict, effect, text="a claim (with a remark) that is long enough to need its room"):
    pair = Comparison("left - right", verdict, effect, 0.5, 1.0)
    return ClaimResult("T9a", text, verdict, [pair, pair])


def test_a_claim_is_a_line_with_its_mark_its_effect_and_the_papers():
    results = [
        result("holds", Effect(1.25, 0.25, 2.25, 3)),
        result("fails", Effect(-1.0, float("nan"), float("nan"), 1)),
        result("not measured", None),
    ]
    head, held, failed, unmeasured = terminal.claim_lines(results, 100)
    assert head.split() == "Claims: ✓ 1 held, ✗ 1 failed, · 1 not measured effect paper".split()
    assert held.startswith("✓ T9a  a claim (with a remark)") and held.endswith("+1.25 ±1.0   +0.5")
    assert failed.startswith("✗ T9a") and failed.split()[-2:] == ["-1", "+0.5"]
    assert unmeasured.startswith("· T9a") and unmeasured.split()[-2:] == ["-", "+0.5"]
    assert len(terminal.claim_lines(results, 100, pairs=True)) == 1 + 3 * 3
    narrow = terminal.claim_lines(results, 60)
    assert max(map(len, narrow)) <= 60 and narrow[1].startswith("  measured")
    text = " ".join(line.strip("✓✗· T9a") for line in narrow)
    assert "remark" not in text and "its room" in text, "all but the remark"


@pytest.mark.parametrize(
    ("variables", "is_terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
    ids=["terminal", "pipe", "NO_COLOR", "NO_COLOR empty", "dumb"],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, variables, is_terminal, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    monkeypatch.setattr("sys.stdout", stream)
    text = layout.styled("海", "green")
    assert (text != "海") == coloured and "海" in text
    assert layout.styled("海", "") == "海"
