"""The bill of one stage: FLOPs, time, memory of a device by part, host memory and disk.

A recipe says what is computed and the runtime on what; the formulas are in soaes.bill.formulas.
Knows recipes, the store and settings. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from soaes.bill import formulas, workload
from soaes.bill.formulas import BFLOAT16, FLOAT32, Memory, Sharding, Step
from soaes.bill.machine import Machine
from soaes.bill.shape import ModelShape
from soaes.decode.backends import vllm_environment
from soaes.model.settings import LAYER_MATRICES
from soaes.pipeline import labels, lineage
from soaes.pipeline.recipe import Recipe, declared_name
from soaes.pipeline.recipe_checks import instantiate_settings, is_cut_by_vllm, is_timed_in_vllm
from soaes.pipeline.runtime import TRAINING_STAGES, Execution, Runtime
from soaes.pipeline.store import Store

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Bytes that a process holds before it has a model: Python with torch and transformers on a CPU,
# CUDA's context and libraries on a GPU.
CPU_PROCESS = 0.6e9
GPU_PROCESS = 0.7e9

# Tokens in the cache at once where answers are written in batches (soaes.model.generate), and
# tokens whose logits are held at once where references are scored (soaes.model.reference_loss).
CACHED_TOKENS = 8192
SCORED_TOKENS = 1024

# Tokens of a step, and answers at once, where vLLM writes them (soaes.decode.backends.vllm_model).
VLLM_TOKENS = 1024
VLLM_ANSWERS = 256

# Arrays of int32 that a packed row has, and bytes of a token in them.
ROW_BYTES = 3 * 4

# Weights that the first rank holds while shares are saved (soaes.model.sharding).
FILE_BYTES = 5e9

# Checkpoints of a training stage at once: two are kept while a third is written.
CHECKPOINTS = 3


@dataclass(frozen=True)
class StageBill:
    """What one stage costs. Bytes, FLOPs, seconds; None where nothing tells it."""

    name: str
    """The stage's folder."""

    kind: str
    """The stage and the size of its model: cpt 72.7B."""

    parameters: int | None = None
    tokens: float | None = None
    """That are read or written."""

    is_counted: bool = True
    """Whether the tokens were counted; else they are estimated."""

    flops: float | None = None
    bytes_per_value: int = FLOAT32
    """Of the arithmetic, on which the rate of a device depends."""

    encoding_flops: float = 0.0
    """Of these, the teacher's logits where vLLM runs the rest: one device computes them, in
    float32."""

    seconds: float | None = None
    is_measured: bool = False
    """Whether the seconds are those of a stage of its kind that was built here."""

    devices: int = 1
    memory: Memory | None = None
    process: float = 0.0
    """Bytes of the process itself, on its device."""

    share: float | None = None
    """Of a GPU's memory, that an engine of vLLM is given; None without one."""

    engine: float = 0.0
    """Bytes that such an engine must hold, the larger one of two: its weights and activations, and
    the cache of one text."""

    beside_engine: float = 0.0
    """Bytes that lie on the device outside of the engine's share."""

    loading: float = 0.0
    """Bytes of host memory while the ranks load their models."""

    saving: float = 0.0
    """Bytes of host memory, beside what is offloaded, while shares are gathered to save them."""

    disk: float = 0.0
    """Bytes that stay."""

    scratch: float = 0.0
    """Bytes of checkpoints while the stage runs."""

    @property
    def device_bytes(self) -> float | None:
        """Bytes of one device at the peak."""
        return None if self.memory is None else self.memory.device + self.process

    @property
    def needed_bytes(self) -> float | None:
        """Bytes that a device must have, of which vLLM's engines are given a share each."""
        if self.share is None or self.device_bytes is None:
            return self.device_bytes
        rest = (self.beside_engine + self.process) / (1 - self.share)
        return max(self.device_bytes, self.engine / self.share, rest if self.beside_engine else 0)

    @property
    def host_bytes(self) -> float:
        """Bytes of the host at its peak, beside a GPU."""
        offloaded = self.memory.host if self.memory else 0.0
        return max(self.loading, offloaded + self.saving)


