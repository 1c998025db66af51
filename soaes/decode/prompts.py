"""The prompts that decoding is measured on: the first of each task that fit. Knows samples and positions, not decoders."""

from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from soaes.data import chat
from soaes.data.jsonl import read_jsonl
from soaes.pipeline import validation


def select_prompts(documents: Path, tokenizer: Tokenizer, prompts: dict[str, int], max_new_tokens: dict[str, int], positions: int,
              split: str = "test") -> list[dict]:  # fmt: skip
    """The first samples of each task of a split that fit into `positions` together with their answer, with the prompt's ids.

    A task that the split does not have is left out; of one that it has, every prompt asked for must be there."""
    samples, found = read_jsonl(documents / "qa" / f"{split}.jsonl"), []
    for task, wanted in prompts.items():
        validation.check(prompts=wanted)
        room = positions - max_new_tokens[task]
        of_task = [sample for sample in samples if sample["task"] == task]
        asked = (
            sample
            | {"ids": chat.prompt(tokenizer, sample["messages"][:-1]), "most": max_new_tokens[task]}
            for sample in of_task
        )
        fitting = list(islice((sample for sample in asked if len(sample["ids"]) <= room), wanted))
        if len(fitting) < wanted and of_task:
            raise ValueError(
                f"{len(fitting)} of {len(of_task)} {task} prompts of the {split} split fit {room} positions, prompts.{task}={wanted} "
                "asks for more; lower it, lower max_new_tokens, or set a larger context"
            )
        found += fitting
    if not found:
        raise ValueError(
            f"none of {len(samples)} {split} samples is of the tasks {', '.join(prompts)}; name the tasks that the data has in prompts"
        )
    return found
