"""The Lightning module of causal-LM training over packed rows.

It defines the loss of a step, AdamW with its schedule, and the validation perplexity. It knows
batches and steps; where rows come from and where weights go is the stage's concern.

# B rows of T tokens, N loss tokens of a batch, C of a chunk, D width, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch.distributed.tensor import DTensor

from soaes.data.token_store import IGNORE, loss_mask
from soaes.model import attention, chunked_loss, losses, sharding
from soaes.model.output_head import OutputHead, compute_losses_in_head


class CausalLM(pl.LightningModule):
    """Causal-LM training with cross-entropy.

    Args:
        model: A Hugging Face causal LM.
        lr: Peak learning rate.
        schedule: schedule(step, steps) returns the factor on the peak rate.
        betas: AdamW's.
        weight_decay: AdamW's, of matrices only.
        steps: Optimizer steps of the whole training.
        grad_clip: The norm that gradients are clipped to.
        adamw: The optimizer's class.
    """

    def __init__(
        self,
        model: Any,
        lr: float,
        schedule: Callable[[int, int], float],
        betas: tuple[float, float],
        weight_decay: float,
        steps: int,
        grad_clip: float,
        adamw: Callable[..., torch.optim.Optimizer] = partial(torch.optim.AdamW, fused=True),
    ) -> None:
        super().__init__()
        compute_losses_in_head(model)
        self.model = model
        self.made_buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.lr = lr
        self.schedule = schedule
        self.betas = tuple(betas)
        self.weight_decay = weight_decay
        self.steps = steps
        self.grad_clip = grad_clip
        self.adamw = adamw
        self.step_lr = math.nan  # the learning rate of the last step
        self.clipped_norm = math.nan  # what the last step's gradients had before it was clipped
        self.validation_nats = 0.0
        self.validation_tokens = 0

    def loss_positions(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the model's body and select the positions whose next token bears loss.

        The first token of a document (position 0) never bears loss, since it would be predicted
        from another document.

        Returns:
            hidden_ND: Final hidden states at these positions, row after row.
            labels_N: The next token of each.
        """
        hidden_BTD = attention.final_hidden(self.model, batch["ids_BT"], batch["positions_BT"])
        mask_BT = loss_mask(batch["labels_BT"], batch["positions_BT"])
        labels_BT = torch.where(mask_BT, batch["labels_BT"], IGNORE)
        next_labels_BT = torch.nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORE)
        predicts_BT = next_labels_BT != IGNORE
        return hidden_BTD[predicts_BT], next_labels_BT[predicts_BT]

    def loss_sum(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return the loss summed over the batch's loss tokens, in nats."""
        hidden_ND, labels_N = self.loss_positions(batch)
        return self.cross_entropy(hidden_ND, labels_N)

    def cross_entropy(self, hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy summed over N tokens, in nats."""

        def chunk_loss(logits_CV: torch.Tensor, tokens: slice) -> torch.Tensor:
            return losses.cross_entropy(logits_CV, labels_N[tokens])

        return self.loss_over_chunks(hidden_ND, chunk_loss)

    def loss_over_chunks(
        self, hidden_ND: torch.Tensor, chunk_loss: chunked_loss.ChunkLoss
    ) -> torch.Tensor:
        """Return a loss of the logits, computed for one chunk of tokens at a time."""

        def loss(hidden_ND: torch.Tensor) -> torch.Tensor:
            """Read the output matrix, which is whole while its module is called."""
            head = OutputHead.of(self.model)

            def loss_of_product(product_CV: torch.Tensor, tokens: slice) -> torch.Tensor:
                return chunk_loss(head.finish(product_CV), tokens)

            states, matrix = head.matrix_inputs(hidden_ND)
            return chunked_loss.chunked_loss(states, matrix, loss_of_product)

        return self.model.get_output_embeddings()(hidden_ND, loss)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        """Return this micro-batch's part of the step's loss: the mean over its loss tokens."""
        # Lightning divides by the number of micro-batches, and averages over ranks. `scale` undoes
        # both, since the sum is divided by the loss tokens of the whole step.
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return self.loss_sum(batch) * (scale / batch["step_tokens"])

    def on_train_start(self) -> None:
        self._restore_buffers()

    def on_validation_start(self) -> None:
        self._restore_buffers()

    def _restore_buffers(self) -> None:
        """Undo what a precision plugin or a strategy cast: buffers stay as the model made them.

        Rotary frequencies in bfloat16 are off by radians of phase at position 4,096, and a saved
        folder, which makes its own, would be another model than the one that was trained.
        """
        for name, made in self.made_buffers.items():
            path, _, attribute = name.rpartition(".")
            owner = self.model.get_submodule(path)
            buffer = getattr(owner, attribute)
            if buffer.dtype != made.dtype:
                setattr(owner, attribute, made.to(buffer.device))

    def on_validation_epoch_start(self) -> None:
        self.validation_nats = 0.0
        self.validation_tokens = 0

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        hidden_ND, labels_N = self.loss_positions(batch)
        self.validation_nats += self.cross_entropy(hidden_ND, labels_N).item()
        self.validation_tokens += len(labels_N)

    @property
    def perplexity(self) -> float:
        """exp(mean cross-entropy) over the dev rows' loss tokens, as of the last validation."""
        mean_nats = self.validation_nats / max(1, self.validation_tokens)
        return math.exp(min(mean_nats, 80))

    @property
    def metrics(self) -> dict[str, float | None]:
        """Extra entries for metrics.json after training."""
        return {}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip by the norm of all gradients; keep the norm and the learning rate for the curve.

        The trainer's own clipping sums the norm in another order, and does not return it. In
        float16 the gradients carry the loss scale, which Lightning leaves a fused optimizer to
        undo: it is undone before they are clipped.
        """
        self.step_lr = optimizer.param_groups[0]["lr"]
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            return  # it clips within its step
        if self.trainer.scaler is not None:
            self.trainer.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), self.grad_clip)
        if isinstance(norm, DTensor):  # FSDP2: this rank's part of it
            norm = norm.full_tensor()
        self.clipped_norm = float(norm)

    @property
    def grad_norm(self) -> float:
        """Norm of all gradients of the last step: without a loss scale, before clipping."""
        if isinstance(self.trainer.strategy, DeepSpeedStrategy):
            return float(self.trainer.model.get_global_grad_norm())
        return self.clipped_norm

    def configure_model(self) -> None:
        """Do nothing: a model is laid over its ranks when it is loaded."""

    def configure_optimizers(self) -> dict[str, Any]:
        """Return AdamW of what is trained, and its schedule; vectors have no weight decay."""
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        matrices: list[torch.nn.Parameter] = []
        vectors: list[torch.nn.Parameter] = []
        for weight in trained:
            is_matrix = len(sharding.whole_shape(weight)) > 1
            (matrices if is_matrix else vectors).append(weight)
        groups = [
            {"params": matrices, "weight_decay": self.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = self.adamw(groups, lr=self.lr, betas=self.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        return self.schedule(step, self.steps)
