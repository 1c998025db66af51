"""Our decoding beside what a user would pick instead, and beside what could be had at best.

`python -m benchmarks.decode`, with

    models=TARGET,DRAFT  folders of two models; without it the chat model and the distilled draft
                         of scale=tiny, out of the store
    prompts=FILE         JSON lines with "prompt", or "turns" as in Spec-Bench; without it tiny's
                         questions, reports, and reports asked for twice
    each=2               prompts of a kind that are taken from FILE
    rounds=5             5 or more; one more goes before and is not counted
    out=FILE             benchmarks/results/decode.json

One thread, float32, one text at a time but for the rows of batches. A ratio is one of tokens a
second within a round, a result the median over rounds with its interval.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path

from transformers.utils import logging

from benchmarks import prompts, race_results
from benchmarks.prompts import BenchmarkPrompt
from benchmarks.race import LENGTHS, Race
from benchmarks.rounds import markdown, options, write
from soaes.data.chat import chat_tokenizer
from soaes.pipeline import sweep
from soaes.pipeline.provenance import provenance
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store

DEFAULTS = {
    "models": "",
    "prompts": "",
    "each": "2",
    "rounds": "5",
    "out": "benchmarks/results/decode.json",
}
LEAST = {"each": 1, "rounds": 5}
BUILD = "python -m soaes.run scale=tiny goal=distill"


def main(words: list[str]) -> None:
    """Run the benchmark, write its results and print them.

    Args:
        words: The command line, key=value each.

    Raises:
        ValueError: A word is wrong, or a folder is missing.
    """
    settings = options(words, DEFAULTS, LEAST)
    if settings["models"]:
        target, draft = named_folders(settings["models"])
    else:
        target, draft = built_folder("target"), built_folder("draft")
    selected, origin = select(settings, target, draft)
    rounds = int(settings["rounds"])
    with ExitStack() as opened:
        print("waiting until no stage runs on this store", file=sys.stderr, flush=True)
        opened.enter_context(speed_row()[0].lock("machine"))  # as a speed stage does
        race = Race(opened, target, draft, chat_tokenizer(target)[1], selected)
        for number in range(rounds + 1):
            race.run(number, counted=number > 0)
            print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        results = race_results.results(race)
    write(
        Path(settings["out"]),
        results,
        **provenance(),
        target=target.name,
        draft=draft.name,
        prompts=origin,
    )
    print(markdown(results))


def named_folders(models: str) -> tuple[Path, Path]:
    """Return the two folders of models=TARGET,DRAFT.

    Raises:
        ValueError: There are not two, or one holds no model.
    """
    folders = [Path(name) for name in models.split(",")]
    if len(folders) != 2 or not all((folder / "config.json").is_file() for folder in folders):
        raise ValueError(
            f"models={models}: give two folders of models, models=TARGET,DRAFT, each with "
            "config.json, tokenizer.json and its weights"
        )
    return folders[0], folders[1]


def speed_row() -> tuple[Store, Recipe]:
    """Return the store, and the recipe that times the distilled draft of scale=tiny."""
    (row,) = sweep.jobs(["scale=tiny", "goal=speed", "subject=distill"])
    return Store(row.runtime.store), row.recipe


def built_folder(part: str) -> Path:
    """Return the folder that this recipe reads as `target`, `draft` or `documents`.

    Raises:
        ValueError: It is not in the store.
    """
    store, recipe = speed_row()
    name = recipe.parents[part].name
    if not store.holds(name):
        raise ValueError(
            f"{part} {name} is not in {store.root}: run `{BUILD}` first, or name "
            "models=TARGET,DRAFT and prompts=FILE"
        )
    return store.folder(name)


def select(
    settings: dict[str, str], target: Path, draft: Path
) -> tuple[list[BenchmarkPrompt], str]:
    """Return the prompts, and where they are from.

    Args:
        settings: The command line.
        target: Folder of the target.
        draft: Folder of the draft.
    """
    tokenizer, _ = chat_tokenizer(target)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (target, draft)]
    positions = min(config["max_position_embeddings"] for config in configs) - max(LENGTHS) - 1
    if settings["prompts"]:
        path = Path(settings["prompts"])
        selected = prompts.of_file(path, tokenizer, positions, int(settings["each"]))
        return selected, settings["prompts"]
    documents = built_folder("documents")
    return prompts.of_world(documents, tokenizer, positions), documents.name


if __name__ == "__main__":
    logging.disable_progress_bar()  # of loading weights
    try:
        main(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