def stage_bill(store: Store, stage: Recipe, runtime: Runtime, machine: Machine) -> StageBill:
    """Return the bill of one stage.

    Args:
        store: Where packed rows and fetched models are looked up.
        stage: The stage.
        runtime: How it is run.
        machine: What it is run on.
    """
    shape = workload.model_of(store, stage, runtime)
    if stage.stage == "pack":
        return _pack_bill(store, stage, runtime)
    if shape is None:
        return StageBill(stage.name, stage.stage)
    step = labels.step(stage) if stage.stage == "sft" else stage.stage
    bill = StageBill(stage.name, f"{step} {shape.name}", shape.parameters)
    if stage.stage in lineage.GIVEN:  # most are published in bfloat16
        return replace(bill, disk=formulas.folder_bytes(shape, BFLOAT16))
    if stage.stage in TRAINING_STAGES:
        bill = _training_bill(bill, store, stage, shape, runtime)
    elif stage.stage in ("teach", "teach_vllm"):
        bill = _teaching_bill(bill, store, stage, shape, runtime)
    elif stage.stage == "export":
        memory = Memory(weights=FLOAT32 * shape.parameters)
        bill = replace(bill, memory=memory, disk=formulas.folder_bytes(shape))
    else:
        bill = _reading_bill(bill, store, stage, shape, runtime, machine)
    process = CPU_PROCESS if machine.is_cpu else GPU_PROCESS
    return replace(bill, process=process, seconds=_seconds(bill, machine))


def _seconds(bill: StageBill, machine: Machine) -> float | None:
    """Return the seconds of a stage's FLOPs, or of reading its weights where that takes longer."""
    rate = machine.rate_in(bill.bytes_per_value)
    if bill.flops is None or rate is None:
        return None
    flops = bill.flops - bill.encoding_flops
    arithmetic = formulas.seconds(flops, bill.devices, rate, machine.utilisation)
    if bill.encoding_flops and machine.rate_float32 is not None:
        rate = machine.rate_float32
        arithmetic += formulas.seconds(bill.encoding_flops, 1, rate, machine.utilisation)
    return max(arithmetic, bill.seconds or 0.0)


def _pack_bill(store: Store, stage: Recipe, runtime: Runtime) -> StageBill:
    rows = workload.rows_of(store, stage, runtime)
    if rows is None:
        return StageBill(stage.name, stage.stage)
    bill = StageBill(stage.name, stage.stage, None, rows.tokens, rows.is_counted)
    return replace(bill, disk=float(ROW_BYTES * rows.tokens))


# -------------------------------------------------------------------------------------- training


def sharding_of(execution: Execution, stage: Recipe, runtime: Runtime) -> Sharding:
    """Return how the states of a training stage lie on devices, as its strategy says."""
    if stage.stage not in runtime.torchrun:
        return Sharding("whole", 1)
    devices, offload = execution.devices, execution.cpu_offload
    if execution.parallelism == "zero3":
        return Sharding("zero3", devices, offload)
    if execution.parallelism == "fsdp2":
        return Sharding("fsdp2", devices, offload)
    return Sharding("ddp" if devices > 1 else "whole", devices)


