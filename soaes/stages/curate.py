"""Curate: turn a user's own files into the data folder that every later stage reads.

The path of the data, kind by kind (general, corpus, dialogue, qa, exam):

    sources.listing         lists the files
    readers                 turn a file into records; problems are reported line by line
    _unique                 gives ids computed from the content, and drops exact duplicates
    splits                  divide what the user did not: held-out general text, dev and test
    curation_report.json    says what was kept, and what was dropped and why

This module knows which files make the folder; how a file is read is known to soaes.data.curation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from soaes.data import splits
from soaes.data.curation import exam_files, readers, sources
from soaes.data.curation.curation_report import CurationReport, printable
from soaes.data.jsonl import write_jsonl
from soaes.data.records import QuestionRecord
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json
from soaes.pipeline.validation import check_in_range, check_whole

Record = TypeVar("Record", bound=Mapping[str, Any])

EXPECTED = (
    "corpus/**.{txt,md,jsonl} and qa/{train,dev,test}.jsonl, and optionally "
    "general/**.{txt,md,jsonl}, dialogue/**.{json,jsonl}, exam/NAME/{dev,test}/SUBJECT.csv"
)
QA_SPLITS = ("train", "dev", "test")


def files(
    digest: str,
    *,
    root: str,
    seed: int,
    held_out: float = 0.2,
    split_one_in: int = 10,
    min_chars: int = 20,
    out: Path,
) -> None:
    """Read a user's folder.

    Writes general.jsonl, corpus.jsonl, dialogue.jsonl and qa/SPLIT.jsonl, exam/ as CSV, and
    curation_report.json: what was kept, and what was dropped and why. A broken file or line is
    listed there and does not stop the rest.

    Args:
        digest: digest of the folder's content (soaes.data.curation.sources), which stands for it
            in the recipe.
        root: the user's folder.
        seed: decides which documents and questions are held out.
        held_out: share of the corpus that becomes general text, in (0, 1), if the user has none.
        split_one_in: a missing dev or test split takes one in so many of the train questions.
        min_chars: shortest document that is kept, in characters.
        out: the stage's output folder.

    Raises:
        ValueError: if the folder changed since the job was planned, or lacks what every chain of
            stages needs.
    """
    check_in_range("held_out", held_out, "(0, 1)", "the corpus's share that becomes general text")
    check_whole("split_one_in", split_one_in, 2, "of so many train questions one is split off")
    check_whole("min_chars", min_chars, 0, "the shortest document that is kept, in characters")
    digest_now = sources.digest(root)
    if digest_now != digest:
        raise ValueError(
            f"the data under {root} changed since it was planned "
            f"({digest[:12]}, now {digest_now[:12]}); run again"
        )
    names = sources.listing(root)
    base = Path(root)
    report = CurationReport()
    out.mkdir(parents=True, exist_ok=True)
    general = _documents(base, names, held_out, min_chars, seed, report, out)
    _dialogues(base, names["dialogue"], report, out)
    qa = _qa(base, names["qa"], split_one_in, seed, report, out)
    exam = _exams(base, names["exam"], report, out)
    _check_sufficient(root, report, qa)
    summary = {
        "general": general,
        "corpus": report.counts("corpus"),
        "dialogue": report.counts("dialogue"),
        "qa": qa,
        "exam": exam,
        "problems_total": report.num_problems,
        "problems": report.problems,
    }
    write_json(out / "curation_report.json", summary)
    kept = {kind: report.kept[kind] for kind in sources.KINDS}
    write_metrics(out, {"problems": report.num_problems, **kept})


def _documents(
    base: Path,
    names: dict[str, list[str]],
    held_out: float,
    min_chars: int,
    seed: int,
    report: CurationReport,
    out: Path,
) -> dict[str, Any]:
    """Write general and corpus, without duplicates within and across them.

    General text is never trained on by CPT.
    """
    seen: set[str] = set()
    for kind in ("general", "corpus"):
        documents = readers.documents(base, kind, names[kind], report, min_chars)
        rows = (document._asdict() for document in documents)
        unique = _unique(rows, kind, lambda row: row["text"], seen, report)
        write_jsonl(out / f"{kind}.jsonl", unique)
    if report.kept["general"]:
        return {**report.counts("general"), "source": "general/"}
    if report.kept["corpus"] > 1:
        _hold_out(out, held_out, seed, report)
    source = f"{100 * held_out:.0f} % of corpus, held out from CPT"
    return {**report.counts("general"), "source": source}


def _hold_out(out: Path, share: float, seed: int, report: CurationReport) -> None:
    """Move a share of corpus.jsonl to general.jsonl.

    It reads line by line, since a corpus may be larger than memory.
    """
    whole = (out / "corpus.jsonl").replace(out / "whole.jsonl")
    held_out = splits.held_out([row["id"] for row in _lines(whole)], share, seed)
    write_jsonl(out / "general.jsonl", (row for row in _lines(whole) if row["id"] in held_out))
    write_jsonl(out / "corpus.jsonl", (row for row in _lines(whole) if row["id"] not in held_out))
    whole.unlink()
    report.kept["general"] = len(held_out)
    report.kept["corpus"] -= len(held_out)


def _dialogues(base: Path, names: list[str], report: CurationReport, out: Path) -> None:
    rows = (
        {"category": readers.category(dialogue), "messages": dialogue.messages}
        for dialogue in readers.dialogues(base, "dialogue", names, report)
    )
    unique = _unique(rows, "dialogue", lambda row: row["messages"], set(), report)
    write_jsonl(out / "dialogue.jsonl", unique)


def _qa(
    base: Path, names: list[str], split_one_in: int, seed: int, report: CurationReport, out: Path
) -> dict[str, Any]:
    """Write the questions, no question in two splits.

    Test and dev keep their questions; train loses those it shares with them, and fills a missing
    split.
    """
    seen: set[str] = set()
    split_of_question: dict[str, str] = {}
    parts: dict[str, list[QuestionRecord]] = {}
    for split in ("test", "dev", "train"):
        rows = _questions(base, split, names, report)
        rows = _not_in_other_splits(rows, split, split_of_question, report)
        unique = _unique(rows, "qa", lambda row: row["messages"], seen, report)
        parts[split] = cast("list[QuestionRecord]", list(unique))
    for name in names:
        if _split_of(name) not in parts:
            report.problem("qa", name, 0, "not read: not qa/{train,dev,test}.jsonl")
    missing = [split for split in ("dev", "test") if not parts[split]]
    parts |= splits.split(parts["train"], missing, seed, split_one_in)
    for split, records in parts.items():
        write_jsonl(out / "qa" / f"{split}.jsonl", records)
    sizes = {split: len(parts[split]) for split in QA_SPLITS}
    source = "as given"
    if missing:
        part = "a tenth" if split_one_in == 10 else f"one in {split_one_in}"
        source = f"{' and '.join(missing)}: {part} of the train questions each"
    return {**report.counts("qa"), **sizes, "source": source}


def _questions(
    base: Path, split: str, names: list[str], report: CurationReport
) -> Iterator[dict[str, Any]]:
    """Yield the questions of a split whose task is known."""
    split_files = [name for name in names if _split_of(name) == split]
    for dialogue in readers.dialogues(base, "qa", split_files, report):
        task = dialogue.record.get("task", "qa")
        if task in ("qa", "report"):
            yield {"task": task, "messages": dialogue.messages}
        else:
            detail = task[:40] if isinstance(task, str) else ""
            reason = "the task is neither qa nor report"
            report.problem("qa", dialogue.file, dialogue.line, reason, detail)


def _not_in_other_splits(
    rows: Iterable[dict[str, Any]],
    split: str,
    split_of_question: dict[str, str],
    report: CurationReport,
) -> Iterator[dict[str, Any]]:
    for row in rows:
        key = splits.question_key(row["messages"])
        first = split_of_question.setdefault(key, split)
        if first == split:
            yield row
        else:
            report.drop("qa", f"question of {split} is also in {first}")


def _split_of(name: str) -> str:
    """Return `train` for qa/train.jsonl; "" for a file in a subfolder."""
    path = Path(name)
    return path.stem if len(path.parts) == 2 else ""


def _exams(base: Path, names: list[str], report: CurationReport, out: Path) -> dict[str, Any]:
    """Write every exam that can be scored: those that have test questions."""
    exams: dict[str, dict[str, Any]] = {}
    for name, exam_splits in readers.questions(base, names, report).items():
        sizes = {split: len(questions) for split, questions in exam_splits.items()}
        if exam_splits["test"]:
            exam_files.write(out / "exam", name, exam_splits)
            exams[printable(name)] = sizes
        else:
            note = "no val/ or test/ question: not scored"
            exams[printable(name)] = {**sizes, "note": note}
    return {**report.counts("exam"), "exams": exams}


def _check_sufficient(root: str, report: CurationReport, qa: dict[str, Any]) -> None:
    """Check for what no chain can do without; what else is missing, the report says."""
    problems = "".join(f"\n  {problem}" for problem in report.problems[:5])
    if not sum(report.kept.values()):
        raise ValueError(
            f"no usable file under {root}: expected {EXPECTED}; "
            f"arrange your files so, or use data=world{problems}"
        )
    required = (
        ("corpus", "documents to pre-train on"),
        ("qa", "questions with answers to fine-tune on"),
    )
    for kind, purpose in required:
        if not report.kept[kind]:
            raise ValueError(
                f"no usable record under {root}/{kind} ({purpose}): expected {EXPECTED}{problems}"
            )
    if not report.kept["general"]:
        raise ValueError(
            f"{root}/corpus has 1 document, but general text is held out from at least 2: "
            "add documents, or general/"
        )
    if not all(qa[split] for split in QA_SPLITS):
        sizes = ", ".join(f"{split} {qa[split]}" for split in QA_SPLITS)
        raise ValueError(
            f"{root}/qa has too few questions for three splits ({sizes}): "
            "give qa/train.jsonl at least 3"
        )


def _unique(
    rows: Iterable[Record],
    kind: str,
    content: Callable[[Record], Any],
    seen: set[str],
    report: CurationReport,
) -> Iterator[dict[str, Any]]:
    """Yield each row whose content is new, with an id computed from its content."""
    for row in rows:
        text = json.dumps(content(row), ensure_ascii=False)
        identifier = hashlib.sha256(text.encode()).hexdigest()[:16]
        if identifier in seen:
            report.drop(kind, "exact duplicate")
        else:
            seen.add(identifier)
            report.kept[kind] += 1
            yield {"id": identifier, **row}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            yield json.loads(line)
