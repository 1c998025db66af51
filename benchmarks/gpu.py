"""What a GPU makes of our training and decoding: `make gpu-report`, eight minutes on one card.

`python -m benchmarks.gpu`, with

    parts=NAME,NAME  of machine, losses, packed, memory, steps, decoding; all of them by default
    seconds=480      no part is started that would not end in them, and none runs longer
    dry=1            every part over tiny shapes on a CPU, where rates mean nothing
    out=FILE         benchmarks/results/gpu.json; a dry run writes no file by default
    commit=TEXT      of code that was copied without its history

    machine   products in bfloat16 and copies of memory, beside the card's data sheet
    losses    SFT and distillation by the stages: every step's loss here and on the CPU
    packed    documents of packed rows and each of them alone, by attention
    memory    peak memory of the KD loss, all at once and ours, at a vocabulary of 152,064
    steps     share of the peak of CE and KD steps, 0.5B and 1.5B, over packed rows of 8,192 tokens
    decoding  autoregression's share of the bandwidth, speculation measured / predicted, both
              without and with CUDA graphs

It needs what an image for GPUs has (Python 3.11 or 3.12, torch, transformers, pytorch-lightning and
their dependencies), no installed soaes, and two pure packages. A machine without a network gets
them in a folder:

    pip wheel --no-deps --wheel-dir wheels jieba==0.42.1 rouge-chinese==1.0.3   # here, 19 MB
    pip install --no-index --no-deps --target site wheels/*.whl                 # there
    export PYTHONPATH=site

A part runs in a process of its own, so that one that fails, or breaks the device, is reported by
its name and stops no other. Results are written after every part. The exit status is 1 if a part
failed or was not run.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from benchmarks.gpu_setting import Row, Setting
from benchmarks.rounds import markdown, options, write
from soaes.pipeline.hardware import SMI_SECONDS, card_here
from soaes.pipeline.provenance import provenance
from soaes.pipeline.store import read_json, write_json

DEFAULTS = {"parts": "", "seconds": "480", "dry": "0", "out": "", "commit": ""}
LEAST = {"seconds": 1, "dry": 0}
RESULTS = "benchmarks/results/gpu.json"
RUNNING, DONE = "running", "done"
STATUS_LENGTH = 600  # characters that are kept of an error
DRY_SECONDS = 6  # that a part of a dry run is expected to take at most

# A part's function, and the seconds that it is expected to take on a card at most, with the import
# of its libraries.
PARTS = {
    "machine": ("benchmarks.gpu_setting.machine", 20),
    "losses": ("benchmarks.gpu_train.losses", 80),
    "packed": ("benchmarks.gpu_train.packed", 30),
    "memory": ("benchmarks.gpu_train.memory", 30),
    "steps": ("benchmarks.gpu_train.steps", 150),
    "decoding": ("benchmarks.gpu_decode.decoding", 150),
}


@dataclass
class Outcome:
    """What became of a part."""

    part: str
    """Its name."""

    status: str = RUNNING
    """`done`, or why there are no results, or not all of them."""

    seconds: float = 0.0
    """That it took."""

    results: list[Row] = field(default_factory=list)
    """Rows of `benchmarks.rounds`, as far as it came."""


def main(words: list[str]) -> bool:
    """Run the parts, write their results as JSON and print them as Markdown.

    Args:
        words: The command line, key=value each.

    Returns:
        Whether every part was done.

    Raises:
        ValueError: A word is wrong, or there is no GPU.
    """
    began = time.monotonic()
    settings = options(words, DEFAULTS, LEAST)
    names = chosen_parts(settings["parts"])
    if settings["dry"] not in ("0", "1"):
        raise ValueError(f"dry={settings['dry']}: 1 for tiny shapes on a processor, 0 for a card")
    setting = Setting(dry=True) if settings["dry"] == "1" else on_card()
    out = settings["out"] or ("" if setting.dry else RESULTS)
    facts = {**provenance(), "card": setting.card, "driver": driver(), "dry": setting.dry}
    if settings["commit"]:
        facts["commit"] = settings["commit"]
    outcomes: list[Outcome] = []
    for name in names:
        left = int(settings["seconds"]) - (time.monotonic() - began)
        outcomes.append(run_part(name, setting, left))
        print(f"{name}: {outcomes[-1].status}", file=sys.stderr, flush=True)
        if out:
            write_results(Path(out), outcomes, facts)
    print(report(outcomes, facts))
    return all(outcome.status == DONE for outcome in outcomes)


def chosen_parts(names: str) -> list[str]:
    """Return the parts that parts=NAME,NAME names, in their own order; all of them if none.

    Raises:
        ValueError: There is no such part.
    """
    chosen = names.split(",") if names else list(PARTS)
    for name in chosen:
        if name not in PARTS:
            raise ValueError(f"parts={names}: there is no part {name!r}; give {', '.join(PARTS)}")
    return [name for name in PARTS if name in chosen]


def on_card() -> Setting:
    """Return the setting of the GPU here.

    Raises:
        ValueError: nvidia-smi names none.
    """
    card = card_here()
    if card is None:
        raise ValueError(
            "dry=0: nvidia-smi names no GPU here; run this where there is one, or set dry=1 for "
            "tiny shapes on the processor"
        )
    return Setting(dry=False, card=card[0], memory=card[1])


def driver() -> str | None:
    """Return the version of the GPU's driver; None where there is none."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    printed = subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=SMI_SECONDS
    ).stdout
    return printed.strip().partition("\n")[0]


