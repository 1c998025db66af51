"""Laws of the training module: what a precision may change, and what it may not."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy

from soaes.model import checkpoint
from tests.helpers.trainers import data, module, trainer

LONG = torch.arange(4000, 4032)[None]  # positions


class CastingStrategy(SingleDeviceStrategy):
    """Casts the weights and buffers once Lightning is done, as DeepSpeed's engine does."""

    def setup(self, trainer):
        super().setup(trainer)
        self.model.bfloat16()


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        ({"precision": "bf16-true"}, torch.bfloat16),
        ({"precision": "64-true"}, torch.float64),
        ({"precision": "bf16-mixed"}, torch.float32),
        ({"strategy": CastingStrategy("cpu")}, torch.bfloat16),
    ],
    ids=["bf16-true", "64-true", "bf16-mixed", "a-casting-strategy"],
)
def test_what_was_trained_is_what_the_saved_folder_computes_at_long_positions(tmp_path, how, dtype):
    rows = data()
    lit = module(rows)
    trainer(rows, **how).fit(lit, rows)
    assert lit.model.lm_head.weight.dtype == dtype, "the plugin cast nothing"
    lit.model.save_pretrained(tmp_path)
    saved = checkpoint.load(tmp_path, dtype)
    ids = torch.arange(32)[None]
    with torch.inference_mode():
        trained, loaded = (
            model.eval()(ids, position_ids=LONG, use_cache=False).logits
            for model in (lit.model, saved)
        )
    torch.testing.assert_close(trained, loaded, rtol=0, atol=0)


class Gradients(pl.Callback):
    """The gradients that the optimizer was given, and the norms that were reported of them."""

    def __init__(self):
        self.given = []
        self.norms = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        grads = [weight.grad for weight in module.parameters() if weight.grad is not None]
        if grads:  # of the step before
            self.given.append(torch.cat([grad.flatten() for grad in grads]))
            self.norms.append(module.grad_norm)


def gradients(grad_clip, **how):
    rows, seen = data(), Gradients()
    lit = module(rows, grad_clip=grad_clip)
    trainer(rows, callbacks=[seen], **how).fit(lit, rows)
    return seen


@pytest.mark.parametrize("grad_clip", [0.01, 1e9], ids=["clipped", "not-clipped"])
def test_a_loss_scale_changes_neither_the_gradient_nor_its_norm(grad_clip):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    exact = gradients(grad_clip)
    scaled = gradients(grad_clip, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert scaled.norms == pytest.approx(exact.norms, rel=0.02)
    assert len(exact.norms) == 2 and min(exact.norms) > 1
    for norm, given in zip(scaled.norms, scaled.given, strict=True):
        assert given.norm().item() == pytest.approx(min(norm, grad_clip), rel=1e-3)
    first = exact.given[0]
    assert (scaled.given[0] - first).norm() < 0.05 * first.norm()
