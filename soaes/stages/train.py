"""Train: pre-training, general SFT, CPT, SFT, distillation. A model folder in, a model folder out.

The stages differ in the model they start from and in the Lightning module; the loop is one
(`_fit`). The path of the data through a step:

    token_store.load            packed rows on disk
    datamodule                  rows -> steps -> micro-batches
    CausalLM, DistilledLM       micro-batch -> loss (soaes.model.losses: Eq. 1 and 2)
    FiniteCallback              stops where a loss, a gradient or a weight is not finite
    MetricsCallback             curves, validation perplexity and Rouge-1
    CheckpointCallback          what a killed run is resumed from

Which rows and which settings a stage gets is up to conf/.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from transformers import PreTrainedModel

from soaes.data import teacher_store, token_store
from soaes.data.chat import tokenizer_digest
from soaes.data.datamodule import PackedDataModule
from soaes.data.jsonl import read_jsonl
from soaes.metrics.schema import write_metrics
from soaes.model import attention, checkpoint, lora, train_state
from soaes.model.callbacks import CheckpointCallback, FiniteCallback, MetricsCallback
from soaes.model.fsdp2 import Fsdp2
from soaes.model.parallel import Parallel
from soaes.model.self_check import SelfCheckCallback
from soaes.model.settings import OptimizerSettings, ValidationSettings
from soaes.model.train_state import TrainState
from soaes.model.zero3 import Zero3
from soaes.pipeline.runtime import Execution, check_ranks
from soaes.pipeline.tracking import Tracker

Module = Callable[..., pl.LightningModule]  # CausalLM or DistilledLM, or a partial of one

# By `Execution.parallelism`.
PARALLEL = {"one": Parallel, "ddp": Parallel, "fsdp2": Fsdp2, "zero3": Zero3}


def pretrain(
    tokenizer: Path,
    rows: Path,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    context: int,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings = ValidationSettings(),
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    mlp_ratio: float = 3,
    position_factor: int = 4,
    embedding_std: float = 1.0,
    head_std: float = 0.02,
    *,
    out: Path,
) -> None:
    """Train a base model from random weights.

    Args:
        tokenizer: folder of the tokenizer.
        rows: folder of packed rows, with train/, dev/ and dev_prompts.jsonl.
        layers, width, heads, kv_heads: the shape of the model (Qwen2).
        context: tokens of a row.
        module: builds the Lightning module of the loss.
        optim: optimizer, schedule and budget.
        seed: of the initial weights and of the order of the rows.
        validation: how often and on how much the model is validated.
        execution: devices and micro-batches; changes no result.
        tracker: receives the curves; None: nobody does.
        mlp_ratio: width of the feed-forward layers over `width`.
        position_factor: positions of the model over `context`, so that prompts may be longer.
        embedding_std, head_std: standard deviation of the initial embeddings and output matrix.
        out: folder for the model and metrics.json.
    """
    model = checkpoint.create(
        tokenizer,
        layers,
        width,
        heads,
        kv_heads,
        context,
        seed,
        mlp_ratio=mlp_ratio,
        position_factor=position_factor,
        embedding_std=embedding_std,
        head_std=head_std,
    )
    parallel = _parallel(execution, optim)
    model = parallel.place(model)
    _fit(model, tokenizer, rows, module, optim, seed, validation, parallel, tracker, out, False)


def instruct(
    parent: Path,
    rows: Path,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings = ValidationSettings(),
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """Turn a base model into a general chat model: SFT on dialogues of every category.

    Arguments as of `sft`.
    """
    parallel = _parallel(execution, optim)
    model = parallel.load(parent)
    _fit(model, parent, rows, module, optim, seed, validation, parallel, tracker, out, True)


def cpt(
    parent: Path,
    rows: Path,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings = ValidationSettings(),
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """Continue the pre-training of a model on domain text; every token bears loss.

    Arguments as of `sft`.
    """
    parallel = _parallel(execution, optim)
    model = parallel.load(parent)
    _fit(model, parent, rows, module, optim, seed, validation, parallel, tracker, out, False)


def sft(
    parent: Path,
    rows: Path,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings = ValidationSettings(),
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    *,
    out: Path,
) -> None:
    """Fine-tune a model on conversations; the assistant's tokens bear loss.

    Args:
        parent: folder of the model to start from.
        rows: folder of packed rows, with train/, dev/ and dev_prompts.jsonl.
        module: builds the Lightning module of the loss.
        optim: optimizer, schedule and budget.
        seed: of the order of the rows.
        validation: how often and on how much the model is validated.
        execution: devices and micro-batches; changes no result.
        tracker: receives the curves; None: nobody does.
        out: folder for the model and metrics.json.
    """
    parallel = _parallel(execution, optim)
    model = parallel.load(parent)
    _fit(model, parent, rows, module, optim, seed, validation, parallel, tracker, out, True)


def distill(
    parent: Path,
    rows: Path,
    teacher_logits: Path,
    alpha: float,
    tau: float,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings = ValidationSettings(),
    execution: Execution = Execution(),
    tracker: Tracker | None = None,
    max_gradient_bias: float = 0.05,
    *,
    out: Path,
) -> None:
    """Distill a teacher into the model of `parent`: the loss is Eq. 2, its KL term Eq. 1.

    `module` is DistilledLM with its divergence; the equations stand in soaes.model.losses. The
    teacher itself is not loaded: `teacher_logits` holds its soft targets over the same rows.

    Args:
        teacher_logits: folder of the soft targets, from `teach` or `teach_vllm`.
        alpha: weight of the KL term in [0, 1]; 0 is plain SFT.
        tau: temperature of both distributions in Eq. 1, positive.
        max_gradient_bias: refuse soft targets whose gradient misses the exact one by more than
            this share of its length, as measured when they were stored.

    The other arguments are those of `sft`.

    Raises:
        ValueError: if the soft targets are over other rows, of another tokenizer, or cannot
            support this temperature or divergence.
    """
    soft_targets = teacher_store.load(
        teacher_logits, rows.name, tokenizer_digest(parent), max_gradient_bias
    )
    module = partial(module, teacher_store=soft_targets, alpha=alpha, tau=tau)
    parallel = _parallel(execution, optim)
    student = parallel.load(parent)
    _fit(
        student,
        parent,
        rows,
        module,
        optim,
        seed,
        validation,
        parallel,
        tracker,
        out,
        True,
        soft_targets,
    )


def _parallel(execution: Execution, optim: OptimizerSettings) -> Parallel:
    """How the model lies on the stage's devices."""
    check_ranks(execution.devices)
    return PARALLEL[execution.parallelism](execution, optim.precision)


