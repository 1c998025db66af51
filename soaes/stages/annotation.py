"""From what people decided to the questions of stage 2.

    annotation/ of the user's folder    exports of the review page; what was annotated elsewhere
    annotated                           all of it as one export
    adopt                               what was accepted, as qa/{train,dev,test}.jsonl with a card

An export enters a recipe by the digest of its content, as all of the user's folder does. The review
page reads the folder of `annotated`, too: so imported records are reviewed like a model's.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from soaes.data.annotation import imports
from soaes.data.annotation import item as contract
from soaes.data.annotation.agreement import agreement, wilson
from soaes.data.annotation.families import SPLITS, assign, families
from soaes.data.annotation.item import Decision, ReviewItem
from soaes.data.annotation.reviews import PLACES, Key, add_decisions, check_readable, folders_of
from soaes.data.annotation.settings import AdoptionSettings
from soaes.data.annotation.unread import Lot, errors_at_most, lots_of, read_lots
from soaes.data.annotation.verdicts import DISAGREED, NOBODY, SKIPPED, decided, pairs
from soaes.data.curation import sources
from soaes.data.curation.curation_report import printable
from soaes.data.curation.decontamination import HELD_OUT, HeldOutQuestions
from soaes.data.curation.document import DROPS, Rejection, read_documents
from soaes.data.curation.text_cleaning import clean
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.records import Message
from soaes.data.splits import question_key
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json, write_text

UNREAD = "unread.jsonl"
CARD = "card.json"
CARD_PAGE = "card.md"
KEEPING = ("accept", "edit")
# Items that are no questions, and where they belong.
NO_QUESTIONS = {
    kind: f"{what}: its export belongs in {PLACES[kind]}/"
    for kind, what in (
        ("relevance", "a passage's relevance"),
        ("near_duplicate", "a pair of documents"),
    )
}


def annotated(digest: str, *, root: str, out: Path) -> None:
    """Gather all exports and annotated files of a user's folder into one export.

    Writes items.jsonl, decisions.jsonl and account.json (soaes.data.annotation.item); drops.jsonl:
    each record that became no item, with its reason; and unread.jsonl: the training questions that
    nobody read, with how many of them can be wrong, as the review page says of each lot.

    Args:
        digest: Digest of annotation/ in the user's folder, which stands for it in the recipe.
        root: The user's folder.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, an export is damaged, a person
            decided twice at the same time, or there is no item.
    """
    sources.check_unchanged(root, digest, (sources.ANNOTATION,))
    items: dict[str, ReviewItem] = {}
    decisions: dict[Key, Decision] = {}
    num_replaced = 0
    rejections: list[Rejection] = []
    names = sources.listing(root)[sources.ANNOTATION]
    folders, others = folders_of(names)
    lots: list[Lot] = []
    for folder in folders:
        check_readable(Path(root), folder)
        export = contract.read_export(Path(root) / folder)
        items |= {item["id"]: item for item in export.items if item["id"] not in items}
        num_replaced += add_decisions(decisions, export.decisions, folder)
        lots += lots_of(Path(root) / folder, export)
    for name in others:
        reason, detail = sources.refusal(root, name)
        if reason:
            rejections.append(Rejection(printable(name), reason, detail))
            continue
        for record in imports.read(Path(root) / name, printable(name)):
            if isinstance(record, Rejection):
                rejections.append(record)
            elif record.item["id"] in items:
                if not _add_others(decisions, record.decisions):
                    rejections.append(Rejection(record.item["origin"], "exact duplicate"))
            else:
                items[record.item["id"]] = record.item
                add_decisions(decisions, record.decisions, name)
    if not items:
        reasons = Counter(rejection.reason for rejection in rejections).most_common(3)
        found = ", ".join(f"{count} x {reason}" for reason, count in reasons) or "it is empty"
        raise ValueError(
            f"{root}/{sources.ANNOTATION}: no item ({found}); docs/annotation.md has the formats"
        )
    account = contract.write_export(out, items.values(), decisions.values())
    write_jsonl(out / DROPS, map(_drop, rejections))
    write_jsonl(out / UNREAD, map(dict, lots))
    metrics = {
        "items": len(items),
        "decided": account["items_decided"],
        "decisions": account["decisions"],
        "num_replaced": num_replaced,
        "num_rejected": len(rejections),
    }
    write_metrics(out, metrics)


def adopt(
    annotated: Path,
    documents: Path,
    held_out_questions: Path,
    *,
    adoption: AdoptionSettings,
    out: Path,
) -> None:
    """Make the questions of stage 2 of what people accepted.

    Writes qa/{train,dev,test}.jsonl, each record with its reviewers, document, span and time;
    drops.jsonl, each item that is none of them with its reason; and the data card, as JSON and as
    Markdown.

    Args:
        annotated: Folder of `annotated`.
        documents: Folder of the last stage of soaes.stages.corpus, by whose texts families of
            documents are found.
        held_out_questions: Folder of soaes.stages.curate.held_out_questions.
        adoption: What becomes of items that nobody decided on, and the shares of the splits.
        out: The stage's output folder.

    Raises:
        ValueError: Nothing was accepted, or too little for three splits.
    """
    export = contract.read_export(annotated)
    by_item: dict[str, list[Decision]] = defaultdict(list)
    for decision in export.decisions:
        by_item[decision["item"]].append(decision)
    questions = [item for item in export.items if item["kind"] == "qa"]
    questions.sort(key=lambda item: not by_item[item["id"]])  # of two equal ones a decided one
    held_out = HeldOutQuestions.from_rows(read_jsonl(held_out_questions / HELD_OUT))
    adopted: list[_Adopted] = []
    drops: list[dict[str, Any]] = [
        {"id": item["id"], "rule": NO_QUESTIONS[item["kind"]], "detail": ""}
        for item in export.items
        if item["kind"] != "qa"
    ]
    asked: set[str] = set()
    for item in questions:
        record = _adopted(item, by_item[item["id"]], adoption)
        if isinstance(record, _Adopted):
            reason = _unusable(record.messages, held_out, asked)
            if not reason:
                adopted.append(record)
                continue
            record = (reason, "")
        drops.append({"id": item["id"], "rule": record[0], "detail": record[1]})
    if not adopted:
        reasons = Counter(drop["rule"] for drop in drops).most_common(3)
        found = ", ".join(f"{count} x {rule}" for rule, count in reasons) or "no question"
        raise ValueError(f"{annotated.name}: nothing can be adopted ({found}); review some items")
    family_of = _families(adopted, documents)
    split_of, num_moved = _splits(adopted, family_of, adoption)
    records: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    candidates, adopted = adopted, []
    for record in candidates:
        split = split_of[family_of[record.item["id"]]]
        if record.decisions or split == "train":
            adopted.append(record)
            records[split].append(record.record())
        else:
            rule = f"nobody decided, and its documents are for {split}"
            drops.append({"id": record.item["id"], "rule": rule, "detail": ""})
    empty = [split for split in SPLITS if not records[split]]
    if empty:
        num_families = len(split_of)
        raise ValueError(
            f"{annotated.name}: {len(adopted)} adopted items are about {num_families} families "
            f"of documents, and nothing is left for {', '.join(empty)}; review items of more "
            "documents"
        )
    for split, rows in records.items():
        write_jsonl(out / "qa" / f"{split}.jsonl", rows)
    write_jsonl(out / DROPS, drops)
    lots = read_lots(annotated / UNREAD)
    card = _card(questions, by_item, adopted, records, drops, lots, len(split_of), num_moved)
    write_json(out / CARD, card)
    write_text(out / CARD_PAGE, _page(card))
    metrics = {
        "adopted": len(adopted),
        **{split: len(records[split]) for split in SPLITS},
        "reports": sum(record.item["task"] == "report" for record in adopted),
        "families": len(split_of),
        "num_dropped": len(drops),
    }
    write_metrics(out, metrics)


# ------------------------------------------------------------------------------------- annotated


def _add_others(decisions: dict[Key, Decision], more: Iterable[Decision]) -> int:
    """Add what another record says of an item that is there; return how many decisions are new.

    An equal decision of the same person is none; another one by that name is another person's.
    """
    num_new = 0
    for decision in more:
        name = reviewer = decision["reviewer"]
        number = 1
        while earlier := _of_person(decisions, decision["item"], reviewer):
            if any(_content(each) == _content(decision) for each in earlier):
                break
            number += 1
            reviewer = f"{name} ({number})"
        else:
            further: Decision = {**decision, "reviewer": reviewer, "second": True}
            decisions[decision["item"], reviewer, True] = further
            num_new += 1
    return num_new


def _of_person(decisions: Mapping[Key, Decision], item: str, reviewer: str) -> list[Decision]:
    keys = [(item, reviewer, second) for second in (False, True)]
    return [decisions[key] for key in keys if key in decisions]


def _content(decision: Decision) -> tuple[str, str, str]:
    return decision["verdict"], decision["question"], decision["answer"]


def _drop(rejection: Rejection) -> dict[str, str]:
    return {"source": rejection.source, "rule": rejection.reason, "detail": rejection.detail}


# ----------------------------------------------------------------------------------------- adopt


@dataclass(frozen=True)
class _Adopted:
    """An item that becomes a question of stage 2."""

    item: ReviewItem
    messages: list[Message]
    decisions: list[Decision]

    def record(self) -> dict[str, Any]:
        """Return the line of qa/SPLIT.jsonl."""
        text = json.dumps(self.messages, ensure_ascii=False)
        document = self.item["document"]
        span = [document["offset"] + end for end in self.item["span"]]
        return {
            "id": hashlib.sha256(text.encode()).hexdigest()[:16],
            "task": self.item["task"],
            "messages": self.messages,
            "annotation": {
                "item": self.item["id"],
                "document": document["id"],
                "source": document["source"],
                "span": span,  # characters of the document
                "origin": self.item["origin"],
                "model": self.item["model"],
                "reviewers": [decision["reviewer"] for decision in self.decisions],
                "verdicts": [decision["verdict"] for decision in self.decisions],
                "times": [decision["time"] for decision in self.decisions],
            },
        }


def _adopted(
    item: ReviewItem, decisions: list[Decision], adoption: AdoptionSettings
) -> _Adopted | tuple[str, str]:
    """Return an item that was accepted, or why it was not, and a detail."""
    counted = decided(decisions)
    verdicts = {_kept(decision) for decision in counted}
    if decisions and not counted:
        return SKIPPED, ""
    if not counted:
        if adoption.undecided == "leave_out":
            return NOBODY, ""
        if item["split_hint"]:
            return f"{NOBODY}, and it is for {item['split_hint']}", ""
    if verdicts == {"reject"}:
        return "rejected", counted[0]["reason"]
    if len(verdicts) > 1:
        return DISAGREED, ", ".join(decision["reviewer"] for decision in counted)
    edits = [decision for decision in counted if decision["verdict"] == "edit"]
    text: Mapping[str, Any] = edits[0] if edits else item
    question, _ = clean(text["question"])
    answer, _ = clean(text["answer"])
    if not question or not answer:
        return "nothing is left of it", ""
    messages: list[Message] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return _Adopted(item, messages, counted)


def _kept(decision: Decision) -> str:
    """Return whether a decision keeps its item, as a word."""
    return "keep" if decision["verdict"] in KEEPING else "reject"


def _unusable(messages: list[Message], held_out: HeldOutQuestions, asked: set[str]) -> str:
    """Return why questions that were accepted are not adopted, or ""."""
    if split := held_out.in_messages(messages):
        return f"holds a question of {split}"
    key = question_key(messages)
    if key in asked:
        return "the same question is adopted already"
    asked.add(key)
    return ""


def _families(adopted: list[_Adopted], documents: Path) -> dict[str, str]:
    """Return the family of each item's document, by the item's id.

    An item without a document is a family of its own.
    """
    used = {record.item["document"]["id"] for record in adopted}
    texts: dict[str, tuple[str, str]] = {}
    for record in adopted:
        document = record.item["document"]
        text = document["text"]
        if len(text) >= len(texts.get(document["id"], ("", ""))[1]):
            texts[document["id"]] = document["title"], text
    for curated in read_documents(documents):
        if curated["id"] in used:
            texts[curated["id"]] = curated["title"], curated["text"]
    family_of = families(texts)
    return {
        record.item["id"]: family_of[record.item["document"]["id"]]
        if texts[record.item["document"]["id"]] != ("", "")
        else record.item["id"]
        for record in adopted
    }


def _splits(
    adopted: list[_Adopted], family_of: dict[str, str], adoption: AdoptionSettings
) -> tuple[dict[str, str], int]:
    """Return the split of each family, and how many items are in another than was planned.

    What was set apart before the review stays apart; what nobody decided on trains.
    """
    tasks_of: dict[str, Counter[str]] = defaultdict(Counter)
    fixed: dict[str, str] = {}
    for record in adopted:
        family = family_of[record.item["id"]]
        tasks_of[family][record.item["task"]] += 1
        hint = record.item["split_hint"]
        if hint and fixed.get(family) != "test":  # of two hints test counts
            fixed[family] = hint
    undecided = {family_of[record.item["id"]] for record in adopted if not record.decisions}
    fixed |= dict.fromkeys(undecided - fixed.keys(), "train")
    dev, test = adoption.dev_share, adoption.test_share
    split_of = assign(tasks_of, dev, test, adoption.seed, fixed)
    num_moved = sum(
        record.item["split_hint"] not in ("", split_of[family_of[record.item["id"]]])
        for record in adopted
    )
    return split_of, num_moved


def _card(
    items: list[ReviewItem],
    by_item: Mapping[str, list[Decision]],
    adopted: list[_Adopted],
    records: Mapping[str, list[dict[str, Any]]],
    drops: list[dict[str, Any]],
    lots: list[Lot],
    num_families: int,
    num_moved: int,
) -> dict[str, Any]:
    """Return the data card."""
    counted = [
        decision
        for item in items
        for decision in by_item[item["id"]]
        if decision["verdict"] != "skip"
    ]
    firsts = [decision for decision in counted if not decision["second"]]
    kept = sum(decision["verdict"] in KEEPING for decision in firsts)
    agreed = agreement(pairs((by_item[item["id"]] for item in items), _kept))
    origins = Counter(record.item["document"]["source"].rpartition("/")[0] for record in adopted)
    rules = Counter(drop["rule"] for drop in drops)
    undecided = {record.item["id"] for record in adopted if not record.decisions}
    errors = wilson(len(firsts) - kept, len(firsts)) if firsts else (0.0, 1.0)
    return {
        "items": len(adopted) + len(drops),
        "adopted": len(adopted),
        "dropped": dict(rules.most_common()),
        "splits": {
            split: dict(sorted(Counter(row["task"] for row in rows).items()))
            for split, rows in records.items()
        },
        "families": num_families,
        "in_another_split_than_planned": num_moved,
        "sources": dict(origins.most_common()),
        "models": dict(Counter(record.item["model"] for record in adopted).most_common()),
        "reviewers": dict(Counter(decision["reviewer"] for decision in counted).most_common()),
        "acceptance": {
            "decided": len(firsts),
            "accepted": sum(decision["verdict"] == "accept" for decision in firsts),
            "edited": sum(decision["verdict"] == "edit" for decision in firsts),
            "rejected": len(firsts) - kept,
            "rate": round(kept / len(firsts), 4) if firsts else None,
            "interval": [round(1 - share, 4) for share in reversed(errors)],
        },
        "reasons": dict(
            Counter(
                decision["reason"] or "none given"
                for decision in counted
                if decision["verdict"] == "reject"
            ).most_common()
        ),
        "agreement": {
            "pairs": agreed.items,
            "raw": round(agreed.raw, 4),
            "kappa": _rounded(agreed.kappa),
            "interval": [_rounded(agreed.low), _rounded(agreed.high)],
        },
        "undecided": {
            "adopted": len(undecided),
            "errors_at_most": errors_at_most(undecided, lots, errors[1]),
            "lots": [
                {**lot, "items": len(lot["items"])}
                for lot in lots
                if not undecided.isdisjoint(lot["items"])
            ],
        },
        "contaminated": sum(
            count for rule, count in rules.items() if rule.startswith("holds a question of")
        ),
        "characters": {
            task: _lengths([record for record in adopted if record.item["task"] == task])
            for task in ("qa", "report")
        },
        "seconds": round(sum(decision["seconds"] for decision in counted), 1),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _lengths(records: list[_Adopted]) -> dict[str, float]:
    lengths = [len(record.messages[-1]["content"]) for record in records]
    if not lengths:
        return {}
    return {"shortest": min(lengths), "median": median(lengths), "longest": max(lengths)}


def _agreement_line(agreed: Mapping[str, Any]) -> str:
    if not agreed["pairs"]:
        return "- agreement of two: no item was decided on by two people"
    line = f"- agreement of two: {agreed['pairs']} items, raw {agreed['raw']}, kappa "
    if agreed["kappa"] is None:
        return f"{line}undefined: one verdict only"
    return f"{line}{agreed['kappa']} {agreed['interval']}"


def _undecided_line(undecided: Mapping[str, Any]) -> str:
    line = f"- adopted undecided: {undecided['adopted']}"
    bound = undecided["errors_at_most"]
    return line if bound is None else f"{line}, errors at most {bound}"


def _page(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown."""
    acceptance, agreed = card["acceptance"], card["agreement"]
    lines = ["# Data card", ""]
    for split, tasks in card["splits"].items():
        counts = ", ".join(f"{count} {task}" for task, count in tasks.items())
        lines.append(f"- **{split}**: {sum(tasks.values())} ({counts})")
    lines += [
        f"- {card['adopted']} of {card['items']} items, {card['families']} families of documents; "
        "no family stands in two splits",
        f"- accepted {acceptance['accepted']}, edited {acceptance['edited']}, rejected "
        f"{acceptance['rejected']} of {acceptance['decided']} decided",
        _agreement_line(agreed),
        f"- contaminated by an exam or test set: {card['contaminated']}",
        _undecided_line(card["undecided"]),
        "",
    ]
    for title in ("dropped", "reasons", "sources", "models", "reviewers"):
        lines += [f"## {title.capitalize()}", ""]
        lines += [f"- {name or '(none)'}: {count}" for name, count in card[title].items()]
        lines.append("")
    return "\n".join(lines)
