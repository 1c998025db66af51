"""The record of real sweeps: every row with its goals, each with a command that builds it alone."""

import shlex

import pytest

from soaes.pipeline import sweep
from soaes.report import results
from soaes.report.page import record, render

WORDS = ["scale=smoke", "seed=0,1", "logger=none"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SOAES_STORE", str(tmp_path_factory.mktemp("store")))
        yield record.gather(WORDS, results.read_tables(["table1"], WORDS), ["table1"])


def test_every_goal_of_every_row_is_a_stage_of_the_record(report):
    (table,) = report.record["tables"]
    for row in table["rows"]:
        if row["missing"] == "the paper's only":
            continue
        assert list(row["goals"]) == ["0", "1"], row["key"]
        for goals in row["goals"].values():
            assert set(goals.values()) <= set(report.record["stages"])
    for stage in report.record["stages"].values():
        assert set(stage["parents"].values()) <= set(report.record["stages"])


def test_the_command_of_a_goal_builds_it_alone(report):
    (table,) = report.record["tables"]
    rows = {row["key"]: row for row in table["rows"]}
    name = rows["target_cpt"]["goals"]["1"]["benchmark"]
    command = shlex.split(report.record["commands"][name])
    assert command[:3] == ["python", "-m", "soaes.run"] and "logger=none" not in command
    (job,) = sweep.jobs(command[3:])
    assert job.recipe.name == name


def test_a_store_with_nothing_in_it_makes_a_page(report, tmp_path):
    assert report.record["sheets"] == [] and report.record["made"] == ""
    path = tmp_path / "report.html"
    assert render.write(path, report).startswith(f"{path} (")
    assert "not built" in path.read_text(encoding="utf-8")


def test_how_stages_were_run_is_left_out(report):
    assert report.record["overrides"] == ["scale=smoke", "seed=0,1"]
    assert report.record["seeds"] == results.seeds(WORDS)
