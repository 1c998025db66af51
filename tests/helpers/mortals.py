"""Training stages on toy models that are killed when a test says so, and what they leave."""

import json
import os
import signal
from functools import partial

import numpy as np
import pytest

from soaes.data import chat, token_store
from soaes.data.jsonl import write_jsonl
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.settings import CosineSchedule, OptimizerSettings
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Execution
from soaes.pipeline.store import Store
from soaes.pipeline.tracking import Tracker
from soaes.stages import teach, train
from tests.helpers.toys import save_pair

CONTEXT, STEPS = 24, 10
# a checkpoint is due after 1e-9 seconds, so before each step
EVERY_STEP = Execution(micro_batch_size=1, checkpoint_every=1e-9)
OPTIM = OptimizerSettings(
    lr=1e-2,
    global_batch_size=4,
    epochs=2,
    schedule=CosineSchedule(warmup=0.2, final=0.1),
    precision="32-true",
)


class Killed(Exception):
    """Stands for a kill where a process of its own is not worth its time."""


def stop():
    raise Killed


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal:
    """A Lightning module that calls functions before given micro-batches and records its input.

    happens: (step, micro-batch of the step) -> function to call before it. seen: receives (step,
    micro-batch, token ids) of each micro-batch, and (step, "validation").
    """

    def __init__(self, happens=None, seen=None, **settings):
        super().__init__(**settings)
        self.happens, self.seen = happens or {}, seen

    def training_step(self, batch, batch_idx):
        now = (self.global_step, batch_idx % self.trainer.accumulate_grad_batches)
        if now in self.happens:
            self.happens[now]()
        if self.seen is not None:
            self.seen.append((*now, batch["ids_BT"].tolist()))
        return super().training_step(batch, batch_idx)

    def on_validation_epoch_start(self):
        if self.seen is not None:
            self.seen.append((self.global_step, "validation"))
        super().on_validation_epoch_start()


class MortalLM(Mortal, CausalLM):
    pass


class MortalDistilledLM(Mortal, DistilledLM):
    pass


def prepare(root):
    """Write a target, a draft near it, one tokenizer, packed rows, and soft targets over them."""
    save_pair(root)
    # 18 rows in steps of 4: the last step of an epoch is small
    for split, count in (("train", 18), ("dev", 3)):
        packed = rows(count, seed=count)
        token_store.write(root / "rows" / split, packed, chat.tokenizer_digest(root / "target"))
    question = {"role": "user", "content": "w1 w2"}
    answer = {"role": "assistant", "content": "w3"}
    write_jsonl(root / "rows" / "dev_prompts.jsonl", [{"messages": [question, answer]}])
    (root / "soft_targets").mkdir()
    teach.teach(root / "target", root / "rows", formats.Hidden(), out=root / "soft_targets")


def rows(count, seed):
    """Make rows of two documents each; the first third of each document bears no loss."""
    ids = np.random.default_rng(seed).integers(4, 64, (count, CONTEXT), np.int32)
    positions = np.tile(np.arange(CONTEXT, dtype=np.int32) % (CONTEXT // 2), (count, 1))
    return token_store.Rows(ids, np.where(positions < 4, token_store.IGNORE, ids), positions)


def build(toy, store, stage, execution=EVERY_STEP, optim=OPTIM, **how):
    """Build one stage as the store would, and return its folder."""
    recipe = Recipe(f"soaes.stages.train.{stage}", {})
    with Store(store).build(recipe) as out:
        if out is None:  # it was killed after its end
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
    """Kill a stage before micro-batch `part` of `step`, and return its unfinished folder."""
    with pytest.raises(Killed):
        build(toy, store, stage, happens={**(happens or {}), (step, part): stop}, **how)
    (unfinished,) = (store / "unfinished").iterdir()
    return unfinished


def outcome(folder):
    """Collect all that a stage leaves, without the times that it took."""
    curves = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    for point in curves:
        point.pop("train/tokens_per_s", None)
        point.pop("seconds", None)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["seconds"]
    others = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix != ".jsonl" and path.name != "metrics.json"
    }
    return {"curves": curves, "metrics": metrics, **others}