def _fit(
    model: PreTrainedModel,
    tokenizer: Path,
    rows: Path,
    module: Module,
    optim: OptimizerSettings,
    seed: int,
    validation: ValidationSettings,
    parallel: Parallel,
    tracker: Tracker | None,
    out: Path,
    is_chat: bool,
    soft_targets: teacher_store.TeacherStore | None = None,
) -> None:
    """Validate, train with validations on the way and one at the end, save.

    A killed run resumes from its last checkpoint and ends with the same weights.
    """
    pl.seed_everything(seed, verbose=False)
    execution = parallel.execution
    contract = _resume_contract(rows, optim, seed, out)
    resumed = None
    if execution.checkpoint_every:
        resumed = train_state.load_newest(out / "resume", contract, parallel.layout)
    state = resumed or TrainState(contract, layout=parallel.layout)

    digest = tokenizer_digest(tokenizer)
    dev_prompts = read_jsonl(rows / "dev_prompts.jsonl")
    metrics = MetricsCallback(state, tracker, tokenizer, dev_prompts, validation.max_new_tokens)
    checkpoints = CheckpointCallback(
        state,
        out / "resume",
        execution.checkpoint_every,
        shares=parallel if parallel.is_sharded else None,
    )
    data = PackedDataModule(
        train=token_store.load(rows / "train", digest),
        dev=token_store.load(rows / "dev", digest),
        global_batch_size=optim.global_batch_size,
        micro_batch_size=execution.micro_batch_size,
        epochs=optim.epochs,
        seed=seed,
        devices=execution.devices,
        teacher_store=soft_targets,
        max_tokens=optim.max_tokens,
        num_workers=execution.num_workers,
        start=state.step,
        validation_rows=validation.rows,
    )

    checkpoint.describe(model, tokenizer, is_chat)
    checkpoint.save_description(model, out, tokenizer, is_chat)
    attention.set_attention(model, execution.attention)
    adapters = None
    if optim.lora is not None:
        adapters = lora.add_adapters(model, optim.lora)
    if execution.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if execution.compile:
        model.base_model.compile(dynamic=False)
    lit = module(
        model=model.train(),
        lr=optim.lr,
        schedule=optim.schedule,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        steps=len(data.steps),
        grad_clip=optim.grad_clip,
        adamw=parallel.adamw,
    )

    context = data.train.ids_RT.shape[1]
    self_check = SelfCheckCallback(context, execution.micro_batch_size)
    callbacks = [self_check, FiniteCallback(state), metrics, checkpoints]
    trainer = _trainer(data, optim, validation, parallel, callbacks)
    if resumed is None:
        trainer.validate(lit, data, verbose=False)
    trainer.fit(lit, data)
    if state.validations[-1]["step"] < state.step:
        trainer.validate(lit, data, verbose=False)

    if adapters is not None:
        lora.merge(adapters)
    checkpoint.save(model, out, tokenizer, is_chat, parallel.saved_dtype)
    if trainer.is_global_zero:
        write_metrics(out, _summary(state, data, lit.metrics))
        shutil.rmtree(out / "resume", ignore_errors=True)


