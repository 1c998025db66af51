"""A bare Lightning trainer over toy rows, for laws of modules and callbacks."""

import pytorch_lightning as pl

from soaes.data.datamodule import PackedDataModule
from soaes.model.causal_lm import CausalLM
from tests.helpers.mortals import rows
from tests.helpers.toys import toy


def data(steps=3):
    """Steps of four rows in two micro-batches, and three dev rows."""
    return PackedDataModule(
        train=rows(4 * steps, seed=1),
        dev=rows(3, seed=2),
        global_batch_size=4,
        micro_batch_size=2,
        epochs=1,
        seed=0,
    )


def trainer(data, **how):
    """A trainer of all steps of `data`, validated once at the end."""
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        max_steps=len(data.steps),
        accumulate_grad_batches=data.accumulate,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **how,
    )


def module(data, of=CausalLM, **changes):
    """A module of a toy model; `of` is the class."""
    arguments = {
        "model": toy(1).train(),
        "lr": 1e-3,
        "schedule": lambda step, steps: 1.0,
        "betas": (0.9, 0.95),
        "weight_decay": 0.1,
        "steps": len(data.steps),
        "grad_clip": 1.0,
    }
    return of(**(arguments | changes))
