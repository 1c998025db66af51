"""The bill of a plan in words: tables of at most 100 columns, and what does not fit.

`check` says it before a real run too. Imports no torch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from statistics import mean
from typing import NamedTuple

from soaes.bill import workload
from soaes.bill.machine import GB, MB, TERA, Machine, machine_of
from soaes.bill.stage_bill import StageBill, stage_bill
from soaes.bill.verdict import fit, overflow, states_overflow, way_out
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store

WIDTH = 100

PAPER_TOKENS = 17e9  # that the paper's CPT reads, section 4.1

WORK = f"{'stage':<28}{'n':>4}{'params':>8}{'tokens':>9}{'FLOPs':>10}{'time each':>16}"
WORK += f"{'disk each':>12}{'checkpoints':>13}"

# The columns of a device's memory and their widths, behind 25 columns for the stage.
PARTS = {
    "weights": 8,
    "grads": 6,
    "optim": 6,
    "activ": 7,
    "logits": 7,
    "KV": 5,
    "all": 7,
    "of": 7,
    "offload": 8,
    "host": 7,
    "fits": 6,
}
LEGEND = (
    "~ marks tokens that are estimated, * a time that was measured here. all: with the process "
    "itself; offload, host: memory of the host for what is offloaded, and at its peak, when ranks "
    "load or save models."
)

UNKNOWN = (
    "the layers of this model are not known here; fetch it first with goal=target.base or "
    "goal=draft.base, whose config.json tells them if they are those of Qwen2, Qwen3, Llama or "
    "Mistral"
)

SMALL = 10 * GB
"""Where no device needs more, memory is written in megabytes."""


class Group(NamedTuple):
    """Stages of one bill."""

    bill: StageBill
    stages: list[Recipe]


def bills(
    store: Store,
    todo: Mapping[str, Recipe],
    runtime: Runtime,
    machine: Machine,
    measured: Mapping[str, float],
) -> list[Group]:
    """Return the bills of the stages to run, equal ones together, in the order of the stages.

    Args:
        store: Where packed rows and fetched models are looked up.
        todo: The stages to run, by name.
        runtime: How they are run.
        machine: What they are run on.
        measured: Seconds that a stage of its kind took when one was built here, by name.
    """
    groups: dict[StageBill, list[Recipe]] = {}
    for name, recipe in todo.items():
        bill = replace(stage_bill(store, recipe, runtime, machine), name="")
        if name in measured:
            bill = replace(bill, seconds=None, is_measured=True)
        groups.setdefault(bill, []).append(recipe)
    timed = []
    for bill, stages in groups.items():
        if bill.is_measured:
            bill = replace(bill, seconds=mean(measured[stage.name] for stage in stages))
        timed.append(Group(bill, stages))
    return timed


def lines(
    store: Store, todo: Mapping[str, Recipe], runtime: Runtime, measured: Mapping[str, float]
) -> Iterator[str]:
    """Yield the bill of the stages to run.

    Args:
        store: Where packed rows and fetched models are looked up.
        todo: The stages to run, by name.
        runtime: How they are run.
        measured: Seconds that a stage of its kind took when one was built here, by name.
    """
    yield f"{len(todo)} stages to run"
    if not todo:
        return
    needs_rate = len(measured) < len(todo)
    machine = machine_of(runtime, store, needs_rate)
    groups = bills(store, todo, runtime, machine, measured)
    yield from _wrapped(_machine_words(runtime, machine, needs_rate))
    yield ""
    yield WORK
    yield from (_work_line(group) for group in groups)
    with_memory = {(group.bill.kind, group.bill.memory): group for group in groups}
    if any(memory is not None for _, memory in with_memory):
        yield ""
        shown = [group.bill for (_, memory), group in with_memory.items() if memory is not None]
        unit = MB if max(bill.device_bytes or 0.0 for bill in shown) < SMALL else GB
        title = "MB of a device" if unit == MB else "GB of a device"
        yield f"{title:<25}{_columns(PARTS)}"
        yield from (_memory_line(bill, machine, unit) for bill in shown)
    yield ""
    for line in _totals(groups, runtime, machine):
        yield from _wrapped(line)
    unknown = workload.unknown_models(store, todo, runtime)
    if unknown:
        yield from _wrapped(f"Not counted: {', '.join(unknown)}: {UNKNOWN}.")
    for line in [*_paper(groups), *_not_fitting(store, groups, runtime, machine)]:
        yield from _wrapped(line)


def check(store: Store, todo: Mapping[str, Recipe], runtime: Runtime) -> list[str]:
    """Refuse a run whose stages do not fit their devices.

    Args:
        store: Where packed rows and fetched models are looked up.
        todo: The stages to run, by name.
        runtime: How they are run.

    Returns:
        Warnings, of a CPU's memory: other programs may give some back.

    Raises:
        ValueError: A stage does not fit a GPU or its host; on a CPU, its states alone do not fit.
    """
    machine = machine_of(runtime, store, with_rate=False)
    warnings = []
    for bill, stages in bills(store, todo, runtime, machine, {}):
        if not overflow(bill, machine):
            continue
        message = _overflow_words(store, bill, stages[0], runtime, machine)
        if not machine.is_cpu or states_overflow(bill, machine):
            raise ValueError(message)
        warnings.append(f"Warning: {message}")
    return warnings


def counted_seconds(store: Store, todo: Mapping[str, Recipe], runtime: Runtime) -> dict[str, float]:
    """Return the seconds of the stages whose arithmetic and device's rate are known, by name.

    A processor is not timed for it: its rate is known where runtime.hardware says it.
    """
    machine = machine_of(runtime, store, with_rate=False)
    seconds = {}
    for name, recipe in todo.items():
        counted = stage_bill(store, recipe, runtime, machine).seconds
        if counted is not None:
            seconds[name] = counted
    return seconds


# ----------------------------------------------------------------------------------------- lines


def _work_line(group: Group) -> str:
    bill, number = group.bill, len(group.stages)
    parameters = "" if bill.parameters is None else _short(bill.parameters)
    tokens = "" if bill.tokens is None else ("" if bill.is_counted else "~") + _short(bill.tokens)
    flops = "" if bill.flops is None else f"{bill.flops:.2g}"
    time = "?" if bill.seconds is None else duration(bill.seconds)
    time += "*" if bill.is_measured else ""
    disk = size(bill.disk) if bill.disk else ""
    scratch = size(bill.scratch) if bill.scratch else ""
    line = f"{bill.kind[:28]:<28}{number:>4}{parameters:>8}{tokens:>9}{flops:>10}{time:>16}"
    return f"{line}{disk:>12}{scratch:>13}".rstrip()


def _memory_line(bill: StageBill, machine: Machine, unit: float) -> str:
    memory = bill.memory
    assert memory is not None and bill.device_bytes is not None
    numbers = [
        memory.weights,
        memory.gradients,
        memory.optimizer,
        memory.activations,
        memory.logits,
        memory.kv_cache,
        bill.device_bytes,
        machine.device_memory or 0.0,
        memory.host,
        bill.host_bytes,
    ]
    words = [in_unit(number, unit) for number in numbers]
    return f"{bill.kind[:25]:<25}{_columns([*words, fit(bill, machine)])}"


def _columns(words: Iterable[str]) -> str:
    """Write words into the columns of PARTS."""
    pairs = zip(words, PARTS.values(), strict=True)
    return "".join(f"{word:>{width}}" for word, width in pairs)


def _machine_words(runtime: Runtime, machine: Machine, needs_rate: bool) -> str:
    devices = runtime.execution.devices
    words = (
        f"Counted for {devices} x {machine.name}" if devices > 1 else f"Counted for {machine.name}"
    )
    if machine.device_memory is None:
        words += ", whose memory is not known (set runtime.hardware.card, or device_memory_gb)"
    else:
        words += f", {in_unit(machine.device_memory)} GB" + " free" * machine.is_cpu
    if machine.rate is None and needs_rate:
        words += ", rate not known (set runtime.hardware.peak_tflops)"
    elif machine.rate is not None:
        words += f", {machine.rate / TERA:.3g} TFLOP/s of products"
        if machine.rate_float32 is not None and machine.rate_float32 != machine.rate:
            words += f" in bfloat16 and {machine.rate_float32 / TERA:.3g} in float32"
        words += f" at {machine.utilisation:.0%} utilisation"
    if not machine.is_cpu and machine.host_memory is not None:
        words += f", and a host with {in_unit(machine.host_memory)} GB"
    return f"{words}. {LEGEND}"


def _totals(groups: list[Group], runtime: Runtime, machine: Machine) -> Iterator[str]:
    """Yield the time and the disk of all stages."""
    unknown: dict[str, int] = {}
    total = disk = scratch = 0.0
    for bill, stages in groups:
        disk += len(stages) * bill.disk
        scratch = max(scratch, bill.scratch)
        if bill.seconds is None:
            unknown[bill.kind] = unknown.get(bill.kind, 0) + len(stages)
        else:
            total += len(stages) * bill.seconds
    side_by_side = runtime.parallel_stages
    words = f"In all: {duration(total)}"
    if side_by_side > 1:
        words += (
            f" of one worker, {duration(total / side_by_side)} with {side_by_side} side by side"
        )
    if unknown:
        counts = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
        words += f", without stages whose time is not known: {counts}"
    yield words + "."
    room = size(machine.disk)
    needed = disk + scratch * side_by_side
    words = f"Disk: {size(disk)} stay, {size(scratch * side_by_side)} more for checkpoints"
    if needed > machine.disk:
        yield f"Warning: {words}; only {room} are free: set runtime.store to a larger disk."
    else:
        yield f"{words}; {room} are free."


def _paper(groups: list[Group]) -> Iterator[str]:
    """Yield what the paper's own CPT would take of each published model that is in the plan."""
    for bill, stages in groups:
        is_published = bill.parameters is not None and bill.parameters > GB
        if stages[0].stage == "cpt" and is_published and bill.tokens and bill.seconds:
            seconds = bill.seconds / bill.tokens * PAPER_TOKENS
            yield f"The paper's CPT reads 17B tokens: {bill.kind} would take {duration(seconds)}."


