"""The one place that touches what other libraries keep private, and why there is no public way.

Everything here may break when a pinned version changes; `tests/pipeline/test_private_api.py`
names what is gone. Imports nothing heavy by itself: each function imports its library when it
is called.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

# N outputs, K inputs, T tokens

# ---------------------------------------------------------------- torch


class PackedLinear:
    """x W^T for blocks of up to `max_rows` float32 rows on a CPU.

    oneDNN packs the weight once. The public products pack it anew at every call for more than one
    row, which takes as long as two to three products of a single row. torch uses these two
    operators itself when it compiles a model whose weights are frozen, and exposes them nowhere
    else.
    """

    def __init__(self, weight_NK: torch.Tensor, max_rows: int) -> None:
        import torch

        self._multiply = torch.ops.mkldnn._linear_pointwise
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight_NK, max_rows)

    def __call__(self, x_TK: torch.Tensor) -> torch.Tensor:
        """Return the product [T, N], without bias or activation."""
        return self._multiply(x_TK, self.weight, None, "none", [], "")


def softmax_backward(grad: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the scores from that of their softmax `probs` over the last dimension.

    The public way is autograd, which would keep the scores in memory beside their softmax. The
    same formula in plain operations, probs * (grad - sum(grad * probs)), needs two more passes
    over memory.
    """
    import torch

    return torch._softmax_backward_data(grad, probs, -1, probs.dtype)


# ---------------------------------------------------------------- transformers


def attention_implementation(model: Any) -> str:
    """Return the name that `model.set_attn_implementation` was last called with.

    transformers has a public setter and no public getter.
    """
    return model.config._attn_implementation


def decoder_layers(model: Any) -> list[Any]:
    """Return a model's decoder layers, in order.

    transformers names their classes for whoever splits a model over devices, and has no public way
    to the layers that holds for every family.
    """
    names = set(model._no_split_modules or [])
    return [module for module in model.modules() if type(module).__name__ in names]


# ---------------------------------------------------------------- Lightning


def set_completed_steps(trainer: pl.Trainer, steps: int) -> None:
    """Let a trainer that is about to run its first batch count as if `steps` steps were behind it.

    Lightning restores its counters from its own checkpoints alone. Those also restore the
    position in the epoch, while a resumed stage reads the remaining rows as an epoch of its
    own: only what is counted over all epochs continues.
    """
    loop = trainer.fit_loop.epoch_loop
    # trainer.global_step
    loop.automatic_optimization.optim_progress.optimizer.step.total.completed = steps
    # the batches of all epochs, which decide when to validate
    loop.batch_progress.total.ready = steps * trainer.accumulate_grad_batches


# ---------------------------------------------------------------- lm-evaluation-harness


def exam_templates() -> Path:
    """Return the folder of the harness's task files.

    The harness finds a task by name, but only together with its download; our questions come
    from memory.
    """
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def cache_prompt_templates() -> None:
    """Let the harness compile each prompt template once, not for every shot of every question."""
    from lm_eval.utils import env

    if not hasattr(env.from_string, "cache_info"):
        env.from_string = cache(env.from_string)


# ---------------------------------------------------------------- Weights & Biases

# What `wandb.init` imports on its first call; a fork of a process that has them starts at once.
WANDB_MODULES = ("wandb", "wandb.sdk.launch", "wandb.apis.public")


def wandb_settings() -> Any:
    """Return settings for a run that records nothing about the machine or the code by itself.

    The two names with `x_` are experimental, which W&B says of settings that may change in any
    release.
    """
    import wandb

    return wandb.Settings(
        x_disable_stats=True,
        x_disable_meta=True,
        disable_git=True,
        disable_code=True,
        console="off",
    )
