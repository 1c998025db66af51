"""A number that is not finite ends a run at its step, wherever it appears first."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision

from soaes.model.callbacks import FiniteCallback, MetricsCallback
from soaes.model.causal_lm import CausalLM
from soaes.model.train_state import TrainState
from tests.helpers.toys import toy
from tests.helpers.trainers import data, module, trainer


class NanLoss(CausalLM):
    def training_step(self, batch, batch_index):
        return super().training_step(batch, batch_index) * (
            1 if self.global_step < 1 else torch.nan
        )


class InfiniteGradient(CausalLM):
    def on_after_backward(self):
        if self.global_step == 2:
            self.model.lm_head.weight.grad[5, 5] = torch.inf


class RuinousUpdate(CausalLM):
    def on_train_batch_end(self, outputs, batch, batch_index):
        if self.global_step == self.steps:
            self.model.model.norm.weight.data[3] = torch.inf


class RuinedUnreadWeight(CausalLM):
    def on_train_batch_end(self, outputs, batch, batch_index):
        if self.global_step == self.steps:
            self.model.model.embed_tokens.weight.data[0] = torch.nan  # no row has this token


def run(of, **how):
    """Validate and train; return the run's state."""
    rows, state = data(), TrainState({})
    metrics = MetricsCallback(state, None, Path(), [])
    lightning = trainer(rows, callbacks=[FiniteCallback(state), metrics], **how)
    lit = module(rows, of)
    lightning.validate(lit, rows, verbose=False)
    lightning.fit(lit, rows)
    return state


def damaged(*args, **settings):
    model = toy(1)
    model.model.norm.weight.data[0] = torch.nan
    return CausalLM(*args, **(settings | {"model": model}))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (NanLoss, "the loss is nan at step 2; .* lower optim.<phase>.lr"),
        (InfiniteGradient, "the gradient's norm is inf at step 3; .* lower optim.<phase>.lr"),
        (RuinousUpdate, "the validation loss is nan after step 3; .* lower"),
        (RuinedUnreadWeight, "embed_tokens.weight is not finite after step 3; .* lower"),
        (
            damaged,
            "the validation loss is nan after step 0; .* the model that the stage starts from",
        ),
    ],
    ids=["loss", "gradient", "validation", "weight", "before-the-first-step"],
)
def test_a_run_stops_where_a_number_is_not_finite_and_names_the_step(of, message):
    with pytest.raises(ValueError, match=message):
        run(of)


def test_a_gradient_that_overflows_under_the_loss_scale_is_left_out_and_counted():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    state = run(CausalLM, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    steps = [line for line in state.curve if "train/loss" in line]
    skipped = [line for line in steps if "train/grad_norm" not in line]
    assert 0 < state.skipped_steps == len(skipped) <= len(steps) == 3


def test_a_gradient_that_overflows_without_a_loss_scale_to_blame_stops_the_run():
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with pytest.raises(ValueError, match="the gradient's norm is inf at step 3"):
        run(InfiniteGradient, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])


class Clock:
    """A clock on which a micro-batch takes a second and a validation a hundred."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


def test_a_validation_takes_no_part_in_the_rate_of_the_steps_around_it(monkeypatch):
    clock = Clock()

    class Timed(CausalLM):
        def training_step(self, batch, batch_index):
            clock.now += 1
            return super().training_step(batch, batch_index)

        def on_validation_epoch_end(self):
            clock.now += 100
            super().on_validation_epoch_end()

    monkeypatch.setattr("soaes.model.callbacks.time", clock)
    monkeypatch.setattr("soaes.model.callbacks.CURVE_POINTS", 1)  # a point at the third step
    state = run(Timed, val_check_interval=2)  # and a validation after the first
    steps, micro_batches = data(), 6
    tokens = steps.train.ids_RT.size
    (point,) = [line for line in state.curve if "train/loss" in line]
    assert point["step"] == 3
    assert point["train/tokens_per_s"] == pytest.approx(tokens / micro_batches)