def _not_fitting(
    store: Store, groups: list[Group], runtime: Runtime, machine: Machine
) -> Iterator[str]:
    """Yield what does not fit and the way out, stages of one need in one line."""
    needs: dict[str, list[Group]] = {}
    for group in groups:
        needed = overflow(group.bill, machine)
        if needed:
            needs.setdefault(needed, []).append(group)
    for needed, of_need in needs.items():
        kinds = dict.fromkeys(group.bill.kind for group in of_need)
        remedy = way_out(store, of_need[0].stages[0], runtime, machine)
        yield f"Does not fit: {', '.join(kinds)}: needs {needed}; {remedy}."


def _overflow_words(
    store: Store, bill: StageBill, stage: Recipe, runtime: Runtime, machine: Machine
) -> str:
    needed = overflow(bill, machine)
    remedy = way_out(store, stage, runtime, machine)
    return f"{bill.kind}: needs {needed}; {remedy} (dry=true shows the whole bill)"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


# ----------------------------------------------------------------------------------------- units


def duration(seconds: float) -> str:
    """Write a time in the unit that reads best: 45 s, 12 min, 30 h, 2,180 h (91 d)."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    if hours < 100:
        return f"{hours:.0f} h"
    return f"{hours:,.0f} h ({hours / 24:,.0f} d)"


def size(count: float) -> str:
    """Write bytes in the decimal unit that reads best."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return (
                f"{count / unit:.3g} {name}"
                if count < 1000 * unit
                else f"{count / unit:,.0f} {name}"
            )
    return f"{count / 1e3:.0f} kB"


def in_unit(count: float, unit: float = GB) -> str:
    """Write bytes as a number of units, with three digits; `-` for none."""
    number = count / unit
    if number == 0:
        return "-"
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def _short(count: float) -> str:
    """Write a number with three digits and its unit: 17B, 408k."""
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{name}"
    return f"{count:.0f}"
