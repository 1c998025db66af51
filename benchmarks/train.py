"""Our training beside what a user would pick instead, and beside what could be had at best: `python -m benchmarks.train`.

    rows=FOLDER       packed rows of dialogues in a store; without it stage 2's of scale=tiny
    rounds=5          5 or more; one more goes before and is not counted
    lengths=1000000   documents of the packing that is timed
    out=FILE          benchmarks/results/train.json

One thread, bf16-mixed, models of scale=tiny with random weights. A ratio is one of rates within a round, a result the median over rounds."""

import logging
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path

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
LEAST = {"rounds": 5, "lengths": 1}
BUILD = "python -m soaes.run scale=tiny goal=rows.stage2"
SHAPES = {
    "2x96": (2, 96, 3, 1),
    "8x192": (8, 192, 6, 2),
}  # layers, width, heads, key heads: conf/scale/tiny.yaml
STEPS = {
    ("2x96", 1): 60,
    ("8x192", 1): 20,
    ("8x192", 8): 8,
}  # of a turn, by model and rows of a step
READ = 128  # rows of the store that is read


def main(words: list[str]) -> None:
    asked = options(words, DEFAULTS, LEAST)
    folder, tokenizer, lock = found(asked["rows"])
    rows = token_store.Rows(*(np.asarray(array) for array in token_store.load(folder / "train")))
    with ExitStack() as opened:
        print("waiting until no stage runs on this store", file=sys.stderr, flush=True)
        opened.enter_context(lock)  # as a speed stage does
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        torch.set_num_threads(1)
        parts = contenders(rows, tokenizer, scratch, int(asked["lengths"]))
        for number in range(int(asked["rounds"]) + 1):
            for part, _ in parts:
                part.run(number, counted=number > 0)
            print(f"round {number} of {asked['rounds']}", file=sys.stderr, flush=True)
        results = [result for part, of in parts for result in part.results(*of)]
        results += train_memory.results(int(asked["rounds"]))
    write(Path(asked["out"]), results, **provenance(), rows=folder.name)
    print(markdown(results))


def found(rows: str) -> tuple[Path, Path, object]:
    """The folder of rows, its tokenizer's, and the lock of their store. ValueError where there are none."""
    (tiny,) = sweep.jobs(["scale=tiny", "goal=rows.stage2"])
    store = Store(Path(rows).parent if rows else Path(tiny.runtime["store"]))
    name = Path(rows).name if rows else tiny.recipe.name
    if not store.holds(name):
        raise ValueError(
            f"rows {name} are not in {store.root}: run `{BUILD}` first, or name rows=FOLDER of a store"
        )
    return (
        store.folder(name),
        store.folder(read_recipe(store, name).parents["tokenizer"].name),
        store.lock("machine"),
    )


def contenders(rows: token_store.Rows, tokenizer: Path, scratch: Path, lengths: int) -> list[tuple]:
    """What takes turns, each with what its results are named after."""
    context = rows.ids_RT.shape[1]
    models = {
        name: checkpoint.create(tokenizer, *shape, context, seed=0)
        for name, shape in SHAPES.items()
    }
    padded = [(Padding(models[name], tokenizer, rows, step, steps), (f"{name}, {step} x {context} tokens a step",))
              for (name, step), steps in STEPS.items()]  # fmt: skip
    world = padded[0][0].lengths, context
    head_VD = models["8x192"].lm_head.weight.detach()
    return [*padded, (Share(models["8x192"], rows, 2, 10), (f"8x192, 2 x {context} tokens a step",)), (Packing(lengths, world), ()),
            (Distilling(models["2x96"], rows, 40, head_VD), (f"2x96 under 8x192, {context} tokens a step",)),
            (Reading(stored(models["8x192"], tokenizer, rows, scratch), READ, scratch), ())]  # fmt: skip


def stored(model, tokenizer: Path, rows: token_store.Rows, scratch: Path):
    """A teacher's store over the first rows, opened."""
    checkpoint.save(model, scratch / "teacher", tokenizer)
    token_store.write(
        scratch / "rows" / "train", token_store.Rows(*(array[:READ] for array in rows))
    )
    (scratch / "store").mkdir()
    teach.teach(
        scratch / "teacher", scratch / "rows", formats.Hidden(), Execution(), out=scratch / "store"
    )
    return teacher_store.load(scratch / "store", "rows", chat.tokenizer_digest(scratch / "teacher"))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="pytorch_lightning")  # of loaders without workers
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
