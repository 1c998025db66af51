"""Whether a stage fits its machine, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from soaes.bill.machine import GB, Machine
from soaes.bill.stage_bill import StageBill, stage_bill
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import ANSWERING, is_cut_by_vllm
from soaes.pipeline.runtime import SHARDED, TRAINING_STAGES, Runtime
from soaes.pipeline.store import Store

# The formulas are within a few per cent of tracked steps: a stage is refused where it needs more
# than TOLERANCE times what there is, and has no margin above MARGIN times.
TOLERANCE = 1.05
MARGIN = 0.95

# The adapters of conf/optim/lora.yaml, as far as they take memory.
LORA = {"rank": 64}

# The nodes by which vLLM runs a model, of conf/teacher_logits and conf/backend.
TEACH_VLLM = "soaes.stages.teach.teach_vllm"
VLLM = {"_target_": "soaes.decode.backends.vllm_model.open_vllm_model", "_partial_": True}


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
        if change.fits(store, machine):
            return f"set {change.words}"
    larger = [each for each in _larger_changes(stage, runtime) if each.fits(store, machine)]
    if larger:
        return f"set {', or '.join(change.words for change in larger)}"
    by_vllm = _by_vllm(stage, runtime)
    if by_vllm is not None and by_vllm.fits(store, machine):
        return f"set {by_vllm.words}"
    bill = stage_bill(store, stage, runtime, machine)
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

    stage: Recipe
    runtime: Runtime
    elsewhere: bool = False
    """They are for another machine, whose host is not this one."""

    def fits(self, store: Store, machine: Machine) -> bool:
        """Tell whether a stage fits under these settings."""
        on = replace(machine, host_memory=None) if self.elsewhere else machine
        return not overflow(stage_bill(store, self.stage, self.runtime, on), on)


ROWS = "runtime.execution.micro_batch_size=1"
RECOMPUTING = "runtime.execution.gradient_checkpointing=true"


def _changes(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield settings that need less memory and change no result, mildest first."""
    if stage.stage not in TRAINING_STAGES:
        return
    execution = runtime.execution
    one_row = replace(runtime, execution=replace(execution, micro_batch_size=1))
    if execution.micro_batch_size > 1:
        yield Change(ROWS, stage, one_row)
    if not execution.gradient_checkpointing:
        recomputing = replace(execution, gradient_checkpointing=True)
        yield Change(RECOMPUTING, stage, replace(runtime, execution=recomputing))
        yield Change(f"{RECOMPUTING} {ROWS}", stage, _least(runtime))
    is_on_gpu = execution.device.startswith("cuda")
    if is_on_gpu and execution.parallelism == "fsdp2" and not execution.cpu_offload:
        offloading = replace(runtime, execution=replace(execution, cpu_offload=True))
        yield Change("runtime.execution.cpu_offload=true", stage, offloading)


def _larger_changes(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield settings that train less, or on more GPUs, with as little at once as can be."""
    is_sharded = runtime.execution.parallelism in SHARDED
    if stage.stage not in TRAINING_STAGES or is_sharded:
        return
    least = _least(runtime)
    optim = stage.arguments["optim"]
    is_adapted = optim.get("lora") is not None
    if stage.stage != "pretrain" and not is_adapted:
        words = ["optim=lora"]
        if not runtime.execution.gradient_checkpointing:
            words.append(RECOMPUTING)
        if runtime.execution.micro_batch_size > 1:
            words.append(ROWS)
        adapted = _with_optim(stage, optim | {"lora": LORA})
        yield Change(f"{' '.join(words)}, which trains adapters alone", adapted, least)
    if not runtime.execution.device.startswith("cuda"):
        return
    whole = _with_optim(stage, optim | {"lora": None})
    all_weights = "optim=phases " if is_adapted else ""  # shares have no adapters
    offloading = replace(least.execution, strategy="zero3", cpu_offload=True, compile=False)
    on_one = replace(runtime, execution=offloading, torchrun=TRAINING_STAGES)
    if stage.stage != "pretrain" and offloading.devices == 1:
        where = "with the optimizer in the memory of the host"
        yield Change(f"{all_weights}runtime=one_gpu_offload, {where}", whole, on_one)
    on_eight = replace(on_one, execution=replace(offloading, devices=8))
    yield Change(f"{all_weights}runtime=a800x8, on eight GPUs", whole, on_eight, elsewhere=True)


def _by_vllm(stage: Recipe, runtime: Runtime) -> Change | None:
    """Return the change by which vLLM runs a stage; None if it does, or cannot."""
    cut = "which cuts the model over the devices"
    if stage.stage == "teach":
        teach = replace(stage, target=TEACH_VLLM)
        return Change(f"teacher_logits=vllm, {cut}", teach, runtime)
    if stage.stage in ANSWERING and not is_cut_by_vllm(stage):
        answering = replace(stage, arguments=stage.arguments | {"backend": VLLM})
        return Change(f"backend=vllm, {cut}", answering, runtime)
    return None


def _with_optim(stage: Recipe, optim: dict[str, Any]) -> Recipe:
    return replace(stage, arguments=stage.arguments | {"optim": optim})


def _least(runtime: Runtime) -> Runtime:
    """Return a runtime that holds as little at once as can be."""
    execution = replace(runtime.execution, micro_batch_size=1, gradient_checkpointing=True)
    return replace(runtime, execution=execution)
