"""Prompts by kind, for measuring: the world's questions and reports, reports asked for twice, or a
file of the user's own. Knows text, not models.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from soaes.data import chat
from soaes.data.jsonl import read_jsonl
from soaes.decode.prompts import select_prompts

COUNTS = {"qa": 16, "report": 4, "copy": 4}  # an answer is a fifth of a report
# new tokens at most; qa and report as in conf/scale/tiny.yaml
MAX_NEW_TOKENS = {"qa": 48, "report": 160, "copy": 128}
MAX_NEW_TOKENS_OF_FILE = 64
COPY = "copy"


@dataclass(frozen=True)
class BenchmarkPrompt:
    """A prompt to race on."""

    ids: list[int]  # token ids
    max_new_tokens: int
    kind: str  # qa, report, copy, or a category of the file


def of_world(documents: Path, tokenizer: Tokenizer, positions: int) -> list[BenchmarkPrompt]:
    """Draw test questions of each kind that fit.

    Args:
        documents: Folder with qa/test.jsonl.
        tokenizer: The models' tokenizer.
        positions: Tokens that a prompt and its answer may have together.
    """
    counts = {kind: COUNTS[kind] for kind in ("qa", "report")}
    selected, _ = select_prompts(documents, tokenizer, counts, MAX_NEW_TOKENS, positions)
    samples = read_jsonl(documents / "qa" / "test.jsonl")
    reports = [sample for sample in samples if sample["task"] == "report"]
    copies = [_copy(tokenizer, sample["messages"]) for sample in reports[-COUNTS[COPY] :]]
    asked_once = [
        BenchmarkPrompt(prompt.ids, prompt.max_new_tokens, prompt.task) for prompt in selected
    ]
    return asked_once + _fitting(copies, positions)


def _copy(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> BenchmarkPrompt:
    """A report that is already written, and is asked for again in the same words.

    A small model obeys no request to repeat, but half of what it then writes it has before it.
    """
    ids = chat.prompt(tokenizer, [*messages, messages[-2]])
    return BenchmarkPrompt(ids, MAX_NEW_TOKENS[COPY], COPY)


def of_file(
    path: Path, tokenizer: Tokenizer, positions: int, per_kind: int
) -> list[BenchmarkPrompt]:
    """Take the first prompts of every kind that fit.

    Args:
        path: JSON lines, each {"prompt": text} or, as in Spec-Bench, {"turns": [text, ...]}, whose
            first turn is asked; the kind is its "category".
        tokenizer: The models' tokenizer.
        positions: Tokens that a prompt and its answer may have together.
        per_kind: Prompts of a kind.

    Raises:
        ValueError: There is no such file, a line has another form, or no prompt fits.
    """
    if not path.is_file():
        raise ValueError(
            f"prompts={path}: there is no such file; give JSON lines with a prompt or turns in each"
        )
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    prompts = [
        _prompt(tokenizer, *_parsed(path, number, line)) for number, line in lines if line.strip()
    ]
    fitting = _fitting(prompts, positions)
    if not fitting:
        raise ValueError(
            f"prompts={path}: of {len(prompts)} prompts none fits {positions} positions with "
            f"{MAX_NEW_TOKENS_OF_FILE} new tokens; give shorter ones"
        )
    by_kind: dict[str, list[BenchmarkPrompt]] = {}
    for prompt in fitting:
        by_kind.setdefault(prompt.kind, []).append(prompt)
    return [prompt for of_kind in by_kind.values() for prompt in of_kind[:per_kind]]


def _parsed(path: Path, number: int, line: str) -> tuple[str, str]:
    """(kind, text) of a line."""
    try:
        record = json.loads(line)
        text = record["prompt"] if "prompt" in record else record["turns"][0]
        return record.get("category", "prompt"), text
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        raise ValueError(
            f'{path}, line {number}: neither {{"prompt": text}} nor {{"turns": [text, ...]}}; '
            "correct or delete it"
        ) from None


def _prompt(tokenizer: Tokenizer, kind: str, text: str) -> BenchmarkPrompt:
    ids = chat.prompt(tokenizer, [{"role": "user", "content": text}])
    return BenchmarkPrompt(ids, MAX_NEW_TOKENS_OF_FILE, kind)


def _fitting(prompts: list[BenchmarkPrompt], positions: int) -> list[BenchmarkPrompt]:
    return [prompt for prompt in prompts if len(prompt.ids) + prompt.max_new_tokens <= positions]
