"""Read questions that people annotated elsewhere as items and decisions.

| file | a record is |
|---|---|
| .csv, .xlsx, .xls, .ods | a row; `COLUMNS` has the names of its columns |
| .jsonl, .json | an object with such fields, or a dialogue of one question |
| .json of Label Studio | a task with `data` and `annotations` |
| .json of Argilla | a record with `fields` and `responses` |

What a person wrote counts as accepted, unless a verdict says otherwise. Where a record has an
original beside the edited text, the item keeps the original and the decision has the edit. A record
that cannot be used is a named rejection.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

from soaes.data.annotation import item as contract
from soaes.data.annotation.item import Decision, ReviewItem
from soaes.data.annotation.quotes import find_quote
from soaes.data.curation import chat_formats, parsing
from soaes.data.curation.document import SURROGATE, Rejection, document_id
from soaes.data.curation.parsing import ParseError
from soaes.data.readers import encodings
from soaes.data.readers.base import Unreadable, unix_lines

# In order of precedence; compared in lower case.
COLUMNS = {
    "question": ("question", "问题", "提问", "edited_question", "prompt"),
    "answer": ("answer", "答案", "回答", "edited_answer", "response", "completion"),
    "original_question": ("original_question", "原问题"),
    "original_answer": ("original_answer", "原答案", "model_answer"),
    "task": ("task", "任务", "任务类型"),
    "title": ("title", "标题", "文件名"),
    "source": ("source", "document", "来源", "文件"),
    "text": ("text", "context", "passage", "原文", "片段", "上下文"),
    "quote": ("quote", "evidence", "依据", "引文"),
    "reviewer": ("reviewer", "annotator", "标注人", "标注员", "审核人"),
    "verdict": ("verdict", "decision", "结论", "审核结论", "状态"),
    "reason": ("reason", "comment", "原因", "备注"),
    "time": ("time", "annotated_at", "created_at", "时间", "标注时间"),
    "model": ("model", "模型"),
}
TASKS = {"qa": "qa", "问答": "qa", "report": "report", "报告": "report", "": "qa"}
VERDICTS = {
    "accept": ("accept", "accepted", "approve", "approved", "correct", "good", "yes", "ok", "true")
    + ("通过", "接受", "合格", "正确", "是"),
    "edit": ("edit", "edited", "修改", "编辑"),
    "reject": ("reject", "rejected", "wrong", "incorrect", "bad", "no", "false", "discard")
    + ("discarded", "不通过", "拒绝", "不合格", "错误", "否"),
    "skip": ("skip", "skipped", "draft", "pending", "跳过"),
}
VERDICT_OF = {word: verdict for verdict, words in VERDICTS.items() for word in words}
UNKNOWN_REVIEWER = "unknown"
MAX_SECONDS = 1e6  # that a decision can have taken
TABLES = (".xlsx", ".xls", ".ods")
JSON = (".jsonl", ".json")


@dataclass
class Annotated:
    """What a record says, before it becomes an item and its decisions."""

    source: str  # file:line
    question: str
    answer: str
    fields: dict[str, str]  # of `COLUMNS`
    judgements: list[Judgement] = field(default_factory=list)


@dataclass
class Judgement:
    """What one person says of a record; "" for an unchanged text."""

    reviewer: str
    verdict: str
    question: str = ""
    answer: str = ""
    reason: str = ""
    time: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Imported:
    """An item, and what people decided on it."""

    item: ReviewItem
    decisions: list[Decision]


class _Unusable(Exception):
    """A record that becomes no item."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read(path: Path, name: str) -> Iterator[Imported | Rejection]:
    """Yield what a file holds.

    Args:
        path: The file.
        name: Its name relative to the data root, with which sources begin.
    """
    try:
        for source, record in _records(path, name):
            if isinstance(record, ParseError):
                yield Rejection(source, record.reason, record.detail)
                continue
            try:
                yield _imported(_annotated(record, source))
            except _Unusable as unusable:
                yield Rejection(source, unusable.reason, unusable.detail)
    except Unreadable as error:
        yield Rejection(name, error.reason, error.detail)


def _records(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any] | ParseError]]:
    suffix = path.suffix.lower()
    if suffix in TABLES:
        yield from _sheets(path, name)
    elif suffix == ".csv":
        with encodings.utf8_file(path) as converted:
            for line, row in parsing.table(converted):
                yield f"{name}:{line}", row
    elif suffix in JSON:
        with encodings.utf8_file(path) as converted:
            for number, (_, record) in enumerate(parsing.objects(converted), start=1):
                yield f"{name}:{number}", record
    else:
        detail = "give .csv, .xlsx, .jsonl, or an export of the review, Label Studio or Argilla"
        yield name, ParseError("format not known", detail)


