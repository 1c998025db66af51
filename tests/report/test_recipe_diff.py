"""Recipes differ in the leaves that differ, each named once; chains are aligned step by step."""

import pytest

from soaes.pipeline.recipe import Recipe
from soaes.report.recipe_diff import Setting, diff


def stage(name, **arguments):
    return Recipe(f"soaes.stages.toy.{name}", arguments)


def world(**changes):
    sizes = {"famous": 3, "docs": [1, 2]}
    return stage("world", **{"entities": 12, "seed": 0, "sizes": sizes} | changes)


def pack(source, documents):
    return stage("pack", documents=documents, sources=[source])


def chain(*steps, documents=None, lr=0.1):
    """A model: `base`, then the steps in order."""
    documents = documents or world()
    model = stage("pretrain", layers=2, width=8, rows=pack("general", documents))
    for step in steps:
        if step == "cpt":
            model = stage("cpt", parent=model, rows=pack("corpus", documents), optim={"lr": lr})
        else:
            model = stage("sft", parent=model, rows=pack(step, documents), optim={"lr": 0.2})
    return stage("evaluate", model=model, documents=documents)


def settings(left, right):
    return [(setting.stage, setting.key) for setting in diff([(left, right)]).settings]


def test_equal_recipes_do_not_differ_wherever_their_code_lies():
    assert not diff([(chain("cpt"), chain("cpt"))]).settings
    option = {"_target_": "soaes.model.settings.Cosine", "final": 0.1}
    moved = {"_target_": "soaes.elsewhere.Cosine", "final": 0.1}
    other = {"_target_": "soaes.model.settings.Linear", "final": 0.1}
    assert not settings(stage("fit", schedule=option), stage("fit", schedule=moved))
    (setting,) = diff([(stage("fit", schedule=option), stage("fit", schedule=other))]).settings
    assert setting == Setting("fit", "schedule._target_", "Cosine", "Linear")


@pytest.mark.parametrize(
    ("changes", "key", "left", "right"),
    [
        ({"entities": 13}, "entities", "12", "13"),
        ({"sizes": {"famous": 4, "docs": [1, 2]}}, "sizes.famous", "3", "4"),
        ({"sizes": {"famous": 3, "docs": [1]}}, "sizes.docs", "[1, 2]", "[1]"),
        ({"entities": None}, "entities", "12", "null"),
        ({"extra": None}, "extra", "-", "null"),
    ],
    ids=["leaf", "nested", "list", "null", "absent"],
)
def test_a_setting_of_a_stage_that_many_read_is_named_once(changes, key, left, right):
    result = diff([(chain("cpt", "qa"), chain("cpt", "qa", documents=world(**changes)))])
    assert result.settings == [Setting("world", key, left, right)]


def test_a_step_that_one_chain_lacks_is_all_that_differs():
    left, right = chain("cpt", "dialogue", "qa"), chain("cpt", "qa")
    (setting,) = diff([(left, right)]).settings
    missing = left.arguments["model"].arguments["parent"].name
    assert setting == Setting("model: stage-1 SFT", "", missing, "-")
    (setting,) = diff([(right, left)]).settings
    assert setting == Setting("model: stage-1 SFT", "", "-", missing)


def test_a_step_that_one_chain_lacks_is_named_once_however_many_read_it():
    chains = [chain("cpt", "qa").arguments["model"], chain("cpt").arguments["model"]]
    goals = [[stage(name, draft=model) for name in ("speed", "acceptance")] for model in chains]
    (setting,) = diff(zip(*goals, strict=True)).settings
    assert (setting.stage, setting.key) == ("draft: stage-2 SFT", "")


def test_steps_that_match_are_compared_setting_by_setting_and_paired():
    left, right = chain("cpt", "qa"), chain("cpt", "qa", lr=0.3)
    result = diff([(left, right)])
    assert result.settings == [Setting("model: CPT", "optim.lr", "0.1", "0.3")]
    titles = [stages.title for stages in result.stages]
    chained = ["model: base", "model: CPT", "model: stage-2 SFT"]
    assert [title for title in titles if title.startswith("model")] == chained


def test_goals_of_two_kinds_share_no_settings_but_what_they_read():
    model = chain("cpt").arguments["model"]
    left = stage("evaluate", model=model, documents=world(), limit=3)
    right = stage("benchmark", model=model, documents=world(seed=1), shots=5)
    assert settings(left, right) == [("world", "seed"), ("evaluate", "stage")]


def test_pairs_that_share_stages_name_them_once():
    left = [stage(name, documents=world()) for name in ("speed", "acceptance")]
    right = [stage(name, documents=world(seed=1)) for name in ("speed", "acceptance")]
    result = diff(zip(left, right, strict=True))
    assert result.settings == [Setting("world", "seed", "0", "1")]
