"""The prompts that decoding is measured on: a seeded sample of each task's that fit.

Knows samples and positions, not decoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from soaes.data import chat, splits
from soaes.data.chat import AnyTokenizer
from soaes.data.jsonl import read_jsonl
from soaes.pipeline.validation import check_whole


@dataclass(frozen=True)
class Prompt:
    """A question to decode an answer to."""

    id: str  # the sample's id within its split
    task: str  # qa or report
    messages: list[dict[str, str]]  # the conversation; the last message is the reference answer
    ids: list[int]  # token ids up to where the assistant begins to speak
    max_new_tokens: int  # tokens of its answer at most

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.messages[-2]["content"]

    @property
    def reference(self) -> str:
        """The expected answer."""
        return self.messages[-1]["content"]


class Selection(NamedTuple):
    """The prompts that are decoded, and how many could not have been drawn."""

    prompts: list[Prompt]
    num_skipped: int  # samples of the tasks that do not fit


def select_prompts(
    documents: Path,
    tokenizer: AnyTokenizer,
    prompts: dict[str, int],
    max_new_tokens: dict[str, int],
    positions: int,
    split: str = "test",
    sample_seed: int = 0,
) -> Selection:
    """Draw samples of each task among those that fit a model together with their answers.

    They stay in the order of the split. A task without samples in the split is left out.

    Args:
        documents: Folder with qa/SPLIT.jsonl.
        tokenizer: The model's tokenizer.
        prompts: Task -> prompts to select.
        max_new_tokens: Task -> tokens of an answer at most.
        positions: Tokens that a prompt and its answer may have together.
        split: train, dev or test.
        sample_seed: Of the draw; a larger sample holds every smaller one.

    Raises:
        ValueError: A task has fewer prompts that fit than are wanted, or no task has any.
    """
    samples = read_jsonl(documents / "qa" / f"{split}.jsonl")
    selected: list[Prompt] = []
    num_skipped = 0
    for task, count in prompts.items():
        check_whole("prompts", count, 1, "prompts to decode")
        limit = max_new_tokens[task]
        task_samples = [sample for sample in samples if sample["task"] == task]
        candidates = [
            Prompt(
                sample["id"],
                task,
                sample["messages"],
                chat.prompt(tokenizer, sample["messages"][:-1]),
                limit,
            )
            for sample in task_samples
        ]
        room = positions - limit
        fitting = [prompt for prompt in candidates if len(prompt.ids) <= room]
        if len(fitting) < count and task_samples:
            raise ValueError(
                f"{len(fitting)} of {len(task_samples)} {task} prompts of the {split} split fit "
                f"{room} positions, prompts.{task}={count} asks for more; "
                "lower it, lower max_new_tokens, or set a larger context"
            )
        num_skipped += len(candidates) - len(fitting)
        selected += splits.sample(fitting, count, sample_seed, attrgetter("id"))
    if not selected:
        raise ValueError(
            f"none of {len(samples)} {split} samples is of the tasks {', '.join(prompts)}; "
            "name the tasks that the data has in prompts"
        )
    return Selection(selected, num_skipped)