def _sheets(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any] | ParseError]]:
    from python_calamine import CalamineError, CalamineWorkbook

    from soaes.data.readers.zip_files import check_tables

    check_tables(path)
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            for sheet in workbook.sheet_names:
                header: list[str] = []
                rows = workbook.get_sheet_by_name(sheet).iter_rows()
                for number, row in enumerate(rows, start=1):
                    if all(cell == "" for cell in row):
                        continue
                    if not header:
                        header = [str(cell).strip().lower() for cell in row]
                    else:
                        yield f"{name}#{sheet}:{number}", dict(zip(header, row, strict=True))
    except CalamineError as error:
        raise Unreadable("broken workbook", str(error)[:100]) from None


def _annotated(record: dict[str, Any], source: str) -> Annotated:
    """Return what a record of any of the formats says.

    Raises:
        _Unusable: It has no question or no answer.
    """
    if isinstance(record.get("data"), dict) and "annotations" in record:
        return _of_label_studio(record, source)
    if isinstance(record.get("fields"), dict):
        return _of_argilla(record, source)
    fields = _fields(record)
    if not fields["question"] and any(name in record for name in chat_formats.FORMATS):
        fields |= _of_dialogue(record)
    question, answer = fields["question"], fields["answer"]
    judgement = Judgement(
        fields["reviewer"],
        _verdict(fields["verdict"]) or "accept",
        reason=fields["reason"],
        time=_utc(fields["time"]),
    )
    original = Annotated(
        source,
        fields["original_question"] or question,
        fields["original_answer"] or answer,
        fields,
        [judgement],
    )
    if (original.question, original.answer) != (question, answer):
        judgement.question, judgement.answer = question, answer
    return original


