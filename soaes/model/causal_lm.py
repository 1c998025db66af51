"""The Lightning module of causal-LM training over packed rows: one loss per step, AdamW, a schedule, a validation perplexity.

Knows batches and steps; where rows come from and where weights go is the stage's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch

from soaes.data.token_store import IGNORE, loss_mask
from soaes.model import checkpoint, chunked_loss, losses


class CausalLM(pl.LightningModule):
    """model: a Hugging Face causal LM. lr: peak rate. schedule(step, steps) -> factor on it. steps: optimizer steps in all.
    cpu_offload: the optimizer's state lies in the processor's memory."""

    def __init__(
        self,
        model: Any,
        lr: float,
        schedule: Callable[[int, int], float],
        betas: tuple[float, float],
        weight_decay: float,
        steps: int,
        cpu_offload: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.lr, self.schedule, self.steps = model, lr, schedule, steps
        self.betas, self.weight_decay = tuple(betas), weight_decay
        self.grad_norm, self.cpu_offload = math.nan, cpu_offload

    def predicting(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """(hidden_ND, labels_N): final hidden states where the next token bears loss, row after row, and that token.

        Attention is block-diagonal: transformers derives it from positions that restart, as long as there is no attention
        mask and no cache. A label at position 0 belongs to the next document and is predicted from nothing."""
        outputs = self.model.model(
            input_ids=batch["ids_BT"], position_ids=batch["positions_BT"], use_cache=False
        )
        bears_loss_BT = loss_mask(batch["labels_BT"], batch["positions_BT"])
        following_BT = torch.where(bears_loss_BT, batch["labels_BT"], IGNORE)
        following_BT = torch.nn.functional.pad(following_BT[:, 1:], (0, 1), value=IGNORE)
        where_BT = following_BT != IGNORE
        return outputs.last_hidden_state[where_BT], following_BT[where_BT]

    def loss_sum(self, batch: dict[str, Any]) -> torch.Tensor:
        """Sum over the batch's loss tokens, in nats."""
        hidden_ND, labels_N = self.predicting(batch)
        return self.cross_entropy(hidden_ND, labels_N)

    def cross_entropy(self, hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        return self.of_logits(
            hidden_ND, lambda logits_CV, where: losses.cross_entropy(logits_CV, labels_N[where])
        )

    def of_logits(self, hidden_ND: torch.Tensor, of_chunk: chunked_loss.OfChunk) -> torch.Tensor:
        """A loss of the logits, chunk by chunk of tokens."""
        if checkpoint.sharded(
            self.model
        ):  # ZeRO-3 gathers a weight only where its module is called
            return of_chunk(self.model.lm_head(hidden_ND).float(), slice(None))
        return chunked_loss.chunked_loss(hidden_ND, self.model.lm_head.weight, of_chunk)

    def training_step(self, batch: dict[str, Any], at: int) -> torch.Tensor:
        # Lightning divides by the micro-batches, and the mean over ranks by the ranks: both are undone, since the division
        # that counts is the one by the loss tokens of the whole step
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size
        loss = self.loss_sum(batch) * (scale / batch["step_tokens"])
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss is {loss.item()} at step {self.global_step}, micro-batch {at}; lower optim.<phase>.lr"
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        self.nats, self.tokens = 0.0, 0

    def validation_step(self, batch: dict[str, Any], at: int) -> None:
        hidden_ND, labels_N = self.predicting(batch)
        self.nats += self.cross_entropy(hidden_ND, labels_N).item()
        self.tokens += len(labels_N)

    @property
    def perplexity(self) -> float:
        """exp of the mean cross-entropy over the dev rows' loss tokens, as of the last validation."""
        return math.exp(min(self.nats / max(1, self.tokens), 80))

    @property
    def metrics(self) -> dict[str, float]:
        """What else a module has to say of its training, once it is over."""
        return {}

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.grad_norm = float(
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        )

    def configure_optimizers(self) -> dict[str, Any]:
        matrices = [weight for weight in self.parameters() if weight.ndim > 1]
        others = [
            weight for weight in self.parameters() if weight.ndim <= 1
        ]  # norms and biases do not decay
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = _adamw(self.cpu_offload)(groups, lr=self.lr, betas=self.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(_factor, self.schedule, self.steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _adamw(cpu_offload: bool) -> Any:
    """AdamW; DeepSpeed takes its own of the same rule where the optimizer's state lies in the processor's memory."""
    if not cpu_offload:
        return partial(torch.optim.AdamW, fused=True)
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam


def _factor(schedule: Callable[[int, int], float], steps: int, step: int) -> float:
    return schedule(step, steps)