def micro_batch_size(global_batch_size: int, limit: int, devices: int) -> int:
    """Return the rows that a device computes at once (soaes.data.datamodule)."""
    rows = max(1, global_batch_size // devices)
    return next(size for size in range(min(limit, rows), 0, -1) if rows % size == 0)


def _training_bill(
    bill: StageBill, store: Store, stage: Recipe, shape: ModelShape, runtime: Runtime
) -> StageBill:
    execution = runtime.execution
    sharding = sharding_of(execution, stage, runtime)
    context = int(stage.arguments["rows"].arguments["context"])
    batch = stage.arguments["optim"]["global_batch_size"]
    at_once = micro_batch_size(batch, execution.micro_batch_size, sharding.devices)
    teacher = _teacher(store, stage, runtime)
    adapters = adapters_of(stage, shape)
    step = Step(
        tokens=at_once * context,
        context=context,
        micro_batches=max(1, batch // (at_once * sharding.devices)),
        bytes_per_value=_arithmetic(stage),
        checkpointing=execution.gradient_checkpointing,
        attention=execution.attention,
        distils=stage.stage == "distill",
        teacher_width=teacher.width if teacher else None,
        adapters=adapters,
    )
    keeps_checkpoints = execution.checkpoint_every > 0
    on_gpu = execution.device != "cpu"
    copies = 1 if sharding.cuts_weights else sharding.devices  # each rank reads its share
    loading = float(FLOAT32 * shape.parameters * copies)
    is_given = lineage.origin(stage).stage in lineage.GIVEN
    folder = formulas.folder_bytes(shape, BFLOAT16 if is_given else FLOAT32)
    checkpoint = formulas.checkpoint_bytes(adapters or shape.parameters)
    gathered = min(FILE_BYTES, folder) if sharding.cuts_weights else 0.0
    bill = replace(
        bill,
        devices=sharding.devices,
        bytes_per_value=step.bytes_per_value,
        memory=formulas.training_memory(shape, sharding, step),
        loading=loading if on_gpu else 0.0,
        saving=gathered if on_gpu else 0.0,
        disk=folder,
        scratch=CHECKPOINTS * checkpoint if keeps_checkpoints else 0.0,
    )
    training = workload.training_of(store, stage, runtime)
    if training is None:
        return bill
    flops = training.tokens * formulas.training_flops(shape, context, adapters)
    is_counted = training.rows.is_counted
    return replace(bill, tokens=training.tokens, is_counted=is_counted, flops=flops)


def adapters_of(stage: Recipe, shape: ModelShape) -> int:
    """Return the parameters of the adapters that a stage trains; 0 if it trains all weights."""
    lora = stage.arguments["optim"].get("lora")
    if lora is None:
        return 0
    names = lora.get("target_modules", LAYER_MATRICES)
    return shape.adapter_parameters(lora["rank"], names)


def _arithmetic(stage: Recipe) -> int:
    """Return the bytes of a value in a training stage's arithmetic."""
    is_float32 = stage.arguments["optim"].get("precision") == "32-true"
    return FLOAT32 if is_float32 else BFLOAT16


def _teacher(store: Store, stage: Recipe, runtime: Runtime) -> ModelShape | None:
    """Return the shape of the teacher whose hidden states a stage distils; None without them."""
    teach = stage.arguments.get("teacher_logits")
    if not isinstance(teach, Recipe) or _format(teach) != "Hidden":
        return None
    return workload.model_of(store, teach, runtime)


# ------------------------------------------------------------------------- teaching, and reading


def _format(teach: Recipe) -> str:
    """Return the format of soft targets that a stage stores."""
    return declared_name(teach.arguments.get("soft_targets", {}).get("_target_", ""))


def soft_target_bytes(soft_targets: Mapping[str, Any], shape: ModelShape) -> float:
    """Return the bytes that a format stores of a token (soaes.model.soft_targets).

    Args:
        soft_targets: The format's node.
        shape: The teacher.
    """
    name = declared_name(soft_targets["_target_"])
    value = BYTES[soft_targets.get("dtype", "float32")]
    if name == "Hidden":
        return value * shape.width
    if name == "Full":
        return value * shape.vocabulary
    taus = len(soft_targets["taus"])
    if name == "TopK":
        return soft_targets["k"] * (value + 4) + taus * FLOAT32
    return taus * (soft_targets["draws"] * 4 + FLOAT32)


def _devices_of_vllm(shape: ModelShape, execution: Execution) -> int:
    """Return over how many devices vLLM cuts a model."""
    config = {
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.mlp_width,
    }
    return vllm_environment.tensor_parallel(shape.name, config, execution)


def _with_engine(bill: StageBill, engine: Memory, share: float, runtime: Runtime) -> StageBill:
    """Return a bill with what an engine of vLLM holds of a device, and its share of a GPU.

    Logits are not counted: vLLM sets no memory aside for them.

    Args:
        bill: The bill.
        engine: Bytes of one device.
        share: Of its memory, that the engine is given.
        runtime: On a CPU there are no shares.
    """
    if runtime.execution.device == "cpu":
        return bill
    held = engine.weights + engine.activations + engine.kv_cache
    return replace(bill, share=share, engine=held)


def _teaching_bill(
    bill: StageBill, store: Store, stage: Recipe, shape: ModelShape, runtime: Runtime
) -> StageBill:
    """Return the bill of storing soft targets: one forward pass over every row."""
    rows = workload.rows_of(store, stage.arguments["rows"], runtime)
    context = int(stage.arguments["rows"].arguments["context"])
    soft_targets = stage.arguments["soft_targets"]
    needs_logits = _format(stage) != "Hidden"
    by_vllm = is_cut_by_vllm(stage)
    dtype = stage.arguments.get("dtype", "float32") if by_vllm else "float32"
    logits = context if needs_logits else 0
    memory = formulas.inference_memory(shape, BYTES[dtype], context, 0, logits)
    devices = 1
    if by_vllm:  # the first device also holds the output matrix
        devices = _devices_of_vllm(shape, runtime.execution)
        matrix = FLOAT32 * shape.matrix_parameters
        weights = memory.weights / devices
        memory = replace(memory, weights=weights, logits=memory.logits + matrix)
        bill = _with_engine(bill, memory, vllm_environment.READER_SHARE, runtime)
        bill = replace(bill, beside_engine=memory.logits)
    bill = replace(bill, memory=memory, devices=devices, bytes_per_value=BYTES[dtype])
    if runtime.execution.device != "cpu" and not by_vllm:
        bill = replace(bill, loading=FLOAT32 * shape.parameters)
    if rows is None:
        return bill
    stored = rows.tokens * rows.loss_share * soft_target_bytes(soft_targets, shape)
    if not needs_logits:
        stored += FLOAT32 * shape.matrix_parameters
    flops = rows.tokens * formulas.forward_flops(shape, context)
    bill = replace(bill, tokens=float(rows.tokens), is_counted=rows.is_counted)
    if by_vllm and needs_logits:  # of tokens that bear loss alone
        head = 2.0 * shape.matrix_parameters
        encoding = rows.tokens * rows.loss_share * head
        flops += encoding - rows.tokens * head
        bill = replace(bill, encoding_flops=encoding)
    return replace(bill, flops=flops, disk=stored)


def _reading_bill(
    bill: StageBill,
    store: Store,
    stage: Recipe,
    shape: ModelShape,
    runtime: Runtime,
    machine: Machine,
) -> StageBill:
    """Return the bill of a stage that reads or answers questions.

    Of `speed` by vLLM two engines lie on the device: one with speculation, one with the target
    alone, which is the baseline.
    """
    if is_cut_by_vllm(stage):
        return _vllm_bill(bill, stage, shape, runtime, machine)
    if stage.stage == "benchmark":
        at_once = workload.EXAM_TOKENS * (stage.arguments.get("shots", 0) + 1)
        memory = formulas.inference_memory(shape, FLOAT32, at_once, 0, at_once)
        return _with_reading(replace(bill, memory=memory), shape, workload.exam_tokens(stage))
    answers = workload.answers_of(stage)
    longest = answers.longest if answers else 0
    if stage.stage == "predict_acceptance":  # a forward pass over each text of the trace
        dtype = stage.arguments["target_trace"].arguments.get("dtype", "float32")
        memory = formulas.inference_memory(shape, BYTES[dtype], longest, longest, longest)
        bill = replace(bill, memory=memory, bytes_per_value=BYTES[dtype])
        return _with_reading(bill, shape, answers.tokens) if answers else bill
    value = BYTES[stage.arguments.get("dtype", "float32")]
    in_batches = stage.stage == "evaluate"
    cached = CACHED_TOKENS if in_batches else longest
    logits = SCORED_TOKENS if in_batches else 1
    memory = formulas.inference_memory(shape, value, cached, cached, logits)
    alone = memory
    draft = workload.draft_of(store, stage, runtime)
    if draft is not None:
        second = formulas.inference_memory(draft, value, 0, cached)
        memory = memory + second
    if is_timed_in_vllm(stage):
        bill = _with_engine(bill, memory, vllm_environment.PAIR_SHARE, runtime)
        if instantiate_settings(stage.arguments["decode"]).n:  # else there is one engine
            memory = memory + alone
    bill = replace(bill, memory=memory, bytes_per_value=value)
    if answers is None:
        return bill
    bill = _with_reading(bill, shape, answers.tokens)
    if machine.bandwidth is None:
        return bill
    together = max(1, CACHED_TOKENS // longest) if in_batches else 1
    steps = answers.tokens // together
    return replace(bill, seconds=formulas.decoding_seconds(shape, steps, value, machine.bandwidth))


def _vllm_bill(
    bill: StageBill, stage: Recipe, shape: ModelShape, runtime: Runtime, machine: Machine
) -> StageBill:
    """Return the bill of a stage that answers questions by vLLM, cut over several devices.

    Of the cache no more is counted than one text needs; vLLM takes what is left for more at once.
    """
    dtype = stage.arguments["backend"].get("dtype", "float32")
    value = BYTES[dtype]
    answers = workload.answers_of(stage)
    longest = answers.longest if answers else 0
    if stage.stage == "benchmark":
        longest = workload.EXAM_TOKENS * (stage.arguments.get("shots", 0) + 1)
    memory = formulas.inference_memory(shape, value, VLLM_TOKENS, longest, VLLM_TOKENS)
    devices = _devices_of_vllm(shape, runtime.execution)
    memory = replace(memory, weights=memory.weights / devices, kv_cache=memory.kv_cache / devices)
    bill = _with_engine(bill, memory, vllm_environment.MODEL_SHARE, runtime)
    bill = replace(bill, memory=memory, devices=devices, bytes_per_value=value)
    if stage.stage == "benchmark":
        return _with_reading(bill, shape, workload.exam_tokens(stage))
    if answers is None:
        return bill
    bill = _with_reading(bill, shape, answers.tokens)
    if machine.bandwidth is None:
        return bill
    steps = math.ceil(answers.tokens / min(VLLM_ANSWERS, answers.num_answers))
    bandwidth = devices * machine.bandwidth
    return replace(bill, seconds=formulas.decoding_seconds(shape, steps, value, bandwidth))


def _with_reading(bill: StageBill, shape: ModelShape, tokens: int) -> StageBill:
    """Return a bill with the FLOPs of one forward pass of so many tokens; 0 are unknown."""
    if not tokens:
        return bill
    flops = tokens * formulas.forward_flops(shape, 0)
    return replace(bill, tokens=float(tokens), is_counted=False, flops=flops)
