"""Stages are described as the store has them, and curves tell chains of one label apart."""

import pytest

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report.page import stages
from tests.helpers import reports
from tests.helpers.reports import MANIFEST, build, failed_stage, goal


def test_ancestry_lists_every_stage_once_with_the_seeds_that_need_it():
    goals = reports.toy_goals()
    recipes, seeds = stages.ancestry([(0, goals["plain"]), (1, goals["plain"]), (1, goal(0.3))])
    assert set(recipes) == {*goals["plain"].ancestry(), *goal(0.3).ancestry()}
    assert seeds[goals["plain"].name] == [0, 1] and seeds[goal(0.3).name] == [1]


def test_a_stage_says_where_it_comes_from(tmp_path):
    store, model = reports.toy_store(tmp_path), reports.toy_goals()["plain"].arguments["model"]
    record = stages.stage_record(store, model, [0])
    assert record["label"] == "Base 2x8 + CPT" and record["settings"] == {"optim.lr": "0.1"}
    assert record["parents"] == {"parent": model.arguments["parent"].name}
    assert (record["state"], record["commit"]) == ("built", MANIFEST["commit"])


@pytest.mark.parametrize(
    ("fails", "state", "reason"),
    [
        pytest.param(True, "failed", "no <room>", id="failed"),
        pytest.param(False, "not built", "", id="new"),
    ],
)
def test_a_stage_that_is_not_there_says_why(tmp_path, fails, state, reason):
    store = Store(tmp_path)
    recipe = failed_stage(store, "no <room>\n") if fails else goal(0.5)
    record = stages.stage_record(store, recipe, [0])
    assert (record["state"], record["reason"]) == (state, reason)


def test_chains_of_one_label_are_told_apart_by_what_differs():
    models = {name: recipe.arguments["model"] for name, recipe in reports.toy_goals().items()}
    recipes = {model.name: model for model in models.values()}
    names = stages.chain_names(recipes, dict.fromkeys(recipes, [0]))
    assert names[models["plain"].name] == "Base 2x8 + CPT (lr=0.1)"
    assert names[models["trained"].name] == "Base 2x8 + CPT (lr=0.2)"


def test_one_chain_in_two_seeds_has_one_name():
    recipes = {}
    for seed in (0, 1):
        model = goal(0.1, seed).arguments["model"]
        recipes[model.name] = model
    seeds = {name: [seed] for seed, name in enumerate(recipes)}
    assert set(stages.chain_names(recipes, seeds).values()) == {"Base 2x8 + CPT"}


def test_models_that_differ_in_what_they_read_alone_have_names_of_their_own():
    models = [goal(0.1, seed).arguments["model"] for seed in (0, 1)]
    recipes = {model.name: model for model in models}
    names = stages.chain_names(recipes, dict.fromkeys(recipes, [0]))
    assert len(set(names.values())) == 2


def test_a_curve_has_the_steps_and_values_of_its_file(tmp_path):
    store = reports.toy_store(tmp_path)
    recipes, seeds = stages.ancestry([(0, reports.toy_goals()["plain"])])
    (curve,) = stages.curves(store, recipes, seeds).values()
    steps, losses = curve["metrics"]["train/loss"]
    assert steps == list(range(9)) and losses[2] == 1.0 and losses[3] == 0.75
    assert losses[6] == 0.42857, "five digits"


def test_data_accounts_are_the_reports_of_rows_and_files(tmp_path):
    store = Store(tmp_path)
    pack = Recipe("soaes.stages.prepare.pack", {"context": 8})
    files = Recipe("soaes.stages.curate.files", {"digest": "d"})
    build(store, pack, packing_report={"sources": ["qa"]})
    build(store, files, curation_report={"problems": []})
    recipes = {recipe.name: recipe for recipe in (pack, files, goal(0.1))}
    accounts = stages.data_accounts(store, recipes, dict.fromkeys(recipes, [0]))
    assert [account["report"] for account in accounts] == [{"sources": ["qa"]}, {"problems": []}]


def test_times_add_up_by_kind(tmp_path):
    store = reports.toy_store(tmp_path)
    recipes, _ = stages.ancestry([(0, recipe) for recipe in reports.toy_goals().values()])
    times = {kind["kind"]: kind for kind in stages.times(store, recipes)}
    assert times["evaluate"]["number"] == 2
    assert times["evaluate"]["seconds"] == 2 * MANIFEST["seconds"]
