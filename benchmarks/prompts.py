"""Prompts by kind, for measuring: the world's questions and reports, reports asked for twice, or a file of the user's own. Knows text, not models."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from soaes.data import chat
from soaes.data.jsonl import read_jsonl
from soaes.decode import prompts

COUNTS = {"qa": 16, "report": 4, "copy": 4}  # an answer is a fifth of a report
MOST = {
    "qa": 48,
    "report": 160,
    "copy": 128,
}  # new tokens; qa and report as in conf/scale/tiny.yaml
MOST_OF_FILE = 64
COPY = "copy"


def of_world(documents: Path, tokenizer: Tokenizer, positions: int) -> list[dict]:
    """Test questions of each kind, with ids, most (new tokens) and kind; `positions` hold a prompt and its answer."""
    asked = prompts.select_prompts(
        documents, tokenizer, {kind: COUNTS[kind] for kind in ("qa", "report")}, MOST, positions
    )
    reports = [
        sample
        for sample in read_jsonl(documents / "qa" / "test.jsonl")
        if sample["task"] == "report"
    ]
    copies = [_copy(tokenizer, sample["messages"]) for sample in reports[-COUNTS[COPY] :]]
    return [sample | {"kind": sample["task"]} for sample in asked] + _fitting(copies, positions)


def _copy(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> dict:
    """A report that was written already, and is asked for once more in the words that first asked: a small model obeys no request to repeat,
    but half of what it then writes it has before it."""
    return {
        "ids": chat.prompt(tokenizer, [*messages, messages[-2]]),
        "most": MOST[COPY],
        "kind": COPY,
    }


def of_file(path: Path, tokenizer: Tokenizer, positions: int, each: int) -> list[dict]:
    """The first `each` prompts of every kind that fit. A line of JSON is {"prompt": text} or, as in Spec-Bench, {"turns": [text, ...]}, whose
    first turn is asked; its kind is its "category". ValueError for a file or a line that is not so."""
    if not path.is_file():
        raise ValueError(
            f"prompts={path}: there is no such file; give JSON lines with a prompt or turns in each"
        )
    lines = [
        (number, line)
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        if line.strip()
    ]
    asked = [_question(tokenizer, *_parsed(path, number, line)) for number, line in lines]
    fitting = _fitting(asked, positions)
    if not fitting:
        raise ValueError(
            f"prompts={path}: of {len(asked)} prompts none fits {positions} positions with {MOST_OF_FILE} new tokens; give shorter ones"
        )
    kinds = dict.fromkeys(question["kind"] for question in fitting)
    return [
        question
        for kind in kinds
        for question in [one for one in fitting if one["kind"] == kind][:each]
    ]


def _parsed(path: Path, number: int, line: str) -> tuple[str, str]:
    """(kind, text) of a line."""
    try:
        told = json.loads(line)
        return told.get("category", "prompt"), told["prompt"] if "prompt" in told else told[
            "turns"
        ][0]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError):
        raise ValueError(
            f'{path}, line {number}: neither {{"prompt": text}} nor {{"turns": [text, ...]}}; correct or delete it'
        ) from None


def _question(tokenizer: Tokenizer, kind: str, text: str) -> dict:
    return {
        "ids": chat.prompt(tokenizer, [{"role": "user", "content": text}]),
        "most": MOST_OF_FILE,
        "kind": kind,
    }


def _fitting(asked: list[dict], positions: int) -> list[dict]:
    return [question for question in asked if len(question["ids"]) + question["most"] <= positions]