def _fields(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a record by the names of `COLUMNS`; "" where there is none.

    Raises:
        _Unusable: The verdict is no text, such as a list: it must not pass for none.
    """
    known = {str(key).strip().lower(): value for key, value in record.items()}
    fields = {}
    for part, names in COLUMNS.items():
        values = [known.get(name) for name in names]
        fields[part] = next(filter(None, map(_text, values)), "")
        is_given = any(value not in (None, "", [], {}) for value in values)
        if part == "verdict" and is_given and not fields[part]:
            raise _Unusable("unknown verdict", f"{values}; known are {', '.join(VERDICTS)}")
    return fields


def _text(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, date):  # or a datetime
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():  # a workbook has no whole numbers
        value = int(value)
    return unix_lines(str(value)).strip() if isinstance(value, (str, int, float)) else ""


def _of_dialogue(record: dict[str, Any]) -> dict[str, str]:
    """Return question and answer of a dialogue of one question."""
    try:
        messages = chat_formats.messages(record).messages
    except chat_formats.RecordFormatError as error:
        raise _Unusable(error.reason, error.detail) from None
    if [message["role"] for message in messages] != ["user", "assistant"]:
        raise _Unusable("not one question with its answer", f"{len(messages)} messages")
    return {"question": messages[0]["content"], "answer": messages[1]["content"]}


def _of_label_studio(record: dict[str, Any], source: str) -> Annotated:
    """Return a task: `data` is the original, each annotation a person's judgement."""
    fields = _fields(record["data"])
    annotated = Annotated(source, fields["question"], fields["answer"], fields)
    for annotation in _objects(record["annotations"]):
        words: dict[str, str] = {}
        texts: dict[str, str] = {}
        for result in _objects(annotation.get("result")):
            value, name = result.get("value"), str(result.get("from_name", "")).lower()
            value = value if isinstance(value, dict) else {}
            choices = value.get("choices")
            if choices:
                words[name] = _text(choices[:1] if isinstance(choices, list) else choices)
            part = next((part for part in ("question", "answer", "reason") if part in name), "")
            if value.get("text") and part:
                texts[part] = _text(value["text"])
        by = annotation.get("completed_by")
        reviewer = _text(by.get("email") or by.get("id")) if isinstance(by, dict) else _text(by)
        is_skipped = bool(annotation.get("was_cancelled"))
        judgement = Judgement(
            reviewer,
            "skip" if is_skipped else _verdict_of(words) or "accept",
            time=_utc(_text(annotation.get("created_at"))),
            seconds=_seconds(annotation.get("lead_time")),
            question=texts.get("question", ""),
            answer=texts.get("answer", ""),
            reason=texts.get("reason", ""),
        )
        annotated.judgements.append(judgement)
    return annotated


def _of_argilla(record: dict[str, Any], source: str) -> Annotated:
    """Return a record: `fields` is the original, each user's responses a judgement."""
    metadata = record.get("metadata")
    fields = _fields({**(metadata if isinstance(metadata, dict) else {}), **record["fields"]})
    annotated = Annotated(source, fields["question"], fields["answer"], fields)
    for user, status, values in _responses(record.get("responses")):
        words: dict[str, str] = {}
        texts: dict[str, str] = {}
        for name, value in values.items():
            parts = (part for part in ("question", "answer", "reason") if name.endswith(part))
            if part := next(parts, ""):
                texts[part] = _text(value)
            else:
                words[name] = _text(value)
        verdict = {"discarded": "reject", "draft": "skip"}.get(status) or _verdict_of(words)
        annotated.judgements.append(
            Judgement(
                user,
                verdict or "accept",
                question=texts.get("question", ""),
                answer=texts.get("answer", ""),
                reason=texts.get("reason", ""),
            )
        )
    return annotated


def _responses(responses: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield user, status and values by question, of a list by user or a mapping by question."""
    if not isinstance(responses, dict):
        for response in _objects(responses):
            values = response.get("values")
            plain = {
                name: value.get("value") if isinstance(value, dict) else value
                for name, value in (values if isinstance(values, dict) else {}).items()
            }
            yield _text(response.get("user_id")), _text(response.get("status")), plain
        return
    by_user: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, answers in responses.items():
        for answer in _objects(answers):
            user = _text(answer.get("user_id") or answer.get("user"))
            status = _text(answer.get("status")) or "submitted"
            by_user.setdefault(user, (status, {}))[1][name] = answer.get("value")
    for user, (status, values) in by_user.items():
        yield user, status, values


def _objects(values: object) -> list[dict[str, Any]]:
    """Return the objects of a list; none of null.

    Raises:
        _Unusable: It is no list of objects.
    """
    if values is None:
        return []
    if isinstance(values, list) and all(isinstance(value, dict) for value in values):
        return values
    raise _Unusable("not an export of Label Studio or Argilla", str(values)[:40])


def _seconds(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < MAX_SECONDS else 0.0


def _verdict_of(words: Mapping[str, str]) -> str:
    """Return the verdict of what a person chose, by the names of the questions; "" for none.

    Raises:
        _Unusable: No question is named as a verdict, and a word stands for none, or two differ.
    """
    named = [words[name] for name in COLUMNS["verdict"] if words.get(name)]
    verdicts = {_verdict(word) for word in named or words.values() if word}
    if len(verdicts) > 1:
        told = ", ".join(f"{name}={word}" for name, word in words.items())
        raise _Unusable("several verdicts", f"{told}; name the question that counts `verdict`")
    return next(iter(verdicts), "")


def _verdict(text: str) -> str:
    """Return the verdict that a word stands for; "" for no word.

    Raises:
        _Unusable: It stands for none.
    """
    if not text:
        return ""
    verdict = VERDICT_OF.get(text.lower())
    if verdict is None:
        raise _Unusable("unknown verdict", f"{text[:40]}; known are {', '.join(VERDICTS)}")
    return verdict


def _utc(text: str) -> str:
    """Return a time in UTC, as the contract has it; "" where there is none or it is not read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _imported(annotated: Annotated) -> Imported:
    """Return the item and the decisions of a record.

    Raises:
        _Unusable: It lacks a question or an answer, or its task is unknown.
    """
    for name in ("question", "answer"):
        if not getattr(annotated, name):
            raise _Unusable(f"no {name}", f"columns: {', '.join(COLUMNS[name])}")
    fields = annotated.fields
    task = TASKS.get(fields["task"].lower())
    if task is None:
        raise _Unusable("the task is neither qa nor report", fields["task"][:40])
    span = find_quote(fields["quote"], fields["text"]) if fields["quote"] else None
    # a record that names no document is about its text, or about nothing but its question
    named = fields["source"] or fields["text"] or annotated.question
    item = contract.review_item(
        "qa",
        task=cast(contract.Task, task),
        question=annotated.question,
        answer=annotated.answer,
        document={
            "id": document_id("corpus", named),
            "title": fields["title"],
            "source": fields["source"] or annotated.source,
            "offset": 0,
            "text": fields["text"],
        },
        span=span,
        origin=annotated.source,
        model=fields["model"],
    )
    if SURROGATE.search(json.dumps(item, ensure_ascii=False)):
        raise _Unusable("broken characters")
    return Imported(item, list(_decisions(item, annotated)))


def _decisions(item: ReviewItem, annotated: Annotated) -> Iterator[Decision]:
    """Yield a decision for each person; several by one name are several people's."""
    seen: Counter[str] = Counter()
    for judgement in annotated.judgements:
        name = judgement.reviewer or UNKNOWN_REVIEWER
        seen[name] += 1
        reviewer = name if seen[name] == 1 else f"{name} ({seen[name]})"
        question = judgement.question or item["question"]
        answer = judgement.answer or item["answer"]
        is_edited = (question, answer) != (item["question"], item["answer"])
        verdict = judgement.verdict
        if is_edited and verdict == "accept":
            verdict = "edit"
        if not is_edited and verdict == "edit":
            verdict = "accept"
        yield {
            "item": item["id"],
            "reviewer": reviewer,
            "verdict": cast(contract.Verdict, verdict),
            "reason": judgement.reason,
            "question": question,
            "answer": answer,
            "seconds": judgement.seconds,
            "time": judgement.time,
            "second": seen.total() > 1,
        }
