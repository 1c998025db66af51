"""Read a model's answer: one JSON object with question, answer and quote, or a named rejection.

Whether the answer is whole is decided before it is parsed: a repaired half would pass for a record.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from soaes.data.curation.dialogue_filters import is_refusal
from soaes.data.synthesis.calls import Reply
from soaes.data.synthesis.settings import ScreenSettings

FINISH = {
    "length": "cut off",
    "max_tokens": "cut off",
    "content_filter": "stopped by a content filter",
    "tool_calls": "called a tool",
    "function_call": "called a tool",
    "None": "no finish reason",
}
MAX_DETAIL = 120  # characters

BROKEN = re.compile("[\\ud800-\\udfff\\ufffd\\ufffe\\uffff\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f]")
THINKING = re.compile(
    r"</?\s*(?:think|thinking|thought|reasoning)\s*>|◁/?think▷|<\|channel\|>", re.I
)
CONTROL = re.compile(r"<\|[a-z_]+\|>|\[/?INST\]|<</?SYS>>|</s>|<(?:start|end)_of_turn>", re.I)
FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n?(.*?)```", re.DOTALL)
PLACEHOLDER = re.compile(
    r"[\s.…<>\[\]\-_*]*(?:string|问题|答案|引文|question|answer|quote)?[\s.…<>\[\]\-_*]*", re.I
)
OBJECT_FACTOR = 4  # characters of an answer as JSON, over those of its longest parts


class Rejected(Exception):
    """An answer that becomes no item.

    Args:
        rule: One of few names, which are counted.
        detail: Free text, which is only shown.
    """

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.detail = " ".join(detail.split())[:MAX_DETAIL]


@dataclass(frozen=True)
class Draft:
    """What an answer holds."""

    question: str
    answer: str
    quote: str  # "" of a report


def parse(reply: Reply, task: str, screens: ScreenSettings) -> Draft:
    """Return what an answer holds.

    Args:
        reply: The answer.
        task: qa or report; a report quotes nothing.
        screens: The lengths that are allowed.

    Raises:
        Rejected: It is not one whole object with texts in its fields.
    """
    _check_finish(reply)
    content = reply.content.strip()
    _check_content(content, screens)
    record = _object(content)
    fields = ("question", "answer") if task == "report" else ("question", "answer", "quote")
    texts = {}
    for name in fields:
        if name not in record:
            raise Rejected("a field is missing", f"{name}; there are {', '.join(record)}")
        if not isinstance(record[name], str):
            raise Rejected("a field is no text", f"{name}: {type(record[name]).__name__}")
        texts[name] = record[name].strip()
    draft = Draft(texts["question"], texts["answer"], texts.get("quote", ""))
    _check_lengths(draft, task, screens)
    if is_refusal(draft.answer):
        raise Rejected("refusal", draft.answer)
    return draft


def _check_finish(reply: Reply) -> None:
    if reply.finish_reason == "stop":
        return
    if reply.is_refused:
        raise Rejected("refused by the server", f"{reply.finish_reason}: {reply.content}")
    rule = FINISH.get(reply.finish_reason, "unknown finish reason")
    raise Rejected(rule, f"finish_reason={reply.finish_reason}")


def _check_content(content: str, screens: ScreenSettings) -> None:
    """Check the text before it is parsed."""
    if not content:
        raise Rejected("empty")
    longest = screens.max_question_chars + 2 * screens.max_answer_chars
    if len(content) > OBJECT_FACTOR * longest:
        raise Rejected("too long", f"{len(content):,} characters")
    if THINKING.search(content):
        raise Rejected("thinking block", content)
    if CONTROL.search(content):
        raise Rejected("control tokens", content)
    if BROKEN.search(content):
        raise Rejected("broken characters", ascii(content))
    if is_refusal(content):
        raise Rejected("refusal", content)


def _object(content: str) -> dict[str, Any]:
    """Return the one object of an answer, which a fence may surround and nothing else."""
    blocks = FENCE.findall(content)
    if len(blocks) > 1:
        raise Rejected("several objects", content)
    if blocks and content.startswith("```") and content.endswith("```"):
        content = blocks[0].strip()
    if content.startswith("["):
        raise Rejected("a list instead of an object", content)
    if "{" not in content:
        raise Rejected("no object", content)
    if not content.startswith("{") or not content.endswith("}"):
        raise _unfinished(content)
    try:
        record = json.loads(content, strict=False, object_pairs_hook=_once)
    except ValueError:
        record = _repaired(content)
    except RecursionError:
        raise Rejected("broken JSON", content) from None
    if not isinstance(record, dict):
        raise Rejected("no object", content)
    return record


def _unfinished(content: str) -> Rejected:
    """Say what an object is that does not begin or end where its answer does."""
    if content.startswith("{") and "}" not in content:
        return Rejected("broken JSON", content[-MAX_DETAIL:])
    return Rejected("text beside the object", content)


def _repaired(content: str) -> Any:
    """Return what json-repair makes of broken JSON, if all of it stands in the answer."""
    import json_repair  # not needed to plan

    try:
        json.JSONDecoder(strict=False).raw_decode(content)
        raise Rejected("several objects", content)
    except (ValueError, RecursionError):
        pass
    try:
        record = json_repair.loads(content)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not record:
        raise Rejected("broken JSON", content)
    return record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of which no field stands twice."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise Rejected("a field stands twice", ", ".join(name for name, _ in pairs))
    return record


def _check_lengths(draft: Draft, task: str, screens: ScreenSettings) -> None:
    for name in ("question", "answer"):
        text = getattr(draft, name)
        if PLACEHOLDER.fullmatch(text):
            raise Rejected(f"empty {name}", text)
        if BROKEN.search(text):  # an escape in JSON may make half a character
            raise Rejected("broken characters", ascii(text))
        if CONTROL.search(text):
            raise Rejected("control tokens", text)
    if len(draft.question) > screens.max_question_chars:
        raise Rejected("question too long", f"{len(draft.question):,} characters")
    if len(draft.answer) > screens.max_answer_chars:
        raise Rejected("answer too long", f"{len(draft.answer):,} characters")
    if task == "report" and len(draft.answer) < screens.min_report_chars:
        raise Rejected("report too short", f"{len(draft.answer):,} characters")
