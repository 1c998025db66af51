"""Questions, answers and reports that a model writes about a user's documents, and their screens.

    documents (data.select)     the curated documents of the corpus
    ask                         one call for each question; calls.jsonl has every answer
    screen                      answers that pass become items.jsonl, for people to review

Every call is kept in a log of the store that all recipes share (soaes.data.synthesis.calls), so
that other screens cost no call, and a killed stage loses the calls under way alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soaes.data.annotation import item as annotation
from soaes.data.annotation.families import assign, families
from soaes.data.curation.decontamination import HELD_OUT, HeldOutQuestions
from soaes.data.curation.document import CuratedDocument, read_documents
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.synthesis import asking as asking_module
from soaes.data.synthesis.asking import Call, Usage
from soaes.data.synthesis.calls import Author, CallLog, Reply
from soaes.data.synthesis.parsing import Rejected
from soaes.data.synthesis.screens import Asked, Screened, Screener
from soaes.data.synthesis.settings import (
    AskingSettings,
    EndpointAuthor,
    PromptSettings,
    RuleAuthor,
    ScreenSettings,
    TransformersAuthor,
)
from soaes.metrics.schema import write_metrics
from soaes.pipeline.runtime import Endpoint, Execution
from soaes.pipeline.store import write_json, write_text
from soaes.pipeline.tracking import Tracker

CALLS = "calls.jsonl"
REJECTIONS = "rejections.jsonl"
ACCOUNT = "account.json"
COMMONEST = 3  # reasons that an error names


def ask(
    documents: Path,
    *,
    prompt: PromptSettings,
    author: EndpointAuthor | RuleAuthor | TransformersAuthor,
    asking: AskingSettings,
    model: Path | None = None,
    endpoint: Endpoint = Endpoint(),
    execution: Execution = Execution(),
    call_log: Path,
    tracker: Tracker | None = None,
    out: Path,
) -> None:
    """Ask for a question with its answer about each of many passages, and for reports.

    Writes calls.jsonl: what was asked about and what came back, in the order of the plan.

    Args:
        documents: Folder of the last stage of soaes.stages.corpus.
        prompt: What the model is told.
        author: Who answers: a server, a local model, or rules.
        asking: How many questions, and about what.
        model: The local model of a `TransformersAuthor`.
        endpoint: Where the server is, and what may be spent; no part of the recipe.
        execution: The device of a local model.
        call_log: Folder of the log of all calls.
        tracker: Receives the progress.
        out: The stage's output folder.

    Raises:
        ValueError: There is nothing to ask about, the server cannot be used, or the budget is used
            up. Answers that came are kept in the log, and the same command makes the other calls.
    """
    name = model.name if model is not None else ""
    _check_author(author, model)
    model_name, parameters = asking_module.model_and_parameters(author, name)
    calls = asking_module.plan(read_documents(documents), asking, prompt, model_name, parameters)
    if not calls:
        raise ValueError(
            f"{documents.name}: no document of the corpus can be asked about; add documents to "
            "corpus/, or lower data.ask.asking.min_report_chars"
        )
    log = CallLog(call_log, {call.request.digest for call in calls})
    answering = _author(author, endpoint, model, execution)

    def report(usage: Usage) -> None:
        line = usage.line(endpoint)
        print(line, flush=True)
        if tracker is not None:
            tracker.report_progress(usage.done / usage.total, line)

    replies = asking_module.ask_all(calls, answering, log, endpoint, report)
    write_jsonl(out / CALLS, map(_call_row, calls, replies))
    tasks = Counter(call.place.task for call in calls)
    metrics = {
        "calls": len(calls),
        "reports": tasks["report"],
        "documents": len({call.place.document for call in calls}),
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "answer_tokens": sum(reply.completion_tokens for reply in replies),
    }
    if log.num_damaged:
        print(f"{log.path}: {log.num_damaged} damaged lines are not used")
    write_metrics(out, metrics)


def screen(
    calls: Path,
    documents: Path,
    held_out_questions: Path,
    *,
    prompt: PromptSettings,
    screens: ScreenSettings,
    rubric: str | None = None,
    out: Path,
) -> None:
    """Make items of the answers that pass all screens.

    Writes items.jsonl (soaes.data.annotation.item); rejections.jsonl, each call that became none
    with the name of its screen; account.json: calls = items + rejections; and rubric.md.

    Args:
        calls: Folder of `ask`.
        documents: Folder of the documents that were asked about.
        held_out_questions: Folder of soaes.stages.curate.held_out_questions.
        prompt: What the model was told.
        screens: What an answer must be.
        rubric: By what people accept an item, which the review page shows; None for nothing.
        out: The stage's output folder.

    Raises:
        ValueError: No answer passes; the message names the commonest reasons.
    """
    rows = read_jsonl(calls / CALLS)
    wanted = {row["document"] for row in rows}
    texts = {
        document["id"]: document
        for document in read_documents(documents)
        if document["id"] in wanted
    }
    held_out = HeldOutQuestions.from_rows(read_jsonl(held_out_questions / HELD_OUT))
    screener = Screener(screens, held_out)
    items: dict[str, annotation.ReviewItem] = {}
    rejections: list[dict[str, Any]] = []
    for row in rows:
        document = texts[row["document"]]
        start, end = row["span"]
        passage = document["text"][start:end]
        asked = Asked(row["task"], row["document"], document["title"], passage, prompt)
        try:
            screened = screener.screen(Reply(**row["reply"]), asked)
            item = _item(row, document, screened, screens)
            if item["id"] in items:
                raise Rejected("repeats a question of its document", item["question"])
            items[item["id"]] = item
        except Rejected as rejected:
            rejections.append(_rejection(row, document, rejected))
    account = _account(rows, items, rejections)
    assert account["calls"] == account["items"] + sum(account["rejections"].values())
    write_jsonl(out / REJECTIONS, rejections)
    write_json(out / ACCOUNT, account)
    if not items:
        commonest = list(account["rejections"].items())[:COMMONEST]
        reasons = ", ".join(f"{count} x {rule}" for rule, count in commonest)
        raise ValueError(
            f"none of {len(rows)} answers became an item: {reasons}; read {out / REJECTIONS}, and "
            "change prompt, author or data.screen.screens"
        )
    _set_apart(items, texts, screens)
    annotation.write_items(out / annotation.ITEMS, items.values())
    if rubric is not None:
        write_text(out / annotation.RUBRIC, rubric)
    metrics = {
        "items": len(items),
        "reports": account["items_by_task"].get("report", 0),
        "calls": len(rows),
        "num_rejected": len(rejections),
        "num_dev": sum(item["split_hint"] == "dev" for item in items.values()),
        "num_test": sum(item["split_hint"] == "test" for item in items.values()),
    }
    write_metrics(out, metrics)


# ------------------------------------------------------------------------------------------- ask


def _check_author(
    author: EndpointAuthor | RuleAuthor | TransformersAuthor, model: Path | None
) -> None:
    is_local = isinstance(author, TransformersAuthor)
    if is_local and model is None:
        raise ValueError(
            "author=transformers: data.ask.model is null; name a model, as in "
            "'data.ask.model=${target.base}' with target.model=FOLDER"
        )
    if model is not None and not is_local:
        raise ValueError(
            f"data.ask.model={model.name}: only author=transformers runs a local model; set "
            "data.ask.model=null, or author=transformers"
        )


def _author(
    author: EndpointAuthor | RuleAuthor | TransformersAuthor,
    endpoint: Endpoint,
    model: Path | None,
    execution: Execution,
) -> Author:
    """Return who answers; its libraries are imported for it alone."""
    if isinstance(author, RuleAuthor):
        from soaes.data.synthesis.writer import RuleWriter

        return RuleWriter()
    if isinstance(author, TransformersAuthor):
        from soaes.decode.backends.local_author import LocalAuthor

        assert model is not None
        return LocalAuthor(model, execution)
    from soaes.data.synthesis.client import EndpointClient

    return EndpointClient(endpoint)


def _call_row(call: Call, reply: Reply) -> dict[str, Any]:
    return {
        "digest": call.request.digest,
        "task": call.place.task,
        "document": call.place.document,
        "span": [call.place.start, call.place.end],
        "model": call.request.model,
        "reply": asdict(reply),
    }


# ---------------------------------------------------------------------------------------- screen


def _item(
    row: dict[str, Any],
    document: CuratedDocument,
    screened: Screened,
    screens: ScreenSettings,
) -> annotation.ReviewItem:
    """Return an item that shows its passage within the document."""
    text = document["text"]
    start, end = row["span"]
    first, last = 0, len(text)
    if len(text) > screens.whole_chars:
        first, last = annotation.window(text, start, end, screens.context_chars)
    return annotation.review_item(
        "qa",
        task=row["task"],
        question=screened.question,
        answer=screened.answer,
        document={
            "id": document["id"],
            "title": document["title"],
            "source": document["source"],
            "offset": first,
            "text": text[first:last],
        },
        span=(start + screened.span[0] - first, start + screened.span[1] - first),
        origin=row["digest"],
        model=row["model"],
    )


def _rejection(
    row: dict[str, Any], document: CuratedDocument, rejected: Rejected
) -> dict[str, Any]:
    return {
        "digest": row["digest"],
        "task": row["task"],
        "source": document["source"],
        "rule": rejected.rule,
        "detail": rejected.detail.encode("utf-8", "replace").decode(),
    }


def _account(
    rows: list[dict[str, Any]],
    items: dict[str, annotation.ReviewItem],
    rejections: list[dict[str, Any]],
) -> dict[str, Any]:
    by_rule = Counter(rejection["rule"] for rejection in rejections)
    return {
        "calls": len(rows),
        "items": len(items),
        "items_by_task": dict(Counter(item["task"] for item in items.values())),
        "rejections": dict(by_rule.most_common()),
        "rejections_by_task": {
            task: dict(Counter(_rules_of(rejections, task)).most_common())
            for task in ("qa", "report")
        },
        "documents": len({item["document"]["id"] for item in items.values()}),
    }


def _rules_of(rejections: list[dict[str, Any]], task: str) -> Iterator[str]:
    return (rejection["rule"] for rejection in rejections if rejection["task"] == task)


def _set_apart(
    items: dict[str, annotation.ReviewItem],
    texts: dict[str, CuratedDocument],
    screens: ScreenSettings,
) -> None:
    """Mark the items of the families that become dev and test: people review all of these."""
    used = {item["document"]["id"] for item in items.values()}
    family_of = families({name: (texts[name]["title"], texts[name]["text"]) for name in used})
    tasks_of: dict[str, Counter[str]] = {}
    for item in items.values():
        family = family_of[item["document"]["id"]]
        tasks_of.setdefault(family, Counter())[item["task"]] += 1
    split_of = assign(tasks_of, screens.dev_share, screens.test_share, screens.seed)
    for item in items.values():
        split = split_of[family_of[item["document"]["id"]]]
        hint: annotation.SplitHint = "dev" if split == "dev" else "test"
        item["split_hint"] = "" if split == "train" else hint