def _resume_contract(rows: Path, optim: OptimizerSettings, seed: int, out: Path) -> dict[str, Any]:
    """Return what a checkpoint must have been written under for a run to resume from it."""
    return {
        "stage": out.name,
        "rows": rows.name,
        "seed": seed,
        "global_batch_size": optim.global_batch_size,
        "code": train_state.code_digest(),
        "torch": str(torch.__version__),
    }


def _trainer(
    data: PackedDataModule,
    optim: OptimizerSettings,
    validation: ValidationSettings,
    parallel: Parallel,
    trainer_callbacks: list[pl.Callback],
) -> pl.Trainer:
    micro_batches = len(data.steps) * data.accumulate
    kind, _, number = parallel.execution.device.partition(":")
    # By SLURM's variables Lightning would count this process among a job's tasks, and requeue the
    # job at SIGUSR1 with checkpoints of its own; ranks have torchrun's, which count before them.
    plugins = None if TorchElasticEnvironment.detect() else [LightningEnvironment()]
    trainer = pl.Trainer(
        accelerator="gpu" if kind == "cuda" else kind,
        devices=[int(number)] if number else parallel.execution.devices_per_node,
        num_nodes=parallel.execution.nodes,
        strategy=parallel.strategy(),
        plugins=plugins,
        precision=parallel.trainer_precision,
        max_epochs=1,
        max_steps=len(data.steps),
        accumulate_grad_batches=data.accumulate,
        val_check_interval=math.ceil(micro_batches / validation.per_run),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # what is first gathered in inference mode cannot be trained
        callbacks=trainer_callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if (
        parallel.execution.parallelism == "zero3"
    ):  # it clips within its step; elsewhere CausalLM does
        trainer.gradient_clip_val = optim.grad_clip
    return trainer


def _summary(
    state: TrainState, data: PackedDataModule, module_metrics: dict[str, Any]
) -> dict[str, Any]:
    """Collect metrics.json: the first and the last validation, and what was read."""
    first, last = state.validations[0], state.validations[-1]
    summary = {
        "val/perplexity": last["val/perplexity"],
        "val/perplexity_before": first["val/perplexity"],
        "steps": len(data.steps),
        "rows": len(data.train.ids_RT),
        "seconds": round(state.elapsed_seconds(), 2),
        **module_metrics,
    }
    if "val/rouge1" in last:
        summary["val/rouge1"] = last["val/rouge1"]
        summary["val/rouge1_before"] = first["val/rouge1"]
    if state.skipped_steps:
        summary["skipped_steps"] = state.skipped_steps
    return summary
