"""The callbacks of a training stage: what must be finite, its metrics, and its checkpoints.

They share the run's `TrainState`. They watch a Lightning module from outside and change nothing
of it.
"""

from __future__ import annotations

import json
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from soaes.data.chat import load_tokenizer, prompt
from soaes.metrics import rouge
from soaes.model import sharding, train_state
from soaes.model.generate import generate
from soaes.model.train_state import Shares, TrainState
from soaes.pipeline.store import check_room
from soaes.pipeline.tracking import CURVE_POINTS, Tracker


class FiniteCallback(pl.Callback):
    """Stop a run at the first number that is not finite, so that no ruined model is sealed.

    It looks at the loss of every micro-batch, the gradient of every step, every validation, and
    the weights at the end of training. In float16 a gradient that overflows under the loss scale
    is no fault: the scaler leaves the step out and lowers the scale; such steps are counted.

    It comes before the callbacks that log or write what it checks.

    Args:
        state: The run's state, whose `skipped_steps` is kept up to date here.
    """

    def __init__(self, state: TrainState) -> None:
        self.state = state

    def on_before_backward(
        self, trainer: pl.Trainer, module: pl.LightningModule, loss: torch.Tensor
    ) -> None:
        """Check the loss of a micro-batch.

        Raises:
            ValueError: It is not finite.
        """
        if not torch.isfinite(loss):
            updates = trainer.global_step
            raise _not_finite(f"the loss is {loss.item()} at step {updates + 1:,}", updates)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_index: int,
    ) -> None:
        """Check the gradient of a step that has just been made.

        Raises:
            ValueError: It is not finite, in float16 without a loss scale that explains it.
        """
        step = trainer.global_step
        if step == self.state.step or math.isfinite(module.grad_norm):
            return  # in the middle of a step, or all is well
        if trainer.scaler is None or trainer.scaler.get_scale() < 1:
            raise _not_finite(
                f"the gradient's norm is {module.grad_norm} at step {step:,}", step - 1
            )
        self.state.skipped_steps += 1

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check the loss of a validation.

        Raises:
            ValueError: It is not finite.
        """
        if not math.isfinite(module.validation_nats):
            updates = self.state.step
            finding = f"the validation loss is {module.validation_nats} after step {updates:,}"
            raise _not_finite(finding, updates)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check every weight: a validation reads only those of its own tokens.

        Raises:
            ValueError: One is not finite.
        """
        for name, weight in module.model.named_parameters():
            if not torch.isfinite(sharding.own_share(weight)).all():
                updates = self.state.step
                raise _not_finite(f"{name} is not finite after step {updates:,}", updates)


def _not_finite(finding: str, updates: int) -> ValueError:
    """The error for a number that is not finite, after so many updates of the weights."""
    if updates:
        way_out = "lower optim.<phase>.lr, or lengthen its schedule's warmup"
    else:
        way_out = (
            "no weight was updated yet, so it comes from the model that the stage starts from, "
            "or from its rows"
        )
    return ValueError(f"{finding}; nothing is kept of this stage: {way_out}")


