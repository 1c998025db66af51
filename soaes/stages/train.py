"""Train: pre-training, general SFT, CPT, SFT, distillation. Each stage is a folder of a model in, a folder of a model out.

They differ in what they start from and in the Lightning module; the loop is one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from soaes.data import teacher_store, token_store
from soaes.data.chat import tokenizer_digest
from soaes.data.datamodule import PackedDataModule
from soaes.data.jsonl import read_jsonl
from soaes.model import attention, checkpoint, train_state
from soaes.model.callbacks import CheckpointCallback, MetricsCallback
from soaes.model.train_state import TrainState
from soaes.pipeline.runtime import Execution
from soaes.pipeline.tracking import Tracker

Module = Callable[..., pl.LightningModule]


def pretrain(
    tokenizer: Path,
    rows: Path,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    context: int,
    module: Module,
    optim: dict[str, Any],
    seed: int,
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """A base model from random weights over general text."""
    model = checkpoint.create(tokenizer, layers, width, heads, kv_heads, context, seed)
    _fit(model, tokenizer, rows, module, optim, seed, execution, tracker, out)


def _continue(
    parent: Path,
    rows: Path,
    module: Module,
    optim: dict[str, Any],
    seed: int,
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """Go on training the model of `parent` over other rows."""
    _fit(checkpoint.load(parent), parent, rows, module, optim, seed, execution, tracker, out)


instruct = cpt = sft = _continue  # they differ in their rows and settings alone, which conf/ names


def distill(
    parent: Path,
    rows: Path,
    teacher_logits: Path,
    alpha: float,
    tau: float,
    module: Module,
    optim: dict[str, Any],
    seed: int,
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """Eq. 1-2 over stage 2's rows, from the stored signal of a teacher with the same tokenizer."""
    store = teacher_store.load(teacher_logits, rows.name, tokenizer_digest(parent))
    student = checkpoint.load(parent)
    distilled = partial(module, teacher_store=store, alpha=alpha, tau=tau)
    _fit(student, parent, rows, distilled, optim, seed, execution, tracker, out, store)


def _fit(
    model: Any,
    tokenizer: Path,
    rows: Path,
    module: Module,
    optim: dict[str, Any],
    seed: int,
    execution: Execution,
    tracker: Tracker | None,
    out: Path,
    store: Any = None,
) -> None:
    """The one loop: validate, train with a few validations on the way and one at the end, save. A killed one goes on from its last checkpoint."""
    torch.set_num_threads(execution.threads)
    pl.seed_everything(seed, verbose=False)
    every = execution.checkpoint_every if execution.strategy in ("auto", "ddp") else 0.0
    contract = {
        "stage": out.name,
        "rows": rows.name,
        "seed": seed,
        "global_batch_size": optim["global_batch_size"],
        "devices": execution.devices,
        "code": train_state.code_digest(),
        "torch": str(torch.__version__),
    }
    resumed = train_state.load_newest(out / "resume", contract) if every else None
    state = resumed or TrainState(contract)
    metrics = MetricsCallback(state, tracker, tokenizer, read_jsonl(rows / "dev_prompts.jsonl"))
    checkpoints = CheckpointCallback(state, out / "resume", every)
    data = PackedDataModule(
        token_store.load(rows / "train"),
        token_store.load(rows / "dev"),
        optim["global_batch_size"],
        execution.micro_batch_size,
        optim["epochs"],
        seed,
        execution.devices,
        store,
        optim["max_tokens"],
        execution.num_workers,
        state.step,
    )
    attention.set_attention(model, execution.attention)
    if execution.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if execution.compile:
        model.model.compile(dynamic=False)
    lit = module(
        model=model.train(),
        lr=optim["lr"],
        schedule=optim["schedule"],
        betas=optim["betas"],
        weight_decay=optim["weight_decay"],
        steps=len(data.steps),
        cpu_offload=execution.cpu_offload,
    )
    trainer = _trainer(data, optim, execution, [metrics, checkpoints])
    if resumed is None:
        trainer.validate(lit, data, verbose=False)
    trainer.fit(lit, data)
    if state.validations[-1]["step"] < state.step:
        trainer.validate(lit, data, verbose=False)
    checkpoint.save(model, out, tokenizer)
    if trainer.is_global_zero:
        _write_metrics(out, state, data, lit.metrics)
        shutil.rmtree(out / "resume", ignore_errors=True)


VALIDATIONS = 4  # and one before the first step


def _trainer(
    data: PackedDataModule,
    optim: dict[str, Any],
    execution: Execution,
    callbacks: list[pl.Callback],
) -> pl.Trainer:
    batches = len(data.steps) * data.accumulate
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(
        accelerator=execution.device.replace("cuda", "gpu"),
        devices=execution.devices,
        strategy=execution.strategy,
        precision=optim["precision"],
        max_epochs=1,
        max_steps=len(data.steps),
        accumulate_grad_batches=data.accumulate,
        gradient_clip_val=optim["grad_clip"],
        val_check_interval=math.ceil(batches / VALIDATIONS),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=callbacks,
        **quiet,
    )


def _write_metrics(
    out: Path,
    state: TrainState,
    data: PackedDataModule,
    others: dict[str, float],
) -> None:
    first, last = state.validations[0], state.validations[-1]
    metrics = {
        "val/perplexity": last["val/perplexity"],
        "val/perplexity_before": first["val/perplexity"],
        "steps": len(data.steps),
        "rows": len(data.train.ids_RT),
        "seconds": round(state.elapsed_seconds(), 2),
        **others,
    }
    if "val/rouge1" in last:
        metrics |= {"val/rouge1": last["val/rouge1"], "val/rouge1_before": first["val/rouge1"]}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1))
