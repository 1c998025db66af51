"""Whether a stage fits its machine, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from soaes.bill.machine import GB, Machine
from soaes.bill.stage_bill import StageBill, stage_bill
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import ANSWERING, is_cut_by_vllm, is_timed_in_vllm
from soaes.pipeline.runtime import SHARDED, TRAINING_STAGES, Runtime
from soaes.pipeline.store import Store

# The formulas are within a few per cent of tracked steps: a stage is refused where it needs more
# than TOLERANCE times what there is, and has no margin above MARGIN times.
TOLERANCE = 1.05
MARGIN = 0.95

# The adapters of conf/optim/lora.yaml, as far as they take memory.
LORA = {"rank": 64}

# The nodes by which vLLM runs a model, of conf/teacher_logits and conf/backend.
TEACH = "soaes.stages.teach.teach"
TEACH_VLLM = "soaes.stages.teach.teach_vllm"
VLLM = {"_target_": "soaes.decode.backends.vllm_model.open_vllm_model", "_partial_": True}
NATIVE = {"_target_": "soaes.decode.backends.native.open_native", "_partial_": True}

# Devices of a machine over which vLLM could cut a model, where those that there are do not do.
MORE_DEVICES = (2, 4, 8)


def overflow(bill: StageBill, machine: Machine) -> str:
    """Return what a stage needs more than the machine has; empty where it fits or is not known."""
    device, memory = bill.device_bytes, machine.device_memory
    if bill.share is not None and memory is not None:
        beyond = _beyond_share(bill, bill.share, memory, machine.name)
        if beyond:
            return beyond
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


def _beyond_share(bill: StageBill, share: float, memory: float, name: str) -> str:
    """Return what an engine of vLLM needs more than its share; empty where it fits.

    vLLM ends where its share does not hold its weights, which are counted exactly.
    """
    given, rest = share * memory, (1 - share) * memory
    if bill.engine > given:
        return (
            f"{bill.engine / GB:,.1f} GB of the {given / GB:,.1f} GB that an engine of vLLM is "
            f"given, {share:.0%} of a device ({name})"
        )
    beside = bill.beside_engine + bill.process
    if bill.beside_engine and beside > TOLERANCE * rest:
        return (
            f"{beside / GB:,.1f} GB beside vLLM of the {rest / GB:,.1f} GB that its {share:.0%} "
            f"leave of a device ({name})"
        )
    return ""


def states_overflow(bill: StageBill, machine: Machine) -> bool:
    """Tell whether weights, gradients and the optimizer's state alone are more than the memory."""
    if bill.memory is None or machine.device_memory is None:
        return False
    memory = bill.memory
    return memory.weights + memory.gradients + memory.optimizer > machine.device_memory


def fit(bill: StageBill, machine: Machine) -> str:
    """Return one word for how a stage fits: yes, tight, NO; `?` where something is not known."""
    device = bill.needed_bytes
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
    for change in _by_vllm(stage, runtime):
        if change.fits(store, machine):
            return f"set {change.words}"
    for changes in (_in_vllm(stage, runtime), _in_vllm_in_bfloat16(stage, runtime)):
        fitting: dict[str, str] = {}
        for change in changes:
            if change.fits(store, machine):  # of one setting the first value, which is the least
                fitting.setdefault(change.words.partition("=")[0], change.words)
        if fitting:
            return f"set {', or '.join(fitting.values())}"
    bill = stage_bill(store, stage, runtime, machine)
    if bill.needed_bytes and machine.device_memory and bill.needed_bytes > machine.device_memory:
        needed, name = bill.needed_bytes, "device_memory_gb"
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


def _by_vllm(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield the changes by which vLLM runs a stage; none if it does, or cannot."""
    cut = "which cuts the model over the devices"
    if stage.stage == "teach":
        words, by_vllm = "teacher_logits=vllm", replace(stage, target=TEACH_VLLM)
    elif stage.stage in ANSWERING and not is_cut_by_vllm(stage):
        words, by_vllm = "backend=vllm", _with(stage, backend=VLLM)
    else:
        return
    yield Change(f"{words}, {cut}", by_vllm, runtime)
    setting, in_bfloat16 = _in_bfloat16(by_vllm)
    yield Change(f"{words} {setting}, {cut}", in_bfloat16, runtime)


def _in_vllm(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield the changes by which the engines of a stage that vLLM runs need less of a device."""
    if not is_cut_by_vllm(stage) and not is_timed_in_vllm(stage):
        return
    setting, in_bfloat16 = _in_bfloat16(stage)
    yield Change(setting, in_bfloat16, runtime)
    if is_timed_in_vllm(stage):
        native = _with(stage, backend=NATIVE)
        yield Change("backend=native, which has the device to itself", native, runtime)
        return
    execution = runtime.execution
    for devices in MORE_DEVICES:
        if devices > execution.devices_per_node:
            over = replace(execution, devices=devices * execution.nodes, tensor_parallel=None)
            words = f"runtime.execution.devices={over.devices}"
            if execution.tensor_parallel is not None:
                words += " runtime.execution.tensor_parallel=null"
            yield Change(words, stage, replace(runtime, execution=over))
    if stage.stage == "teach_vllm":
        teach = replace(stage, target=TEACH)
        yield Change("teacher_logits=transformers, on one device", teach, runtime)
    else:
        arguments = {name: value for name, value in stage.arguments.items() if name != "backend"}
        answering = replace(stage, arguments=arguments)
        yield Change("backend=native, transformers on one device", answering, runtime)


def _in_vllm_in_bfloat16(stage: Recipe, runtime: Runtime) -> Iterator[Change]:
    """Yield the same changes beside bfloat16, where neither alone is enough."""
    if not is_cut_by_vllm(stage) and not is_timed_in_vllm(stage):
        return
    setting, in_bfloat16 = _in_bfloat16(stage)
    for change in _in_vllm(in_bfloat16, runtime):
        if change.words != setting:
            yield change._replace(words=f"{setting} {change.words}")


def _in_bfloat16(stage: Recipe) -> tuple[str, Recipe]:
    """Return the setting by which vLLM computes in bfloat16, and the stage under it."""
    if stage.stage in ANSWERING:  # the backend of `benchmark` is that of `evaluate`
        backend = stage.arguments["backend"] | {"dtype": "bfloat16"}
        return "evaluate.backend.dtype=bfloat16", _with(stage, backend=backend)
    node = "speed" if stage.stage == "speed" else "teacher_logits"
    return f"{node}.dtype=bfloat16", _with(stage, dtype="bfloat16")


def _with_optim(stage: Recipe, optim: dict[str, Any]) -> Recipe:
    return _with(stage, optim=optim)


def _with(stage: Recipe, **arguments: Any) -> Recipe:
    return replace(stage, arguments=stage.arguments | arguments)


def _least(runtime: Runtime) -> Runtime:
    """Return a runtime that holds as little at once as can be."""
    execution = replace(runtime.execution, micro_batch_size=1, gradient_checkpointing=True)
    return replace(runtime, execution=execution)