class MetricsCallback(pl.Callback):
    """Log the curves of a training stage: `_log` is the one place that logs.

    - every (steps // 100)th step: `train/loss`, the mean cross-entropy (or Eq. 2) of the step's
      loss tokens in nats; `train/lr` of this step; `train/grad_norm` before clipping;
      `train/tokens_per_s`, over all devices and with padding, since the last point;
      validations are not counted
    - every validation: `val/perplexity`; `val/rouge1` of greedy answers, times 100, if there are
      dev prompts

    Args:
        state: The run's state, whose `step` and `curve` are kept up to date here.
        tracker: Where to log; None on all ranks but the first.
        tokenizer: Folder with tokenizer.json.
        dev_prompts: Dev conversations; the last answer of each is the Rouge reference. Empty for
            plain text.
        max_new_tokens: Largest number of tokens of an answer.
    """

    def __init__(
        self,
        state: TrainState,
        tracker: Tracker | None,
        tokenizer: Path,
        dev_prompts: list[dict[str, Any]],
        max_new_tokens: int = 48,
    ) -> None:
        self.state = state
        self.tracker = tracker
        self.tokenizer = tokenizer
        self.dev_prompts = dev_prompts
        self.max_new_tokens = max_new_tokens
        self.step_loss = 0.0  # of the step under way
        self.window_tokens = 0  # since the last point of the curve
        self.window_began = time.monotonic()
        self.validation_began = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """In a resumed run, begin with the curve of the attempts before."""
        self.window_began = time.monotonic()
        if self.state.step == 0:
            return
        if self.tracker is not None:
            lines = "".join(json.dumps(line) + "\n" for line in self.state.curve)
            self.tracker.restore(lines, self.state.seconds)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_index: int,
    ) -> None:
        """Accumulate a micro-batch; at the end of a step, log it if it is a point of the curve."""
        self.window_tokens += batch["ids_BT"].numel() * trainer.world_size
        # Lightning has divided the loss by the number of micro-batches, and the mean over ranks
        # undoes the factor of training_step: the sum over micro-batches is the step's loss.
        loss = trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean")
        self.step_loss += float(loss)
        if trainer.global_step == self.state.step:
            return  # in the middle of a step
        self.state.step = trainer.global_step
        if self.state.step % max(1, module.steps // CURVE_POINTS) == 0:
            seconds = time.monotonic() - self.window_began
            point = {
                "train/loss": self.step_loss,
                "train/lr": module.step_lr,
                "train/grad_norm": module.grad_norm,
                "train/tokens_per_s": self.window_tokens / seconds,
            }
            if not math.isfinite(module.grad_norm):  # the scaler left the step out
                del point["train/grad_norm"]
            self._log(point)
            self.window_tokens = 0
            self.window_began = time.monotonic()
        self.step_loss = 0.0

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Stop the clock of training."""
        self.validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the perplexity, and the Rouge-1 of answers where one rank has the whole model."""
        metrics = {"val/perplexity": module.perplexity}
        if self.dev_prompts and trainer.is_global_zero and not sharding.is_sharded(module):
            metrics["val/rouge1"] = self._rouge1(module.model)
        self._log(metrics)
        self.window_began += time.monotonic() - self.validation_began

    def _log(self, metrics: dict[str, float]) -> None:
        """Log metrics at the current step: to the state's curve, curves.jsonl and W&B."""
        metrics = {**metrics, "seconds": round(self.state.elapsed_seconds(), 3)}
        self.state.curve.append({"step": self.state.step, **metrics})
        if self.tracker is not None:
            self.tracker.log(metrics, step=self.state.step)

    def _rouge1(self, model: Any) -> float:
        """Mean Rouge-1 of greedy answers to the dev prompts."""
        tokenizer = load_tokenizer(self.tokenizer)
        questions = [prompt(tokenizer, item["messages"][:-1]) for item in self.dev_prompts]
        references = [item["messages"][-1]["content"] for item in self.dev_prompts]
        answers = generate(model, tokenizer, questions, self.max_new_tokens)
        scores = [
            rouge.score(answer, reference)["rouge1"]
            for answer, reference in zip(answers, references, strict=True)
        ]
        return sum(scores) / len(scores)


# Checkpoints on the disk at once: the newest, the one before it in case the newest is damaged, and
# one being written.
CHECKPOINTS_ON_DISK = 3


class CheckpointCallback(pl.Callback):
    """Write checkpoints between optimizer steps, and load the one that the run continues from.

    Every rank loads. The first writes, and each its share where the state is sharded. When to write
    is decided by the first rank's clock. A module that counts something beside its weights adds it
    to its state_dict by torch's get_extra_state and set_extra_state.

    Args:
        state: The run's state, new or from `train_state.load_newest`.
        folder: Where checkpoints lie.
        every: Seconds between two checkpoints; 0 for none.
        shares: Who writes and reads a rank's share of the state; None: each rank holds all of it.
    """

    def __init__(
        self, state: TrainState, folder: Path, every: float, shares: Shares | None = None
    ) -> None:
        self.state = state
        self.folder = folder
        self.every = every
        self.shares = shares
        self.last_step = state.step  # of the last checkpoint
        self.last_time = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check that the disk has room, and load the checkpoint that the run continues from.

        Raises:
            ValueError: The disk cannot hold the checkpoints.
        """
        if self.every:
            _check_room(self.folder, module)
        self.state.restore(trainer, module, self.folder, self.shares)
        self.last_time = time.monotonic()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        batch: dict[str, Any],
        batch_index: int,
    ) -> None:
        """Write a checkpoint if one is due.

        Before the first micro-batch of a step the last step is over, its validation included, and
        no gradient is kept.

        Raises:
            OSError: The checkpoint cannot be written.
        """
        starts_step = batch_index % trainer.accumulate_grad_batches == 0
        if not self.every or not starts_step or trainer.global_step <= self.last_step:
            return
        is_due = time.monotonic() - self.last_time >= self.every
        if not trainer.strategy.broadcast(is_due):
            return
        self.last_step = trainer.global_step
        if self.shares is not None:
            write_shares = partial(self.shares.write_shares, trainer=trainer, module=module)
            train_state.write(self.folder, self.state.snapshot(trainer, module), write_shares)
        elif trainer.is_global_zero:
            train_state.write(self.folder, self.state.snapshot(trainer, module))
        self.last_time = time.monotonic()


def _check_room(folder: Path, module: pl.LightningModule) -> None:
    """ValueError if the disk cannot hold as many checkpoints as lie there at once."""
    existing = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = CHECKPOINTS_ON_DISK * _checkpoint_bytes(module) - existing
    way_out = "train without: runtime.execution.checkpoint_every=0"
    check_room(folder, needed, "checkpoints", way_out)


def _checkpoint_bytes(module: pl.LightningModule) -> int:
    """The module's tensors that are not frozen, a tied weight once, and AdamW's two moments."""
    total = 0
    for tensor in sharding.saved_tensors(module).values():
        is_frozen = isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad
        total += 0 if is_frozen else sharding.whole_bytes(tensor)
    for weight in module.parameters():
        if weight.requires_grad:
            in_float32 = 2 if weight.dtype == torch.float32 else 3  # the weights too, by ZeRO-3
            total += in_float32 * 4 * sharding.whole_shape(weight).numel()
    return total
