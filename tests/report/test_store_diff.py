"""Stores differ in stages, in metrics of one recipe, and in the settings of stages that match."""

import yaml

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_json
from soaes.report.recipe_diff import Setting
from soaes.report.store_diff import diff_stores


def cpt(lr, name="a", seed=0):
    base = Recipe("soaes.stages.train.pretrain", {"layers": 1, "width": 8})
    return Recipe("soaes.stages.train.cpt", {"parent": base, "lr": lr, "name": name, "seed": seed})


def speed():
    return Recipe("soaes.stages.speculate.speed", {"rounds": 3})


def store(folder, *built):
    """A store in which some recipes are built, each with its metrics."""
    for recipe, metrics in built:
        for name, stage in recipe.ancestry().items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / "recipe.yaml").write_text(yaml.safe_dump(stage.written))
        write_json(folder / recipe.name / "metrics.json", metrics)
    return Store(folder)


def test_metrics_of_one_recipe_are_compared_to_the_bit_but_for_the_clock(tmp_path):
    left = store(
        tmp_path / "a",
        (cpt(0.1), {"loss": 1.0, "seconds": 3.0, "same": 2}),
        (speed(), {"speedup": 1.0}),
    )
    right = store(
        tmp_path / "b",
        (cpt(0.1), {"loss": 1.0 + 1e-12, "seconds": 4.0, "same": 2}),
        (speed(), {"speedup": 2.0}),
    )
    diff = diff_stores(left, right)
    assert len(diff.shared) == 3 and not diff.only_left and diff.num_timed == 1
    (change,) = diff.changes
    assert change.metric == "loss" and change.stage == cpt(0.1).name


def test_other_stages_are_matched_with_the_nearest_of_their_kind_and_seed(tmp_path):
    left = store(tmp_path / "a", *((cpt(0.1, name), {}) for name in "ab"))
    right = store(
        tmp_path / "b",
        *((cpt(0.2, name), {}) for name in "ba"),
        (cpt(0.1, seed=1), {}),
    )
    diff = diff_stores(left, right)
    expected = {(cpt(0.1, name).name, cpt(0.2, name).name) for name in "ab"}
    assert set(diff.matches) == expected
    assert diff.settings == {Setting("cpt", "lr", "0.1", "0.2"): 2}
    assert len(diff.only_right) == 3, "another seed matches nothing"
