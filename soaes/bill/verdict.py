"""Whether a stage fits its machine, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from soaes.bill.machine import GB, Machine
from soaes.bill.stage_bill import StageBill, stage_bill
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import SHARDED, TRAINING_STAGES, Runtime
from soaes.pipeline.store import Store

# The formulas are within a few per cent of tracked steps: a stage is refused where it needs more
# than TOLERANCE times what there is, and has no margin above MARGIN times.
TOLERANCE = 1.05
MARGIN = 0.95


def overflow(bill: StageBill, machine: Machine) -> str:
    """Return what a stage needs more than the machine has; empty where it fits or is not known."""
    device, memory = bill.device_bytes, machine.device_memory
    if device is not None and memory is not None and device > TOLERANCE * memory:
        of_device = "the free memory here" if machine.is_cpu else f"a device ({machine.name})"
        return f"{device / GB:,.1f} GB of the {memory / GB:,.1f} GB of {of_device}"
    host = machine.host_memory
    if not machine.is_cpu and host is not None and bill.host_bytes > TOLERANCE * host:
        cause = "for what is offloaded"
        if bill.host_bytes == bill.loading:
            cause = "while every rank loads the whole model"
        elif bill.saving:
            cause = "with the weights that are gathered to save them"
        return f"{bill.host_bytes / GB:,.0f} GB of the {host / GB:,.0f} GB of the host, {cause}"
    return ""


def states_overflow(bill: StageBill, machine: Machine) -> bool:
    """Tell whether weights, gradients and the optimizer's state alone are more than the memory."""
    if bill.memory is None or machine.device_memory is None:
        return False
    memory = bill.memory
    return memory.weights + memory.gradients + memory.optimizer > machine.device_memory


def fit(bill: StageBill, machine: Machine) -> str:
    """Return one word for how a stage fits: yes, tight, NO; `?` where something is not known."""
    device = bill.device_bytes
    if overflow(bill, machine):
        return "NO"
    if device is None or machine.device_memory is None:
        return "?"
    return "tight" if device > MARGIN * machine.device_memory else "yes"


def way_out(store: Store, stage: Recipe, runtime: Runtime, machine: Machine) -> str:
    """Return the settings under which a stage that does not fit would; else what it needs.

    Args:
        store: Where packed rows and fetched models are looked up.
        stage: The stage.
        runtime: The settings under which it does not fit.
        machine: The machine.
    """
    for change in _changes(stage, runtime):
        on = replace(machine, host_memory=None) if change.elsewhere else machine
        if not overflow(stage_bill(store, stage, change.runtime, on), on):
            return f"set {change.words}"
    bill = stage_bill(store, stage, runtime, machine)
    if stage.stage == "teach":
        whole = bill.device_bytes or 0.0
        share = whole / runtime.execution.devices
        if machine.device_memory and share < MARGIN * machine.device_memory:
            return "set teacher_logits=vllm, which cuts the model over the devices"
    if bill.device_bytes and machine.device_memory and bill.device_bytes > machine.device_memory:
        needed, name = bill.device_bytes, "device_memory_gb"
        what = "a machine with more memory" if machine.is_cpu else "a larger card"
    else:
        needed, name, what = bill.host_bytes, "host_memory_gb", "a host with more memory"
    setting = f"runtime.hardware.{name}={needed / MARGIN / GB:.0f}"
    if machine.is_cpu:
        setting = f"runtime.hardware.host_memory_gb={needed / MARGIN / GB:.0f}"
    return f"take a smaller model, or {what} ({setting})"


class Change(NamedTuple):
    """Settings that need less memory."""

    words: str
    """That set them."""

    runtime: Runtime
    elsewhere: bool = False
    """They are for another machine, whose host is not this one."""


def _changes(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield settings that need less memory, mildest first."""
    if stage.stage not in TRAINING_STAGES:
        return
    execution = runtime.execution
    one_row = replace(execution, micro_batch_size=1)
    least = replace(one_row, gradient_checkpointing=True)
    rows = "runtime.execution.micro_batch_size=1"
    recomputing = "runtime.execution.gradient_checkpointing=true"
    if execution.micro_batch_size > 1:
        yield Change(rows, replace(runtime, execution=one_row))
    if not execution.gradient_checkpointing:
        checkpointing = replace(execution, gradient_checkpointing=True)
        yield Change(recomputing, replace(runtime, execution=checkpointing))
        yield Change(f"{recomputing} {rows}", replace(runtime, execution=least))
    if not execution.device.startswith("cuda"):
        return
    if execution.parallelism == "fsdp2" and not execution.cpu_offload:
        offloading = replace(execution, cpu_offload=True)
        words = "runtime.execution.cpu_offload=true"
        yield Change(words, replace(runtime, execution=offloading))
    if execution.parallelism not in SHARDED:
        offloading = replace(least, devices=8, strategy="zero3", cpu_offload=True, compile=False)
        on_eight = replace(runtime, execution=offloading, torchrun=TRAINING_STAGES)
        yield Change("runtime=a800x8, on eight GPUs", on_eight, elsewhere=True)