def run_part(name: str, setting: Setting, left: float) -> Outcome:
    """Run one part, on a card in a process of its own.

    Args:
        name: A key of `PARTS`.
        setting: Where it runs.
        left: Seconds that are left. It is stopped after them.
    """
    _, needed = PARTS[name]
    if setting.dry:
        needed = DRY_SECONDS
    if left < needed:
        left_words = f"{max(0, left):.0f} s are left"
        return Outcome(name, f"not started: it takes up to {needed} s, and {left_words}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcome.json"
        if setting.dry:
            ended = attempt(name, setting, path)
        else:
            ended = _in_process(name, setting, path, left)
        outcome = Outcome(**read_json(path)) if path.exists() else Outcome(name)
    if outcome.status == RUNNING:
        outcome.status = ended
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _in_process(name: str, setting: Setting, path: Path, left: float) -> str:
    """Run a part in a process of its own and wait for it; how it ended."""
    process = multiprocessing.get_context("spawn").Process(
        target=attempt, args=(name, setting, path)
    )
    process.start()
    process.join(left)
    if process.is_alive():
        process.kill()
        process.join()
        return f"stopped after {left:.0f} s: no time was left"
    return f"failed: its process ended with status {process.exitcode}"


def attempt(name: str, setting: Setting, path: Path) -> str:
    """Run a part, and write its outcome after every row.

    Args:
        name: A key of `PARTS`.
        setting: Where it runs.
        path: The file of the outcome.

    Returns:
        How it ended.
    """
    warnings.filterwarnings("ignore")
    if setting.dry:
        torch.set_num_threads(1)
    outcome = Outcome(name)
    try:
        write_json(path, asdict(outcome))
        module, _, function = PARTS[name][0].rpartition(".")
        part = getattr(importlib.import_module(module), function)
        # of what Lightning and transformers say of toy trainings; an import sets it anew
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        for result in part(setting):
            outcome.results.append(result)
            write_json(path, asdict(outcome))
        outcome.status = DONE
    except Exception as error:  # whatever it is, the other parts go on
        traceback.print_exc()
        outcome.status = f"failed: {type(error).__name__}: {error}"[:STATUS_LENGTH]
    write_json(path, asdict(outcome))
    return outcome.status


def write_results(path: Path, outcomes: list[Outcome], facts: dict[str, Any]) -> None:
    """Write the rows of all parts, and what became of each.

    Args:
        path: The JSON file.
        outcomes: Of the parts so far.
        facts: What they were measured on.
    """
    parts = {}
    results: list[Row] = []
    for outcome in outcomes:
        parts[outcome.part] = {"status": outcome.status, "seconds": outcome.seconds}
        results.extend(outcome.results)
    write(path, results, **facts, parts=parts)


def report(outcomes: list[Outcome], facts: dict[str, Any]) -> str:
    """Return the results as Markdown: what they were measured on, the rows, the parts.

    Args:
        outcomes: Of the parts.
        facts: What they were measured on.
    """
    where = f"{facts['card']}, driver {facts['driver']}"
    if facts["dry"]:
        where = "a dry run over tiny shapes: its rates mean nothing, and no graph is recorded"
    versions = facts["versions"]
    lines = [
        f"GPU report of {where}; torch {versions['torch']}, "
        f"transformers {versions['transformers']}, soaes {facts['commit']}",
        "",
        markdown([result for outcome in outcomes for result in outcome.results]),
        "",
    ]
    for outcome in outcomes:
        lines.append(f"- {outcome.part}: {outcome.status} ({outcome.seconds:.0f} s)")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1:]) else 1)
    except ValueError as error:
        sys.exit(f"error: {error}")
