"""Committed tables are stale when conf/ composes to other recipes, not on another machine."""

import json

import pytest

from soaes.pipeline import conf_folders, sweep
from soaes.pipeline.recipe import Recipe
from soaes.report import freshness, results


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))


def test_tables_are_stale_when_their_recipes_are_others(tmp_path):
    words = ["seed=0", "logger=none"]
    freshness.write({"table1": results.read_table("table1", words)}, words, tmp_path)
    lines, stale = freshness.check([tmp_path])
    assert lines == [f"{tmp_path}/table1: as conf/ has it"] and not stale
    record = json.loads((tmp_path / "recipes.json").read_text())
    assert record["overrides"] == ["seed=0"] and record["tables"]["table1"]["target_cpt"]["0"][
        0
    ].startswith("benchmark-")
    record["overrides"] = ["optim.cpt.lr=2e-3"]  # as if conf/ had changed since
    (tmp_path / "recipes.json").write_text(json.dumps(record))
    lines, stale = freshness.check([tmp_path])
    assert stale and lines[0].endswith(
        "stale, the recipes of these rows have changed: draft_cpt, target_cpt"
    )


def test_the_machine_is_left_out_and_nothing_else():
    (row,) = sweep.jobs(["goal=speed", "subject=distill"])
    elsewhere = Recipe(
        row.recipe.target, row.recipe.arguments | {"machine": "another", "library": "torch 9"}
    )
    longer = Recipe(row.recipe.target, row.recipe.arguments | {"rounds": 9})
    assert row.recipe.name != elsewhere.name and freshness.key_of(row.recipe) == freshness.key_of(
        elsewhere
    )
    assert freshness.key_of(row.recipe) != freshness.key_of(longer)


def test_a_folder_without_recipes_says_what_writes_them(tmp_path):
    with pytest.raises(ValueError, match="recipes.json does not exist.*--out"):
        freshness.check([tmp_path])


def test_tables_of_a_users_settings_say_which_folder_to_give(tmp_path):
    (own := tmp_path / "own" / "domain").mkdir(parents=True)
    (own / "cooking.yaml").write_text("defaults: [none]\n")
    words = ["seed=0", "domain=cooking"]
    conf_folders.use(str(tmp_path / "own"))
    try:
        freshness.write({"table1": results.read_table("table1", words)}, words, tmp_path)
        assert freshness.check([tmp_path]) == ([f"{tmp_path}/table1: as conf/ has it"], False)
        assert f"--config-dir {tmp_path / 'own'} " in freshness.command(words)
    finally:
        conf_folders.use(None)
    with pytest.raises(ValueError, match="made with --config-dir .*own; ask `python -m soaes.t"):
        freshness.check([tmp_path])
