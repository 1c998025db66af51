"""The curves of a training stage: loss, learning rate, gradient norm and tokens per second of steps; perplexity and Rouge of dev.

Watches a Lightning module from outside; changes nothing of it."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from soaes.data.chat import load_tokenizer, prompt
from soaes.metrics import rouge
from soaes.model import checkpoint, train_state
from soaes.model.train_state import newest
from soaes.pipeline import private_api
from soaes.pipeline.store import check_room

POINTS = 100  # at most so many points a curve


class MetricsCallback(pl.Callback):
    """prompts: dev conversations whose last answer is the reference of the validation Rouge; none for plain text."""

    def __init__(
        self, tracker: Any, tokenizer: Path, prompts: list[dict[str, Any]], max_new_tokens: int = 48
    ) -> None:
        self.tracker, self.tokenizer, self.prompts, self.max_new_tokens = (
            tracker,
            tokenizer,
            prompts,
            max_new_tokens,
        )
        self.validations: list[dict[str, float]] = []
        self.tokens, self.loss, self.since, self.step = 0, 0.0, time.monotonic(), 0
        self.began, self.earlier = (
            self.since,
            0.0,
        )  # seconds of the attempts from which this one goes on

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: dict[str, Any], at: int
    ) -> None:
        self.tokens += batch["ids_BT"].numel() * trainer.world_size
        # Lightning has divided the loss by the micro-batches, and the mean over ranks undoes what training_step multiplied
        self.loss += float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean"))
        if trainer.global_step == self.step:
            return  # in the middle of a step
        self.step = trainer.global_step
        if self.step % max(1, module.steps // POINTS) == 0:
            passed, rate = (
                time.monotonic() - self.since,
                trainer.optimizers[0].param_groups[0]["lr"],
            )
            values = {
                "train/loss": self.loss,
                "train/lr": rate,
                "train/grad_norm": module.grad_norm,
                "train/tokens_per_s": self.tokens / passed,
            }
            self._log(values)
            self.tokens, self.since = 0, time.monotonic()
        self.loss = 0.0

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        values = {"val/perplexity": module.perplexity}
        if self.prompts and trainer.is_global_zero and not checkpoint.sharded(module):
            values["val/rouge1"] = self._rouge(module.model)
        self.validations.append({"step": self.step, **values})
        self._log(values)
        self.since = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The record up to a step's end, where nothing else is under way."""
        lines, seconds = (
            self.tracker.path.read_text() if self.tracker else "",
            self.earlier + time.monotonic() - self.began,
        )
        return {
            "step": self.step,
            "validations": self.validations,
            "lines": lines,
            "seconds": seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.validations, self.earlier, self.since = (
            state["step"],
            state["validations"],
            state["seconds"],
            time.monotonic(),
        )
        if self.tracker is not None:
            self.tracker.take_up(state["lines"], self.earlier)

    def _log(self, values: dict[str, float]) -> None:
        if self.tracker is not None:
            self.tracker.log(
                {**values, "seconds": round(self.earlier + time.monotonic() - self.began, 3)},
                step=self.step,
            )

    def _rouge(self, model: Any) -> float:
        """Mean Rouge-1 of greedy answers to the dev prompts."""
        from soaes.model.generate import generate

        tokenizer = load_tokenizer(self.tokenizer)
        said = generate(
            model,
            tokenizer,
            [prompt(tokenizer, item["messages"][:-1]) for item in self.prompts],
            self.max_new_tokens,
        )
        scores = [
            rouge.score(text, item["messages"][-1]["content"])["rouge1"]
            for text, item in zip(said, self.prompts, strict=True)
        ]
        return sum(scores) / len(scores)


AT_ONCE = 3  # checkpoints on the disk at most: the last, the one before it should the last be damaged, and one being written


class CheckpointCallback(pl.Callback):
    """Write a checkpoint into `folder` whenever `every` seconds have passed (0: never), between two steps; take up the newest that is good.

    contract: what a checkpoint must have been written with to be taken up. curves: the callback whose record goes along.
    A module that counts something beside its weights adds it to its state_dict by torch's get_extra_state and set_extra_state.
    Every rank reads, the first writes: each must hold the whole state."""

    def __init__(self, folder: Path, every: float, contract: dict[str, Any], curves: Any) -> None:
        self.folder, self.every, self.contract, self.curves = folder, every, contract, curves
        self.found = newest(folder, contract) if every else None
        self.step = self.found["step"] if self.found else 0  # of the last checkpoint
        self.since = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.every:
            _check_room(self.folder, module)
        if self.found:
            self._take_up(trainer, module, self.found)
            self.found = None  # its memory is not needed twice
        self.since = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: dict[str, Any], at: int
    ) -> None:
        """Before a step's first micro-batch all of the last step is over, its validation too, and no gradient is kept."""
        due = self.every and time.monotonic() - self.since >= self.every
        if (
            due
            and trainer.is_global_zero
            and trainer.global_step > self.step
            and at % trainer.accumulate_grad_batches == 0
        ):
            self.step = trainer.global_step
            train_state.write(self.folder, self._state(trainer, module))
            self.since = time.monotonic()

    def _state(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        return {
            "contract": self.contract,
            "step": self.step,
            "module": module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "precision": trainer.precision_plugin.state_dict(),
            "curves": self.curves.state_dict(),
            "random": _random(),
        }

    def _take_up(
        self, trainer: pl.Trainer, module: pl.LightningModule, state: dict[str, Any]
    ) -> None:
        module.load_state_dict(state["module"])
        trainer.optimizers[0].load_state_dict(state["optimizer"])
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(state["schedule"])
        trainer.precision_plugin.load_state_dict(state["precision"])
        self.curves.load_state_dict(state["curves"])
        private_api.set_completed_steps(trainer, state["step"])
        _set_random(state["random"])


def _check_room(folder: Path, module: pl.LightningModule) -> None:
    """ValueError if the disk cannot hold, beside the checkpoints that are there, what AT_ONCE of them take."""
    held = sum(path.stat().st_size for path in folder.rglob("state.pt"))
    check_room(
        folder,
        AT_ONCE * _bytes(module) - held,
        "checkpoints",
        "train without: runtime.execution.checkpoint_every=0",
    )


def _bytes(module: pl.LightningModule) -> int:
    """A checkpoint's: what the module keeps, a tied weight once, and AdamW's two moments of the weights that are trained."""
    kept = {
        tensor.data_ptr(): tensor.nbytes
        for tensor in module.state_dict().values()
        if isinstance(tensor, torch.Tensor)
    }
    return sum(kept.values()) + 2 * sum(
        weight.nbytes for weight in module.parameters() if weight.requires_grad
    )


def _random() -> dict[str, Any]:
    """The generators of torch, NumPy and Python. Nothing in training draws on a GPU."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def _set_random(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
