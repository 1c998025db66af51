"""Training stages on toys, which end when a test says so, and what they leave."""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest

from soaes.data import token_store
from soaes.data.jsonl import write_jsonl
from soaes.model import schedules
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Execution
from soaes.pipeline.store import Store
from soaes.pipeline.tracking import Tracker
from soaes.stages import teach, train
from tests.helpers.toys import save_pair

CONTEXT, STEPS = 24, 10
EVERY_STEP = Execution(
    micro_batch_size=1, checkpoint_every=1e-9
)  # seconds: a checkpoint before each step
OPTIM = {
    "lr": 1e-2,
    "global_batch_size": 4,
    "epochs": 2,
    "max_tokens": None,
    "schedule": partial(schedules.cosine, warmup=0.2, final=0.1),
    "betas": [0.9, 0.95],
    "weight_decay": 0.1,
    "grad_clip": 1.0,
    "precision": "32-true",
}


class Killed(Exception):
    """Stands for a kill where a process of its own is not worth its time."""


def stop():
    raise Killed


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal:
    """A Lightning module that something happens to before micro-batches (step, part), and that writes down what it was given."""

    def __init__(self, happens=None, seen=None, **settings):
        super().__init__(**settings)
        self.happens, self.seen = happens or {}, seen

    def training_step(self, batch, at):
        now = (self.global_step, at % self.trainer.accumulate_grad_batches)
        if now in self.happens:
            self.happens[now]()
        if self.seen is not None:
            self.seen.append((*now, batch["ids_BT"].tolist()))
        return super().training_step(batch, at)

    def on_validation_epoch_start(self):
        if self.seen is not None:
            self.seen.append((self.global_step, "validation"))
        super().on_validation_epoch_start()


class MortalLM(Mortal, CausalLM):
    pass


class MortalDistilledLM(Mortal, DistilledLM):
    pass


def prepare(root):
    """Folders of a model and its near twin with one tokenizer, of packed rows, and of the twin's signal over them."""
    save_pair(root)
    for split, count in (
        ("train", 18),
        ("dev", 3),
    ):  # 18 rows in steps of 4: the last step of an epoch is small
        token_store.write(root / "rows" / split, rows(count, seed=count))
    write_jsonl(
        root / "rows" / "dev_prompts.jsonl",
        [
            {
                "messages": [
                    {"role": "user", "content": "w1 w2"},
                    {"role": "assistant", "content": "w3"},
                ]
            }
        ],
    )
    (root / "soft_targets").mkdir()
    teach.teach(root / "target", root / "rows", formats.Hidden(), out=root / "soft_targets")


def rows(count, seed):
    """Two documents a row, of which the first third bears no loss."""
    ids = np.random.default_rng(seed).integers(4, 64, (count, CONTEXT), np.int32)
    positions = np.tile(np.arange(CONTEXT, dtype=np.int32) % (CONTEXT // 2), (count, 1))
    return token_store.Rows(ids, np.where(positions < 4, token_store.IGNORE, ids), positions)


def build(toy, store, stage, execution=EVERY_STEP, optim=OPTIM, **how):
    """Build one stage as the store would; its folder."""
    recipe = Recipe(f"soaes.stages.train.{stage}", {})
    with Store(store).build(recipe) as out:
        if out is None:  # killed after its end
            return Store(store).folder(recipe.name)
        common = {
            "optim": optim,
            "seed": 0,
            "execution": execution,
            "tracker": Tracker(out / "curves.jsonl"),
            "out": out,
        }
        module = partial(MortalDistilledLM if stage == "distill" else MortalLM, **how)
        if stage == "pretrain":
            train.pretrain(toy / "draft", toy / "rows", 1, 16, 2, 1, CONTEXT, module, **common)
        elif stage == "distill":
            train.distill(
                toy / "draft", toy / "rows", toy / "soft_targets", 0.5, 2.0, module, **common
            )
        else:
            getattr(train, stage)(toy / "draft", toy / "rows", module, **common)
    return Store(store).folder(recipe.name)


def killed(toy, store, stage, step, part=0, happens=None, **how):
    """The unfinished folder of a stage that ends before micro-batch `part` of `step`."""
    with pytest.raises(Killed):
        build(toy, store, stage, happens={**(happens or {}), (step, part): stop}, **how)
    (unfinished,) = (store / "unfinished").iterdir()
    return unfinished


def outcome(folder):
    """All that a stage leaves, without the times that it took."""
    curves = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    timeless = [
        {key: value for key, value in line.items() if key not in ("train/tokens_per_s", "seconds")}
        for line in curves
    ]
    others = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix not in (".jsonl",) and path.name != "metrics.json"
    }
    return {
        "curves": timeless,
        "metrics": {key: value for key, value in metrics.items() if key != "seconds"},
        **others,
    }
