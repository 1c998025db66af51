"""The page's tables say what the Markdown says, number by number."""

import pytest

from soaes.metrics.bootstrap import Effect
from soaes.report import claims, markdown
from soaes.report.claims import Comparison
from soaes.report.page import tables
from tests.helpers.reports import toy_store, toy_tables


@pytest.fixture
def read():
    return toy_tables()


@pytest.fixture
def record(read, tmp_path):
    return tables.table_record(read, "table0", toy_store(tmp_path), "toy")


def test_every_cell_is_the_markdowns(read, record, tmp_path):
    text = markdown.write_table(read, "table0", toy_store(tmp_path), tmp_path)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    for row, line in zip(record["rows"], printed, strict=True):
        shown = [row["label"], *row["settings"]]
        for column in record["columns"]:
            cell = row["cells"][column["key"]]
            shown.append(cell["text"])
            if column["in_paper"]:
                shown.append(cell["paper"] or "-")
        assert shown == line


def test_a_cell_has_its_interval_its_difference_and_its_seeds(record):
    rows = {row["key"]: row for row in record["rows"]}
    cell = rows["trained"]["cells"]["rouge1"]
    assert (cell["low"], cell["high"]) == ("43.50", "45.50")
    assert cell["difference"] == "+3.00", "44.5 less the paper's 41.5"
    assert cell["seeds"] == {"0": "44.50"}
    assert cell["stages"] == {"0": rows["trained"]["goals"]["0"]["evaluate"]}


def test_a_cell_without_a_value_says_why_and_differs_from_nothing(record):
    cell = record["rows"][2]["cells"]["rouge1"]
    assert (cell["text"], cell["paper"], cell["difference"]) == ("not built", "9.00", "")
    assert cell["low"] == cell["high"] == "" and cell["seeds"] == {}


def test_claims_are_those_that_are_judged(read, record):
    (judged,) = claims.judge(read, "table0")
    (shown,) = record["claims"]
    (pair,) = shown["pairs"]
    assert (shown["claim"], shown["verdict"]) == (judged.claim, judged.verdict)
    assert pair["value"] == pytest.approx(11.25) and pair["paper"] == pytest.approx(11.5)
    assert pair["low"] is None, "one seed without samples has no interval"
    assert pair["effect"] == markdown.effect_text(judged.pairs[0].effect)


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(None, id="not measured"),
        pytest.param(Effect(1.0, -2.0, 4.0, 3), id="measured"),
    ],
)
def test_a_pair_is_finite_json(effect):
    pair = tables._pair(Comparison("left - right", "undecided", effect, None, 0.0))
    numbers = [pair["value"], pair["low"], pair["high"]]
    assert numbers == ([None] * 3 if effect is None else [1.0, -2.0, 4.0])
