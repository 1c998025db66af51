"""Two ranks of torchrun: the recipe does not know how many devices run it, and one may die."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from soaes.model import checkpoint
from soaes.pipeline import progress, sweep, worker
from soaes.pipeline import scheduler as builder
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store
from tests.helpers.small import SMALL_MODELS, SMALL_WORLD

WORDS = [
    "goal=target.base",
    *SMALL_WORLD,
    *SMALL_MODELS,
    "logger=none",
    "optim.general.epochs=1",
    "tokenizer.vocabulary=600",
    "context=128",
]
TWO = [
    "runtime.torchrun=[pretrain]",
    "runtime.execution.devices=2",
    "runtime.execution.strategy=ddp",
]


@pytest.mark.nightly
def test_two_ranks_learn_what_one_process_learns(tmp_path):
    learnt = []
    for name, words in (("one", WORDS), ("two", [*WORDS, *TWO])):
        (row,) = sweep.jobs([*words, f"runtime.store={tmp_path / name}"])
        store = Store(tmp_path / name)
        assert not builder.build(store, [row.recipe], row.runtime).failed
        store.verify(row.recipe.name)
        learnt.append(
            (row.recipe.name, checkpoint.load(store.folder(row.recipe.name)).state_dict())
        )
    (name_of_one, weights_of_one), (name_of_two, weights_of_two) = learnt
    assert name_of_one == name_of_two, "the recipe must not know the devices"
    # The order of a sum differs; AdamW makes that up to 1e-4 where a gradient is nearly zero.
    # A step is the learning rate, 3e-3.
    assert all(
        torch.allclose(weights_of_one[key], weights_of_two[key], atol=1e-4)
        for key in weights_of_one
    )


@pytest.mark.nightly
def test_a_lost_rank_is_one_line_and_the_next_run_goes_on(tmp_path):
    (row,) = sweep.jobs([*WORDS, *TWO, f"runtime.store={tmp_path / 'store'}"])
    store, failed = Store(tmp_path / "store"), {}
    building = threading.Thread(
        target=lambda: failed.update(builder.build(store, [row.recipe], row.runtime).failed)
    )
    building.start()
    out, deadline = store.unfinished(row.recipe.name), time.monotonic() + 300
    while not (out / "curves.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process_of_rank(1, out), signal.SIGKILL)
    building.join(timeout=300)
    assert failed[row.recipe.name].startswith(worker.LOST_RANK)
    assert progress.resuming_line(store, [row.recipe]).startswith(
        "0 of 1 rows done, 1 failed (a rank ended without a word (killed, out of memory"
    )
    assert not builder.build(store, [row.recipe], row.runtime).failed
    store.verify(row.recipe.name)


@pytest.mark.parametrize(
    ("printed", "failure"),
    [("ChildFailedError", worker.LOST_RANK), ("SignalException: got signal: 15", "")],
    ids=["a-rank-died", "torchrun-was-ended"],
)
def test_ranks_that_are_ended_beside_a_lost_one_do_not_hide_it(
    tmp_path, monkeypatch, printed, failure
):
    """torchrun ends the others by SIGTERM, as a batch system does all of them."""
    store, recipe = Store(tmp_path), Recipe("soaes.stages.train.sft", {})
    code = (
        f"open(r'{store.unfinished(recipe.name)}/reason.txt', 'w').write('SIGTERMException:')\n"
        f"raise SystemExit('{printed}')"
    )
    monkeypatch.setattr(builder, "ranks_command", lambda *given: [sys.executable, "-c", code])
    with pytest.raises(SystemExit):
        builder.build_stage(store, recipe, Runtime(tmp_path, torchrun=("sft",)), exclusive=False)
    assert store.failure(recipe.name).startswith(failure)
    assert bool(store.failure(recipe.name)) == bool(failure)


def process_of_rank(rank, out):
    """The process of one of the ranks that build a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            variables = (process / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue  # not ours to look into, or over
        if str(out.absolute()) in words and f"RANK={rank}" in variables:
            return int(process.name)
    raise AssertionError(f"no rank {rank} builds {out}")
