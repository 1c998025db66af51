"""A stage of several attempts has one curve, complete in W&B too, and the seconds of all."""

import json
import time
from functools import partial

import pytest
import torch

from soaes.model.callbacks import MetricsCallback
from soaes.model.train_state import TrainState
from soaes.pipeline.runtime import LoggerSettings
from soaes.pipeline.tracking import Tracker, WandbRun
from tests.helpers import mortals


class Run:
    """Stands for a W&B run, which has no place for a step that is past."""

    def __init__(self):
        self.lines = []

    def log(self, values, step):
        assert not self.lines or step >= self.lines[-1]["step"]
        self.lines.append({"step": step, **values})


def mirrored(monkeypatch, build, *words):
    """The folder of a stage, and what W&B was given while it was built."""
    mirror = WandbRun(LoggerSettings())
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
