"""Compare what a run will compute with the model's own forward pass, before it is relied on.

Training and teaching do two things that a model's own `forward` does not: they take logits from
final hidden states (soaes.model.output_head), and they lay several documents into one row
(soaes.model.attention). Either is silently wrong for some families and attentions. Here a few
random tokens go both ways, and what differs is refused by name.

# B packed rows of T tokens, M documents of L tokens each, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch

from soaes.model import attention

DOCUMENTS = 3  # of a packed row
PADDING = 2  # tokens at a packed row's end
LENGTH = 8  # tokens of a document at most

# The largest relative error of a token's logits. Rounding is below 1e-5 in float32. In 16 bits it
# is a few per cent and may exchange an expert, so that there the median over a document's tokens
# counts. Documents that see each other, or a missing scale, are off by far more.
LIMIT_FLOAT32 = 1e-3
LIMIT_HALF = 0.1
HALF = (torch.bfloat16, torch.float16)

# (ids_BT, positions_BT) -> logits_BTV, as the run computes them
PackedLogits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@torch.no_grad()
def check(
    model: Any,
    packed_logits: PackedLogits,
    context: int,
    micro_batch_size: int,
    device: torch.device | str,
) -> None:
    """Check that packed documents get the logits that the model gives each of them alone.

    Four forward passes over at most 52 tokens. The model's attention, device and dtype are those
    of the run; an autocast of the run is around the call. No random state is touched.

    Args:
        model: A Hugging Face causal LM.
        packed_logits: The run's own way from packed rows to logits.
        context: Tokens of the run's rows.
        micro_batch_size: Rows that the run computes at once.
        device: Where it computes; shares of its weights may lie elsewhere.

    Raises:
        ValueError: The model does not run, or the logits differ; the text names which of the
            three ways is at fault, and the way out.
    """
    was_training = model.training
    model.eval()
    try:
        _compare(model, packed_logits, context, min(micro_batch_size, 2), device)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{_name(model)} does not run over packed rows ({type(error).__name__}: {error}); "
            "set runtime.execution.attention=sdpa, or take a model with full attention"
        ) from error
    finally:
        model.train(was_training)


def _compare(
    model: Any,
    packed_logits: PackedLogits,
    context: int,
    rows_B: int,
    device: torch.device | str,
) -> None:
    length = max(2, min(LENGTH, (context - PADDING) // DOCUMENTS))
    documents_ML, packed = _tokens(model, rows_B, length, device)
    alone = model(input_ids=documents_ML, use_cache=False).logits
    is_half = _is_half(model) or alone.dtype in HALF
    alone = alone.float()
    with attention.using_attention(model, "eager"):
        own = model(input_ids=documents_ML, use_cache=False).logits.float()
    together = _documents(packed_logits(*packed), length)

    ids_BT, positions_BT = packed
    changed_BT = ids_BT.clone()
    changed_BT[0, :length] = documents_ML[-1]
    beside_another = _documents(packed_logits(changed_BT, positions_BT), length)

    name = attention.current(model)
    limit = LIMIT_HALF if is_half else LIMIT_FLOAT32
    if (error := _error(alone, own, is_half)) > limit:
        raise ValueError(
            f"attention={name} is not what {_name(model)} computes: its logits are off by "
            f"{error:.0%}, as where a soft cap of scores is left out; "
            "set runtime.execution.attention=eager"
        )
    if (error := _error(beside_another[1:], together[1:], is_half)) > limit:
        raise ValueError(
            f"documents of a packed row see each other in {_name(model)} with attention={name} "
            f"and {rows_B} rows at once: another document changes their logits by {error:.0%}; "
            "set runtime.execution.attention=sdpa or runtime.execution.micro_batch_size=1, or "
            "take a model with full attention"
        )
    if (error := _error(together, alone, is_half)) > limit:
        raise ValueError(
            f"{_name(model)} has other logits than its hidden states give with its output matrix, "
            f"bias, scale and soft cap: they are off by {error:.0%}; take a model of another family"
        )


def _tokens(
    model: Any, rows_B: int, length: int, device: torch.device | str
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Return random documents_ML, and the same as packed rows: ids_BT and positions_BT."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings
    shape = (rows_B * DOCUMENTS, length)
    documents_ML = torch.randint(vocabulary, shape, generator=generator)
    padding = torch.zeros(rows_B, PADDING, dtype=torch.long)
    ids_BT = torch.cat([documents_ML.view(rows_B, -1), padding], dim=1)
    positions_T = torch.cat([torch.arange(length).repeat(DOCUMENTS), padding[0]])
    positions_BT = positions_T.repeat(rows_B, 1)
    return documents_ML.to(device), (ids_BT.to(device), positions_BT.to(device))


def _documents(logits_BTV: torch.Tensor, length: int) -> torch.Tensor:
    """Return logits [M, L, V] of packed rows."""
    without_padding = logits_BTV[:, : DOCUMENTS * length]
    return without_padding.reshape(-1, length, logits_BTV.shape[2]).float()


def _error(logits_MLV: torch.Tensor, reference_MLV: torch.Tensor, is_half: bool) -> float:
    """Return the largest relative error; infinite where logits are not finite.

    Softmax takes no notice of a constant, so the size is that of the differences between logits.
    """
    size_ML = (reference_MLV - reference_MLV.mean(-1, keepdim=True)).norm(dim=-1)
    error_ML = (logits_MLV - reference_MLV).norm(dim=-1) / size_ML.clamp_min(1e-12)
    error = error_ML.median(dim=1).values.max() if is_half else error_ML.max()
    return float(error) if torch.isfinite(error) else float("inf")


def _is_half(model: Any) -> bool:
    """Tell whether the model computes in 16 bits, by its weights or by autocast.

    FSDP2 casts float32 weights itself, which its logits show.
    """
    device = model.device.type
    is_cast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_cast else model.dtype
    return dtype in HALF


def _name(model: Any) -> str:
    return f"a model of type {model.config.model_type}"


class SelfCheckCallback(pl.Callback):
    """Check a training stage on its device and in its precision, before the first step.

    Args:
        context: Tokens of a row.
        micro_batch_size: Rows computed at once.
    """

    def __init__(self, context: int, micro_batch_size: int) -> None:
        self.context = context
        self.micro_batch_size = micro_batch_size
        self.is_checked = False

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check before the first validation, which is before the first step."""
        self._check_once(trainer, module)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Check before the first step of a run that goes on from a checkpoint."""
        self._check_once(trainer, module)

    def _check_once(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.is_checked:
            return
        self.is_checked = True

        def packed_logits(ids_BT: torch.Tensor, positions_BT: torch.Tensor) -> torch.Tensor:
            """Record the logits that the module's loss is computed of."""
            hidden_BTD = attention.final_hidden(module.model, ids_BT, positions_BT)
            logits: list[torch.Tensor] = []

            def chunk_loss(logits_CV: torch.Tensor, tokens: slice) -> torch.Tensor:
                logits.append(logits_CV)
                return logits_CV.sum()

            module.loss_over_chunks(hidden_BTD.flatten(0, 1), chunk_loss)
            return torch.cat(logits).view(*ids_BT.shape, -1)

        in_precision = trainer.precision_plugin.val_step_context()
        uncompiled = torch.compiler.set_stance("force_eager")  # a compiler would take long
        with in_precision, uncompiled:
            device = trainer.strategy.root_device
            check(module.model, packed_logits, self.context, self.micro_batch_size, device)
