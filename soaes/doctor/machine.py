"""The machine: processor, GPUs, torch's view of them, memory, cores, temporary files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from soaes.bill import report as bill
from soaes.doctor.finding import Case, Check, Finding, fault, ok, warning
from soaes.pipeline import dry_run, processor, provenance
from soaes.pipeline.hardware import Gpu, free_memory, gpus_here
from soaes.pipeline.store import format_bytes
from soaes.report.layout import counted

TORCH_SECONDS = 120  # that a process may take to load torch, from a cold disk or network
LITTLE_DISK = 100e6  # bytes, for temporary files
FREE_SHARE = 0.9  # of a GPU's memory; less is free where another process uses it

PROBE = (
    "import json, torch; gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0; "
    "level = torch.backends.cpu.get_cpu_capability(); "
    "print(json.dumps([torch.__version__, gpus, level]))"
)


# ---------------------------------------------------------------- processor


def precisions(case: Case) -> Iterator[Finding]:
    """Name the processor and the types that it computes fast in."""
    name, fast = provenance.machine(), processor.fast_bfloat16()
    why = processor.slow_bfloat16()
    if why:
        yield ok("processor", f"{name}; fast in float32, slow in bfloat16: {why}")
    elif fast:
        yield ok("processor", f"{name}; fast in float32 and bfloat16")
    else:
        yield ok("processor", f"{name}; fast in float32, nothing is known here of bfloat16")
    if case.plan is None:
        return
    slow = dry_run.slow_precision(case.plan.store, case.plan.recipes, case.plan.runtime)
    if slow:
        text = slow.removeprefix("Warning: ")
        yield warning("precision", text, "set precision=32-true, or a runtime with a GPU")


def cores(case: Case) -> Iterator[Finding]:
    """Compare the cores with the threads of the stages that run side by side."""
    available = _cores()
    runtime = case.runtime
    if runtime is None:
        yield ok("cores", str(available))
        return
    execution = runtime.execution
    of_stage = execution.threads
    if runtime.torchrun:
        of_stage *= execution.devices
    used = runtime.parallel_stages * of_stage
    threads = counted(of_stage, "thread")
    product = f"{available}; runtime.parallel_stages={runtime.parallel_stages} of {threads} each"
    if of_stage > available:
        fitting = max(1, available * execution.threads // of_stage)
        yield warning("cores", f"{product} take {used}", f"set runtime.execution.threads={fitting}")
    elif used > available:
        remedy = f"set runtime.parallel_stages={available // of_stage}"
        yield warning("cores", f"{product} take {used}", remedy)
    else:
        yield ok("cores", f"{product} use {used}")
    todo = case.plan.todo if case.plan is not None else {}
    timed = [recipe.arguments.get("threads") for recipe in todo.values()]
    timed_threads = max((threads for threads in timed if isinstance(threads, int)), default=0)
    if timed_threads > available and execution.device == "cpu":
        value = f"{available}, and speed.threads={timed_threads}"
        yield warning("cores", value, f"set speed.threads={available}")


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# ---------------------------------------------------------------- GPUs


def gpu(case: Case) -> Iterator[Finding]:
    """Compare the GPUs that nvidia-smi lists with those that the runtime asks for."""
    needed = _gpus_needed(case)
    asked = _asked(case)
    try:
        gpus = gpus_here()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        value = f"nvidia-smi fails ({' '.join(str(error).split())})"
        mark = fault if needed else warning
        yield mark("GPU", value, "repair the driver until `nvidia-smi` lists the GPUs")
        return
    names = [f"{card.name} ({card.memory_mb / 1024:.0f} GB)" for card in gpus]
    listed = ", ".join(dict.fromkeys(names))
    if needed > len(gpus):
        remedy = "set runtime=one_gpu" if gpus else "set runtime=cpu, or run this where they are"
        here = f"{len(gpus)} here, {listed}" if gpus else "none here"
        yield fault("GPU", f"{here}, and {asked} asks for {needed}", remedy)
    elif not gpus:
        yield ok("GPU", "none, and none is asked for")
    elif not needed:
        yield ok("GPU", f"{len(gpus)}, {listed}; not used, runtime=one_gpu would")
    else:
        yield ok("GPU", f"{len(gpus)}, {listed}; {asked} uses {needed}")
        yield from _busy(gpus[:needed])


def _busy(gpus: list[Gpu]) -> Iterator[Finding]:
    for index, card in enumerate(gpus):
        if card.free_mb < FREE_SHARE * card.memory_mb:
            value = f"of GPU {index} only {card.free_mb:,} of {card.memory_mb:,} MB are free"
            remedy = "end what `nvidia-smi` lists, or name others in CUDA_VISIBLE_DEVICES"
            yield warning("GPU", value, remedy)


def _asked(case: Case) -> str:
    if case.runtime is None:
        return ""
    execution = case.runtime.execution
    return f"device={execution.device} devices={execution.devices}"


def _gpus_needed(case: Case) -> int:
    if case.runtime is None or not case.runtime.execution.device.startswith("cuda"):
        return 0
    execution = case.runtime.execution
    _, _, index = execution.device.partition(":")
    return int(index) + 1 if index else execution.devices


def torch(case: Case) -> Iterator[Finding]:
    """Load torch in a process of its own, where a GPU is asked for or the user wants it."""
    needed = _gpus_needed(case)
    if not needed and not case.with_torch:
        return
    command = [sys.executable, "-c", PROBE]
    try:
        ran = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        value = f"not loaded after {TORCH_SECONDS} s"
        yield fault("torch", value, "move the environment from a slow or full disk, and try again")
        return
    reinstall = "install a build of torch for these GPUs, see https://pytorch.org/get-started"
    if ran.returncode:
        last_line = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
        yield fault("torch", f"cannot be loaded: {last_line}", reinstall)
        return
    version, gpus, level = json.loads(ran.stdout.strip().splitlines()[-1])
    value = f"{version}, sees {gpus} GPUs, computes with {level} on the CPU"
    if gpus < needed:
        yield fault("torch", f"{value}, and {_asked(case)} asks for {needed}", reinstall)
    else:
        yield ok("torch", value)


# ---------------------------------------------------------------- memory and temporary files


def memory(case: Case) -> Iterator[Finding]:
    """Compare the free memory with what the largest stage to run took when one like it was built.

    As many of that size as may run side by side.
    """
    free = free_memory()
    if free is None:
        yield ok("memory", "how much is free is not known on this system")
        return
    value = f"{format_bytes(free)} are free"
    if case.plan is None:
        yield ok("memory", value)
        return
    estimate, todo = case.plan.estimate, len(case.plan.todo)
    largest = estimate.memory_mb << 20
    side_by_side = min(case.plan.runtime.parallel_stages, todo)
    if largest:
        value += f", the largest known stage to run takes {format_bytes(largest)}"
        value += f", {side_by_side} run side by side" if side_by_side > 1 else ""
    if estimate.num_unknown:
        value += f"; of {estimate.num_unknown} of {todo} stages to run it is not known what they "
        value += "take: none of their size was built here"
    if largest > free:
        remedy = "end other programs, or set runtime.execution.micro_batch_size=1"
        yield warning("memory", value, remedy)
    elif side_by_side * largest > free:
        yield warning("memory", value, f"set runtime.parallel_stages={free // largest}")
    else:
        yield ok("memory", value)


def fit(case: Case) -> Iterator[Finding]:
    """Compare what each stage to run is counted to take with its device and the host."""
    if case.plan is None:
        return
    plan = case.plan
    warnings = bill.check(plan.store, plan.todo, plan.runtime)  # what it refuses is a fault
    for line in warnings:
        value, _, remedy = line.removeprefix("Warning: ").rpartition("; ")
        yield warning("fit", value, remedy)
    if not warnings:
        yield ok("fit", "no stage to run needs more memory than is known of its device")


def temporary_files(case: Case) -> Iterator[Finding]:
    """Look at the disk of temporary files, which every process of a build writes."""
    remedy = "set TMPDIR to a folder on a disk with room"
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        yield fault("TMPDIR", "no folder for temporary files can be written", remedy)
        return
    free = shutil.disk_usage(folder).free
    value = f"{folder}, {format_bytes(free)} are free"
    yield warning("TMPDIR", value, remedy) if free < LITTLE_DISK else ok("TMPDIR", value)


CHECKS: dict[str, Check] = {
    "processor": precisions,
    "cores": cores,
    "GPU": gpu,
    "torch": torch,
    "memory": memory,
    "fit": fit,
    "TMPDIR": temporary_files,
}
