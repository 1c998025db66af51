"""Two ranks learn what one process learns: the recipe does not know how many devices run it."""

import pytest
import torch

from soaes.model import checkpoint
from soaes.pipeline import scheduler as builder
from soaes.pipeline import sweep
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
