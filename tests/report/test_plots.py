"""Pictures of tables are made of what is there, and the same table gives the same bytes.

Differences have intervals of their own.
"""

import subprocess
import sys

import numpy as np
import pytest

from soaes.metrics.bootstrap import Measured, Samples
from soaes.report import pictures, plots, table_spec
from soaes.report.results import Table, TableRow
from soaes.report.table_spec import RowSpec

QUESTIONS = 40
POOL = tuple(("qa", question) for question in range(QUESTIONS))
METRICS = (
    "rouge1",
    "cmmlu",
    "ceval",
    "average",
    "domain",
    "acceptance_rate_per_position",
    "speedup",
    "draft_cost",
    "verify_cost",
    "n",
)


def measured(scores_N):
    return Measured(
        float(scores_N.mean()),
        Samples(POOL, lambda counts_BN: counts_BN @ scores_N / counts_BN.sum(1)),
    )


def line(row, scores_N=None):
    """A row of a table as the reader gives it; without scores it is not built."""
    when = row.when
    settings = {
        "alpha": str(when.get("distill.alpha", "0.5")),
        "tau": str(when.get("distill.tau", "2")),
        "size": when.get("size", "-"),
        "lr": str(when.get("optim.cpt.lr", "-")),
        "replay": str(when.get("rows.corpus.replay", "-")),
    }
    cells = {} if scores_N is None else {metric: measured(scores_N) for metric in METRICS}
    values = {metric: cell.value for metric, cell in cells.items()}
    return TableRow(
        row.paper.get("name", "Base 3x96"),
        settings,
        values,
        {metric: (value - 1, value + 1) for metric, value in values.items()},
        row.paper,
        missing="" if cells else "not built",
        measured={0: cells} if cells else {},
    )


def table(name, built):
    """The named table, those rows built that `built` selects, each with answers of its own."""
    spec, rng = table_spec.load(name), np.random.default_rng(0)
    rows = {
        key: line(row, rng.uniform(20, 60, QUESTIONS) if built(key) else None)
        for key, row in spec.rows.items()
    }
    return {name: Table(spec, rows)}


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_the_same_table_gives_the_same_bytes(name, tmp_path):
    first, again = (
        plots.draw(table(name, lambda key: True), name, tmp_path / folder) for folder in "ab"
    )
    picture = first.read_bytes()
    assert picture == again.read_bytes() and first.name == f"{name}.png"
    assert [int.from_bytes(picture[start : start + 4]) for start in (16, 20)] == [1050, 480], (
        "7 x 3.2 inches at 150 dpi"
    )


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_what_is_not_built_is_not_drawn(name, tmp_path):
    assert plots.draw(table(name, lambda key: False), name, tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(pictures.PICTURES))
def test_some_rows_are_enough(name, tmp_path):
    some = {
        "target_base",
        "target_cpt",
        "sft2",
        "full",
        "undistilled",
        "tau_3",
        "greedy_none",
        "lookup_3",
        "large_base",
        "medium_low_replay",
    }
    assert plots.draw(table(name, some.__contains__), name, tmp_path).exists()


def test_a_row_better_by_one_on_every_question_is_better_by_one_for_sure():
    scores_N = np.random.default_rng(1).uniform(0, 100, QUESTIONS)
    effect = pictures.difference(
        line(RowSpec(paper={"name": "toy"}), scores_N + 1),
        line(RowSpec(paper={"name": "toy"}), scores_N),
    )
    assert (effect.value, effect.low, effect.high) == pytest.approx((1, 1, 1))


def test_rows_without_a_common_seed_are_not_compared():
    left, right = (
        line(RowSpec(paper={"name": "toy"}), np.ones(QUESTIONS)),
        line(RowSpec(paper={"name": "toy"}), np.ones(QUESTIONS)),
    )
    right.measured[1] = right.measured.pop(0)
    assert pictures.difference(left, right) is None


def test_reading_does_not_wait_for_matplotlib():
    imported = "'matplotlib' in sys.modules or 'torch' in sys.modules"
    program = f"import sys, soaes.report.plots; sys.exit({imported})"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
