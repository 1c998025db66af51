"""Rows match jobs by value, and a metric of two sweeps comes from the one that the table names."""

import json

import pytest

from soaes.metrics.bootstrap import Measured
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report import results, table_spec


@pytest.mark.parametrize(
    ("value", "override", "same"),
    [
        (1, "1.0", True),
        (1.0, "1", True),
        (0.0003, "3e-4", True),
        ("3e-4", "0.0003", True),
        (0, "0", True),
        (0.5, "0.25", False),
        ("draft.chat", "draft.chat", True),
        ("draft", "draft.chat", False),
        (True, "true", True),
        (True, "1", False),
        (1, "true", False),
    ],
)
def test_values_are_compared_not_their_spelling(value, override, same):
    assert table_spec.same_value(value, override) == same
    assert table_spec.matches({"key": value}, {"key": override, "seed": "0"}) == same


def test_a_key_that_was_not_swept_matches_nothing():
    assert not table_spec.matches({"distill.tau": 1}, {"distill.alpha": "1"})


def built(store, stage, metrics, files=(), **parents):
    """A complete output with metrics, whose manifest lists `files`."""
    recipe = Recipe(f"soaes.stages.toy.{stage}", {"metrics": str(metrics), **parents})
    folder = store.folder(recipe.name)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "manifest.json").write_text(json.dumps({"files": dict.fromkeys(files, {})}))
    return recipe


def test_a_metric_of_two_sweeps_comes_from_the_one_that_is_named(tmp_path):
    store = Store(tmp_path)
    goals = {
        "speed": built(store, "speed", {"rate": 1.0, "speedup": 2.0}),
        "acceptance": built(store, "acceptance", {"rate": 3.0}),
    }
    metrics = results._measured(store, goals, "acceptance")
    names = {role: goal.name for role, goal in goals.items()}
    rate = Measured(3.0, stage=names["acceptance"])
    assert metrics == {"rate": rate, "speedup": Measured(2.0, stage=names["speed"])}
    rate = results._measured(store, goals, "speed")["rate"]
    assert rate == Measured(1.0, stage=names["speed"])
    with pytest.raises(ValueError, match="rate is measured by two sweeps.*set shared_metrics"):
        results._measured(store, goals, None)


def test_predictions_that_are_gone_do_not_take_the_interval_along_in_silence(tmp_path):
    store = Store(tmp_path)
    goal = built(store, "evaluate", {"rouge1": 1.0}, files=["predictions.jsonl"])
    with pytest.raises(ValueError, match="predictions.jsonl is damaged .it is gone.; delete"):
        results._measured(store, {"evaluate": goal}, None)


def test_a_parents_metric_must_agree_between_sweeps(tmp_path):
    store = Store(tmp_path)
    drafts = [built(store, "sft", {"loss": loss}) for loss in (1.0, 2.0)]
    goals = {}
    for role, draft in zip(("acceptance", "speed"), drafts, strict=True):
        goals[role] = built(store, role, {}, draft=draft)
    with pytest.raises(ValueError, match="draft.loss differs between the sweeps"):
        results._measured(store, goals, None)


def test_a_parents_metric_was_measured_by_the_parent(tmp_path):
    store = Store(tmp_path)
    draft = built(store, "sft", {"loss": 1.0})
    goals = {"acceptance": built(store, "acceptance", {}, draft=draft)}
    metrics = results._measured(store, goals, None)
    assert metrics == {"draft.loss": Measured(1.0, stage=draft.name)}


def test_a_table_of_ours_is_shown_once_something_of_its_own_is_built(tmp_path):
    store, spec = Store(tmp_path), {"title": "Toy", "asks": "?", "columns": {}, "rows": {}}
    shared = built(store, "evaluate", {"rouge1": 1.0})
    own = Recipe("soaes.stages.toy.benchmark", {})

    def table(*goals):
        rows = {
            str(i): results.TableRow("row", recipes={0: {"goal": goal}})
            for i, goal in enumerate(goals)
        }
        return results.Table(table_spec.parse(spec), rows)

    tables = {"formats": table(shared, own), "table1": table(shared), "table2": table()}
    assert results.shown_unasked(tables, store) == ["table1", "table2"]
    store.folder(own.name).mkdir()
    assert results.shown_unasked(tables, store) == ["table1", "table2", "formats"]


def test_settings_of_sweeps_name_roles_that_rows_have():
    spec = {
        "title": "Toy",
        "asks": "?",
        "columns": {},
        "rows": {"one": {"sweeps": {"evaluate": "table2"}}},
        "few_seeds": ["speed"],
    }
    with pytest.raises(ValueError, match="name speed; the rows' sweeps are evaluate"):
        table_spec.parse(spec)
