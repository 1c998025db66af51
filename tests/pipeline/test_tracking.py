"""A stage of several attempts has one curve, complete in W&B too, and the seconds of all.

A stage's run in W&B is found by the model's name, and holds the curve's ends and the recipe.
"""

import json
import time
from functools import partial

import pytest
import torch

from soaes.model.callbacks import MetricsCallback
from soaes.model.train_state import TrainState
from soaes.pipeline import tracking
from soaes.pipeline.recipe import PARENT, Recipe, revive
from soaes.pipeline.runtime import LoggerSettings, Runtime
from soaes.pipeline.store import write_json
from soaes.pipeline.tracking import RunDescription, Tracker, WandbRun
from tests.helpers import mortals, wandb_records


class Run:
    """Stands for a W&B run, which has no place for a step that is past."""

    def __init__(self):
        self.lines = []

    def log(self, values, step):
        assert not self.lines or step >= self.lines[-1]["step"]
        self.lines.append({"step": step, **values})


def mirrored(monkeypatch, build, *words):
    """The folder of a stage, and what W&B was given while it was built."""
    mirror = WandbRun(LoggerSettings(), lambda: RunDescription("toy", "toy", "toys", "cpt"))
    mirror.run = run = Run()
    monkeypatch.setattr(mortals, "Tracker", partial(Tracker, mirror=mirror))
    folder = build(*words)
    assert mirror.run is run, "nothing was refused"
    return folder, run.lines


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    mortals.prepare(root)
    return root


def test_the_run_of_a_resumed_stage_has_its_whole_curve_once(toy, tmp_path, monkeypatch):
    for step in (4, 7):
        _, lines = mirrored(monkeypatch, mortals.killed, toy, tmp_path, "cpt", step, 2)
        assert steps(lines) == list(range(1, step + 1))
    folder, lines = mirrored(monkeypatch, mortals.build, toy, tmp_path, "cpt")
    assert lines == [
        json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()
    ]
    assert steps(lines) == list(range(1, mortals.STEPS + 1)) and "val/perplexity" in lines[0]


def steps(lines):
    return [line["step"] for line in lines if "train/loss" in line]


def test_the_seconds_of_all_attempts_are_reported(toy, tmp_path):
    slow = {"happens": {(2, 0): partial(time.sleep, 0.5)}}
    left = mortals.killed(toy, tmp_path, "cpt", 4, **slow)
    first = recorded(left)
    assert first["seconds"] >= 0.5
    state = TrainState(**first)
    again = MetricsCallback(state, Tracker(tmp_path / "curves.jsonl"), toy / "draft", [])
    again.on_train_start(None, None)
    assert again.tracker.earlier_seconds == first["seconds"] <= state.elapsed_seconds()
    assert recorded(mortals.killed(toy, tmp_path, "cpt", 6))["seconds"] > first["seconds"]


def recorded(folder):
    """The content of the newest checkpoint."""
    return torch.load(max((folder / "resume").iterdir()) / "state.pt", weights_only=True)


# ---------------------------------------------------------------- what a stage's run holds


def trained(alpha=0.5, seed=3):
    """The recipe of a draft that is distilled on top of a base model."""
    base = Recipe("soaes.stages.train.pretrain", {"layers": 2, "width": 8, "seed": seed})
    settings = {"alpha": alpha, "tau": 2.0, "optim": {"lr": 0.001}, "seed": seed}
    return Recipe("soaes.stages.train.distill", {"parent": base, **settings})


def test_a_stage_is_found_by_its_model_and_its_files_outlive_the_renaming_of_its_folder(tmp_path):
    recipe = trained()
    folder = str(tmp_path / "wandb")
    logger = LoggerSettings(mode="offline", folder=folder, tags=("smoke",))
    out = tmp_path / "unfinished"
    out.mkdir()
    (out / "recipe.yaml").write_text("alpha: 0.5")
    curve = [{"step": 0, "val/perplexity": 9.0, "seconds": 1.0}]
    curve += [{"step": 1, "val/perplexity": 3.0, "train/tokens_per_s": 10.0, "seconds": 2.0}]
    curve += [{"step": 2, "val/perplexity": 4.0, "train/tokens_per_s": 30.0, "seconds": 3.0}]
    with tracking.track_stage(recipe, Runtime(tmp_path, logger=logger), out) as tracker:
        for point in curve:
            tracker.log({key: point[key] for key in point if key != "step"}, point["step"])
        write_json(out / "metrics.json", {"val/perplexity": 4.0, "steps": 2})
    out.rename(tmp_path / "sealed")

    read = wandb_records.read(tmp_path / "wandb", recipe.name)
    model = "Base 2x8 + distillation (alpha 0.5, tau 2, lr 0.001)"
    assert read["run"]["display_name"] == f"{model}, seed 3"
    assert read["run"]["run_group"] == model and read["run"]["job_type"] == "distill"
    assert read["run"]["tags"] == ["smoke", "seed 3"]
    assert read["run"]["config"]["update"]["alpha"] == 0.5
    assert read["history"] == [{key: p[key] for key in p if key != "step"} for p in curve]
    assert read["summary"]["val/perplexity"] == {"last": 4, "min": 3}
    assert read["summary"]["train/tokens_per_s"] == {"mean": 20}
    assert read["summary"]["distill/steps"] == 2
    assert read["files"]["recipe.yaml"] == b"alpha: 0.5"


def test_the_seeds_of_a_model_and_what_measures_it_are_one_group():
    first, second = (
        tracking.describe_stage(trained(seed=0)),
        tracking.describe_stage(trained(seed=1)),
    )
    assert first.group == second.group and first.name != second.name
    assert tracking.describe_stage(trained(alpha=0.2)).group != first.group
    evaluated = Recipe("soaes.stages.evaluate.evaluate", {"model": trained(seed=0)})
    description = tracking.describe_stage(evaluated)
    assert description.group == first.group and description.tags == ("seed 0",)
    assert description.name.startswith("evaluate: Base 2x8") and description.id == evaluated.name
    world = Recipe("soaes.stages.prepare.world", {"seed": 0})
    assert tracking.describe_stage(world).group == "data"


def test_a_model_whose_ancestors_folder_is_gone_is_named_by_what_is_known():
    child = {"_target_": "soaes.stages.train.cpt", "parent": {PARENT: "pretrain-1a2b"}, "seed": 0}
    description = tracking.describe_stage(revive({"child": child})["child"])
    assert description.name == "pretrain-1a2b + CPT, seed 0"
