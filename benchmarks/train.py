"""Compare our training with common alternatives: `python -m benchmarks.train`.

    rows=FOLDER       packed rows of dialogues in a store; stage 2's of scale=tiny by default
    rounds=5          5 or more; one more runs first as a warm-up
    lengths=1000000   documents of the packing that is timed
    out=FILE          benchmarks/results/train.json

One thread, float32 as scale=tiny trains in, its models with random weights. Ratios are taken within
a round; a result is the median over the rounds."""

import logging
import sys
import tempfile
import warnings
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import train_memory
from benchmarks.rounds import markdown, options, write
from benchmarks.train_packing import Packing
from benchmarks.train_padded import Padding
from benchmarks.train_reading import Reading
from benchmarks.train_steps import Distilling, Share
from soaes.data import chat, teacher_store, token_store
from soaes.model import checkpoint
from soaes.model import soft_targets as formats
from soaes.pipeline import sweep
from soaes.pipeline.provenance import provenance
from soaes.pipeline.runtime import Execution
from soaes.pipeline.store import Store, read_recipe
from soaes.stages import teach

DEFAULTS = {"rows": "", "rounds": "5", "lengths": "1000000", "out": "benchmarks/results/train.json"}
MINIMUM = {"rounds": 5, "lengths": 1}
BUILD = "python -m soaes.run scale=tiny goal=rows.stage2"
SHAPES = {"2x96": (2, 96, 3, 1), "8x192": (8, 192, 6, 2)}  # layers, width, heads, key-value heads
STEPS = {("2x96", 1): 60, ("8x192", 1): 20, ("8x192", 8): 8}  # of a turn, by model and step's rows
STORE_ROWS = 128  # of the teacher store that is read


class Part(NamedTuple):
    """One comparison and the arguments of its `results`: words that name its setting."""

    benchmark: Padding | Share | Packing | Distilling | Reading
    setting: tuple[str, ...] = ()


def main(words: list[str]) -> None:
    """Run every round, write the results as JSON and print them as Markdown."""
    settings = options(words, DEFAULTS, MINIMUM)
    rounds = int(settings["rounds"])
    folder, tokenizer, lock = rows_folder(settings["rows"])
    digest = chat.tokenizer_digest(tokenizer)
    arrays = [np.asarray(array) for array in token_store.load(folder / "train", digest)]
    rows = token_store.Rows(*arrays)
    with ExitStack() as stack:
        print("waiting until no stage runs on this store", file=sys.stderr, flush=True)
        stack.enter_context(lock)  # as a speed stage does
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        torch.set_num_threads(1)
        parts = create_parts(rows, tokenizer, scratch, int(settings["lengths"]))
        for number in range(rounds + 1):
            for part in parts:
                part.benchmark.run(number, counted=number > 0)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        results: list[dict] = []
        for part in parts:
            results.extend(part.benchmark.results(*part.setting))
        results.extend(train_memory.results(rounds))
    write(Path(settings["out"]), results, **provenance(), rows=folder.name)
    print(markdown(results))


def rows_folder(rows: str) -> tuple[Path, Path, AbstractContextManager]:
    """Find the rows to train on.

    Args:
        rows: a folder of rows in a store; empty for stage 2's of scale=tiny.

    Returns:
        The folder of the rows, their tokenizer's folder, and the lock of their store.

    Raises:
        ValueError: if the store does not hold them.
    """
    (tiny,) = sweep.jobs(["scale=tiny", "goal=rows.stage2"])
    store = Store(Path(rows).parent if rows else tiny.runtime.store)
    name = Path(rows).name if rows else tiny.recipe.name
    if not store.holds(name):
        raise ValueError(
            f"rows {name} are not in {store.root}: "
            f"run `{BUILD}` first, or name rows=FOLDER of a store"
        )
    tokenizer = read_recipe(store, name).parents["tokenizer"].name
    return store.folder(name), store.folder(tokenizer), store.lock("machine")


def create_parts(
    rows: token_store.Rows, tokenizer: Path, scratch: Path, lengths: int
) -> list[Part]:
    """Return the comparisons that take turns in every round."""
    context = rows.ids_RT.shape[1]
    models = {}
    for name, shape in SHAPES.items():
        models[name] = checkpoint.create(tokenizer, *shape, context, seed=0)
    padding = []
    lengths_of_rows: list[int] = []
    for (name, step), steps in STEPS.items():
        benchmark = Padding(models[name], tokenizer, rows, step, steps)
        padding.append(Part(benchmark, (f"{name}, {step} x {context} tokens a step",)))
        lengths_of_rows = benchmark.lengths
    large, small = models["8x192"], models["2x96"]
    head_VD = large.lm_head.weight.detach()
    share = Share(large, rows, 2, 10)
    distilling = Distilling(small, rows, 40, head_VD)
    store = build_teacher_store(large, tokenizer, rows, scratch)
    return [
        *padding,
        Part(share, (f"8x192, 2 x {context} tokens a step",)),
        Part(Packing(lengths, (lengths_of_rows, context))),
        Part(distilling, (f"2x96 under 8x192, {context} tokens a step",)),
        Part(Reading(store, STORE_ROWS, scratch)),
    ]


def build_teacher_store(
    model: Any, tokenizer: Path, rows: token_store.Rows, scratch: Path
) -> teacher_store.TeacherStore:
    """Build and open a teacher store over the first rows."""
    teacher, folder = scratch / "teacher", scratch / "store"
    checkpoint.save(model, teacher, tokenizer)
    first_rows = token_store.Rows(*(array[:STORE_ROWS] for array in rows))
    digest = chat.tokenizer_digest(teacher)
    token_store.write(scratch / "rows" / "train", first_rows, digest)
    folder.mkdir()
    teach.teach(teacher, scratch / "rows", formats.Hidden(), Execution(), out=folder)
    return teacher_store.load(folder, "rows", digest)


if __name__ == "__main__":
    # Lightning warns that the data loaders have no worker processes
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
