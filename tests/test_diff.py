"""`python -m soaes.diff` as a user types it: rows, stages and stores, slips, nothing built."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from soaes import diff
from soaes.data.jsonl import write_jsonl
from soaes.pipeline import sweep
from soaes.pipeline.store import Store
from tests.helpers.commands import without_torch
from tests.helpers.small import SMALL_WORLD

WORDS = [*SMALL_WORLD, "logger=none", "seed=0,1"]


def command(store, *words):
    return subprocess.run(
        without_torch("diff", *words),
        env={**os.environ, "SOAES_STORE": str(store), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
    )


def answer(index, right):
    scores = dict.fromkeys(("rouge1", "rouge2", "rougeL", "bleu4"), 100.0 if right else 40.0)
    texts = {"question": f"q{index}\x1b[2J", "reference": "r", "prediction": "r" if right else "p"}
    return {"id": f"test-{index}", "task": "qa", **texts, **scores}


def built(store, job, gain):
    """A job's goal with 20 answers, 4 + `gain` of them right, and curves of each model."""
    for name, recipe in job.recipe.ancestry().items():
        folder = store.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.written))
        facts = {"files": {}, "seconds": 1.0, "commit": "c0ffee", "versions": {}}
        (folder / "manifest.json").write_text(json.dumps(facts))
        if recipe.stage in ("cpt", "sft"):
            write_jsonl(folder / "curves.jsonl", [{"step": 1, "train/loss": len(name)}])
    rows = [answer(index, right=index < 4 + gain) for index in range(20)]
    write_jsonl(store.folder(job.recipe.name) / "predictions.jsonl", rows)
    rouge1 = sum(row["rouge1"] for row in rows) / len(rows)
    metrics = store.folder(job.recipe.name) / "metrics.json"
    metrics.write_text(json.dumps({"rouge1": rouge1, "samples": 20}))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two rows of Table 2 in two seeds: the second lacks stage 1."""
    store = Store(tmp_path_factory.mktemp("diff") / "store")
    store.root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOAES_STORE", str(store.root))
        jobs = sweep.jobs(["experiment=table2", *WORDS])
    for job in jobs:
        gain = {"full": 0, "cpt_sft2": 6}.get(job.overrides["chain@target"])
        if gain is not None:
            built(store, job, gain)
    return store


def test_two_rows_are_compared_without_torch(store):
    ran = command(store.root, "table2.full", "table2.cpt_sft2", *WORDS)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    assert "Settings: 1 differ" in ran.stdout and "model: stage-1 SFT  (the stage)" in ran.stdout
    assert "Metrics: 1 differ, 1 are equal" in ran.stdout
    assert "paired over seeds (0, 1)" in ran.stdout
    (metric,) = [line for line in ran.stdout.splitlines() if line.startswith("  rouge1")]
    assert metric.split()[:4] == ["rouge1", "52", "70", "+18"] and metric.endswith("*")
    assert "Questions: 12 gained, 0 lost" in ran.stdout
    assert "evaluate, seed 1: 6 gained, 0 lost of 20" in ran.stdout
    assert ran.stdout.count("3 more gained, --all prints them") == 2
    assert "\x1b" not in ran.stdout
    everything = command(store.root, "--all", "table2.full", "table2.cpt_sft2", *WORDS)
    assert everything.stdout.count("gained     q") == 12 and "more gained" not in everything.stdout


def test_two_stages_by_name_by_its_beginning_and_by_folder(store):
    names = store.names("evaluate")
    by_name = command(store.root, names[0], names[-1][:12])
    folders = [str(store.folder(name)) for name in (names[0], names[-1])]
    by_folder = command("elsewhere", *folders)
    for ran in (by_name, by_folder):
        assert ran.returncode == 0 and "Metrics: " in ran.stdout, ran.stderr
    assert not Path("elsewhere").exists()


def test_lines_fit_a_terminal(store, monkeypatch):
    monkeypatch.setattr(diff, "terminal_width", lambda: 72)
    sides = [diff._stage(name, store, name) for name in store.names("evaluate")[::3]]
    lines = list(diff.diff_sides(*sides[:2], None))
    assert max(map(len, lines)) <= 72


def test_a_row_that_is_not_built_shows_its_settings_and_says_so(store):
    ran = command(store.root, "table2.full", "table2.sft2", *WORDS)
    assert ran.returncode == 0 and "model: CPT" in ran.stdout, ran.stderr
    assert "no seed of both is built" in ran.stdout and "table2.sft2: not built" in ran.stdout


def test_two_stores_of_which_one_asks_fewer_questions(store, tmp_path):
    other = Store(tmp_path)
    words = [*SMALL_WORLD, "goal=evaluate", "chain@target=full", "eval_samples=10"]
    (job,) = sweep.jobs([*words, "logger=none", f"runtime.store={tmp_path}"])
    built(other, job, 6)
    ran = command("elsewhere", "--stores", str(store.root), str(other.root))
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    (count,) = [line[-1] for line in lines if line[:2] == ["evaluate", "limit"]]
    assert count == "1" and "1 in B alone" in ran.stdout and "only B: 1 evaluate" in ran.stdout
    assert any(line[2:6] == ["rouge1", "52", "70", "+18"] for line in lines), ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table2.full"], "two things are compared, here are 1"),
        (["tabel2.full", "table2.sft2"], "tabel2: there is no such table; Did you mean table2"),
        (["table2.ful", "table2.sft2"], "table2.ful: there is no such row; Did you mean full"),
        (["table2", "table2.sft2"], "name a row too"),
        (["evaluate-0000", "evaluate-1111"], "has no such stage"),
        (["evaluate", "table2.full"], "evaluate: there is no such table"),
        (["nowhere/evaluate-0000", "table2.full"], "not the folder of a finished stage"),
        (["table2.full", "table2.sft2", "scale=smok"], "Did you mean smoke"),
        (["--stores", "nowhere", "nowhere"], "nowhere: there is no such store"),
        (["--stores", ".", ".", "seed=1"], "seed=1: --stores compares all"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_one_line(store, monkeypatch, capsys, words, message):
    monkeypatch.setenv("SOAES_STORE", str(store.root))
    monkeypatch.setattr(sys, "argv", ["diff", *words])
    with pytest.raises(SystemExit) as refused:
        diff.main()
    error = str(refused.value)
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not capsys.readouterr().out


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    ran = command(tmp_path / "sotre", "table2.full", "table2.sft2")
    assert ran.returncode == 1 and "there is no store" in ran.stderr
    assert not (tmp_path / "sotre").exists()


def test_stages_of_two_kinds_are_refused(store):
    names = store.names("evaluate")[0], store.names("cpt")[0]
    sides = [diff.find(str(store.folder(name)), []) for name in names]
    with pytest.raises(ValueError, match="nothing can be paired; compare two rows of one goal"):
        list(diff.diff_sides(*sides, None))
