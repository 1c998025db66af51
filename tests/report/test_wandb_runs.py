"""A row's run in W&B is found by its table, and carries its cells; a report's, the verdicts."""

import pytest

from soaes.pipeline import sweep
from soaes.report import wandb_runs
from soaes.report.page import render
from tests.helpers import wandb_records
from tests.helpers.reports import toy_report


def described(store, *words):
    """What the runs of a command line are found by, by goal."""
    jobs = sweep.jobs([*words, f"runtime.store={store}"])
    return {job.recipe.stage: wandb_runs.describe_row(job, {}) for job in jobs}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def distilled(root):
    """The two jobs of row `alpha_05` of Table 3, by goal, with W&B below `root`."""
    words = ["experiment=table3_alpha", "distill.alpha=0.5", f"runtime.store={root}"]
    return {job.recipe.stage: job for job in sweep.jobs([*words, "seed=4"])}


def test_a_row_is_found_by_its_table_and_carries_its_cells(root, distilled):
    job = distilled["evaluate"]
    wandb_runs.record_row(job, {"rouge1": 24.766, "bleu4": 3, "samples": 60, "scoring": {"a": "b"}})
    read = wandb_records.read(root / "wandb", job.name)
    name = "table3.alpha_05: Base 1x64 + CPT + stage-1 SFT + distillation (alpha 0.5, tau 2)"
    assert read["run"]["display_name"] == f"{name}, seed 4, evaluate"
    assert read["run"]["run_group"] == "table3_alpha" and read["run"]["job_type"] == "row"
    assert read["run"]["tags"] == ["smoke", "seed 4", "table3", "T3a", "T3b", "T3c", "T3d"]
    assert read["run"]["config"]["update"]["rows"] == ["table3.alpha_05"]
    assert read["history"] == [{"evaluate/rouge1": 24.766, "evaluate/bleu4": 3}], "the columns"
    assert read["summary"]["paper/rouge1"] == 36.37
    assert (
        read["summary"]["evaluate/rouge1"] == 24.766 and read["summary"]["evaluate/samples"] == 60
    )
    notes = read["run"]["notes"]
    assert "| Rouge-1 | 24.77 | 36.37 |" in notes
    assert "`tables/smoke/report.html#table3.alpha_05.rouge1`" in notes
    assert "`python -m soaes.table seed=4 --why table3.alpha_05`" in notes
    assert "tag `T3d`; its verdict: run `report-smoke`" in notes
    (draft,) = (name for name in job.recipe.ancestry() if name.startswith("distill-"))
    assert f"`{draft}`: Base 1x64 + CPT + stage-1 SFT + distillation" in notes


def test_what_a_row_measures_beside_its_tables_model_is_named_by_that_model(distilled):
    job = distilled["predict_acceptance"]
    description = wandb_runs.describe_row(job, {})
    assert description.name.startswith("table3.alpha_05: Base 1x64 + CPT + stage-1 SFT + distil")
    assert description.name.endswith("(alpha 0.5, tau 2, lr 0.001), seed 4, predict_acceptance")


def test_a_row_of_two_tables_has_the_tags_of_both(tmp_path):
    description = described(tmp_path, "experiment=speed4_none")["speed"]
    assert {"table4", "table5", "T4a", "T5a"} <= set(description.tags)
    assert description.config["rows"] == ["table4.none", "table5.none"]


def test_what_the_command_line_changes_is_in_the_name(tmp_path):
    words = ["experiment=table2", "chain@target=full", "optim.sft2.lr=5e-4", "logger.project=mine"]
    name = described(tmp_path, *words)["evaluate"].name
    assert name.startswith("table2.full: ") and name.endswith(", seed 0, optim.sft2.lr=0.0005")


def test_a_job_of_no_table_is_named_by_its_words(tmp_path):
    words = ["subject=distill", "distill.alpha=0.3,0.7"]
    description = described(tmp_path, *words)["evaluate"]
    assert description.name == "distill.alpha=0.7" and description.group == "rows"
    other_goal = described(tmp_path, "experiment=table2", "chain@target=full", "goal=benchmark")
    assert other_goal["benchmark"].config["rows"] == [], "Table 2 shows another goal"


def test_the_report_is_recorded_once_with_its_page_and_verdicts(tmp_path):
    store = tmp_path / "store"
    report = toy_report(store)
    page = tmp_path / "report.html"
    page.write_text(render.render(report), encoding="utf-8")
    for _ in range(2):
        wandb_runs.record_report(page, report.record, [f"runtime.store={store}"])
    read = wandb_records.read(store / "wandb", "report-toy")  # which refuses a second run
    assert read["run"]["job_type"] == "report" and read["run"]["run_group"] == "reports"
    (claim,) = report.record["tables"][0]["claims"]
    assert read["summary"]["verdict/T0a"] == claim["verdict"]
    assert f"| T0a | training helps | {claim['verdict']} | " in read["run"]["notes"]
    assert read["files"]["report.html"] == page.read_bytes()
    page.write_text("another", encoding="utf-8")
    wandb_runs.record_report(page, report.record, [f"runtime.store={store}", "logger=none"])
    assert len(list(store.glob("wandb/wandb/offline-run-*"))) == 1
