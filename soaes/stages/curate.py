"""Turn a user's folder into the one data folder that every later stage reads.

The path of the data, kind by kind (general, corpus, dialogue, qa, exam):

    sources.listing         which files there are
    readers                 a file -> records, faults reported line by line
    _unique                 an id made of the content; exact duplicates dropped
    splits                  what the user did not split: held-out general text, dev and test
    curation_report.json    what was kept, what was dropped and why

Knows which files make the folder; how a file is read is up to soaes.data.curation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from soaes.data import splits
from soaes.data.curation import exam_files, readers, sources
from soaes.data.curation.curation_report import CurationReport, shown
from soaes.data.jsonl import write_jsonl
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json
from soaes.pipeline.validation import check_in_range, check_whole

Record = dict[str, Any]

EXPECTED = (
    "corpus/**.{txt,md,jsonl} and qa/{train,dev,test}.jsonl, and if there are any "
    "general/**.{txt,md,jsonl}, dialogue/**.{json,jsonl}, exam/NAME/{dev,test}/SUBJECT.csv"
)
QA_SPLITS = ("train", "dev", "test")
SHOWN_PROBLEMS = 5  # in an error message; the report lists them all


def files(
    digest: str,
    *,
    root: str,
    seed: int,
    held_out: float = 0.2,
    split_one_in: int = 10,
    out: Path,
) -> None:
    """Read a user's folder.

    Writes general, corpus, dialogue and qa/ as JSON lines, exam/ as CSV, and
    curation_report.json. A broken file or line is named there and does not stop the rest.

    Args:
        digest: of the content that the recipe stands for.
        root: the user's folder.
        seed: of what is held out and split.
        held_out: share of the corpus that becomes general text, in (0, 1), if the user has none.
        split_one_in: a missing dev or test split takes one in so many of the train questions.
        out: folder for the documents.

    Raises:
        ValueError: if the folder changed since it was planned, or lacks what no chain can do
            without.
    """
    check_in_range("held_out", held_out, "(0, 1)", "the corpus's share that becomes general text")
    check_whole("split_one_in", split_one_in, 2, "of so many train questions one is split off")
    current_digest = sources.digest(root)
    if current_digest != digest:
        raise ValueError(
            f"the data under {root} changed since it was planned "
            f"({digest[:12]}, now {current_digest[:12]}); run again"
        )
    names = sources.listing(root)
    base = Path(root)
    report = CurationReport()
    out.mkdir(parents=True, exist_ok=True)

    general = _documents(base, names, seed, held_out, report, out)
    _dialogues(base, names["dialogue"], report, out)
    qa = _qa(base, names["qa"], seed, split_one_in, report, out)
    exams = _exams(base, names["exam"], report, out)
    _require_minimum(root, report, qa)

    summary = {
        "general": general,
        "corpus": report.of("corpus"),
        "dialogue": report.of("dialogue"),
        "qa": qa,
        "exam": exams,
        **report.summary(),
    }
    write_json(out / "curation_report.json", summary)
    counts = {kind: report.kept[kind] for kind in sources.KINDS}
    write_metrics(out, {"problems": report.total, **counts})


def _documents(
    base: Path,
    names: dict[str, list[str]],
    seed: int,
    held_out: float,
    report: CurationReport,
    out: Path,
) -> Record:
    """Write general.jsonl and corpus.jsonl without duplicates, within and across them.

    CPT never trains on general text.
    """
    seen: set[str] = set()
    for kind in ("general", "corpus"):
        records = readers.documents(base, kind, names[kind], report)
        unique = _unique(records, kind, lambda record: record["text"], seen, report)
        write_jsonl(out / f"{kind}.jsonl", unique)
    if report.kept["general"]:
        return report.of("general") | {"source": "general/"}
    if report.kept["corpus"] > 1:
        _hold_out(out, seed, held_out, report)
    percent = f"{held_out:.0%}".replace("%", " %")
    return report.of("general") | {"source": f"{percent} of corpus, held out from CPT"}


def _hold_out(out: Path, seed: int, share: float, report: CurationReport) -> None:
    """Move a share of corpus.jsonl to general.jsonl, line by line.

    A corpus may be larger than memory.
    """
    whole = (out / "corpus.jsonl").replace(out / "whole.jsonl")
    ids = [record["id"] for record in _read_lines(whole)]
    moved = splits.held_out(ids, share, seed)
    general = (record for record in _read_lines(whole) if record["id"] in moved)
    write_jsonl(out / "general.jsonl", general)
    corpus = (record for record in _read_lines(whole) if record["id"] not in moved)
    write_jsonl(out / "corpus.jsonl", corpus)
    whole.unlink()
    report.kept["general"] = len(moved)
    report.kept["corpus"] -= len(moved)


def _dialogues(base: Path, names: list[str], report: CurationReport, out: Path) -> None:
    records = (
        {"category": readers.category(name, record), "messages": messages}
        for name, _, record, messages in readers.dialogues(base, "dialogue", names, report)
    )
    unique = _unique(records, "dialogue", lambda record: record["messages"], set(), report)
    write_jsonl(out / "dialogue.jsonl", unique)


# --------------------------------------------------------------------------------- questions


def _qa(
    base: Path,
    names: list[str],
    seed: int,
    split_one_in: int,
    report: CurationReport,
    out: Path,
) -> Record:
    """Write qa/{train,dev,test}.jsonl.

    Test and dev keep their questions; train gives up what it shares with them, and fills a
    missing split.
    """
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    samples: dict[str, list[Record]] = {}
    for split in ("test", "dev", "train"):
        records = _qa_records(base, split, names, report)
        unshared = _only_in(records, split, split_of, report)
        unique = _unique(unshared, "qa", lambda record: record["messages"], seen, report)
        samples[split] = list(unique)
    for name in names:
        if _qa_split(name) not in samples:
            report.fault("qa", name, 0, "not read: not qa/{train,dev,test}.jsonl")

    missing = [split for split in ("dev", "test") if not samples[split]]
    samples |= splits.split(samples["train"], missing, seed, split_one_in)
    for split, records in samples.items():
        write_jsonl(out / "qa" / f"{split}.jsonl", records)

    source = "as given"
    if missing:
        part = "a tenth" if split_one_in == 10 else f"one in {split_one_in}"
        source = f"{' and '.join(missing)}: {part} of the train questions each"
    counts = {split: len(samples[split]) for split in QA_SPLITS}
    return report.of("qa") | counts | {"source": source}


def _qa_records(
    base: Path, split: str, names: list[str], report: CurationReport
) -> Iterator[Record]:
    """Read the question-answer pairs of one split."""
    paths = [name for name in names if _qa_split(name) == split]
    for name, line, record, messages in readers.dialogues(base, "qa", paths, report):
        task = record.get("task", "qa")
        if task in ("qa", "report"):
            yield {"task": task, "messages": messages}
        else:
            detail = task[:40] if isinstance(task, str) else ""
            report.fault("qa", name, line, "the task is neither qa nor report", detail)


def _only_in(
    records: Iterable[Record], split: str, split_of: dict[str, str], report: CurationReport
) -> Iterator[Record]:
    """Drop questions that an earlier split has; `split_of` remembers who came first."""
    for record in records:
        first = split_of.setdefault(splits.question(record["messages"]), split)
        if first == split:
            yield record
        else:
            report.drop("qa", f"question of {split} is also in {first}")


def _qa_split(name: str) -> str:
    """Return `train` for qa/train.jsonl; nothing for a file in a deeper folder."""
    path = Path(name)
    return path.stem if len(path.parts) == 2 else ""


# ------------------------------------------------------------------------------------- exams


def _exams(base: Path, names: list[str], report: CurationReport, out: Path) -> Record:
    """Write the exams; one without test questions cannot be scored and is left out."""
    counts: dict[str, Record] = {}
    for exam, parts in readers.questions(base, names, report).items():
        count: Record = {split: len(questions) for split, questions in parts.items()}
        if parts["test"]:
            exam_files.write(out / "exam", exam, parts)
        else:
            count["note"] = "no val/ or test/ question: not scored"
        counts[shown(exam)] = count
    return report.of("exam") | {"exams": counts}


# ----------------------------------------------------------------------------------- helpers


def _require_minimum(root: str, report: CurationReport, qa: Record) -> None:
    """Refuse data that no chain can do without.

    The rest may be missing, and curation_report.json says so.
    """
    problems = "".join(f"\n  {problem}" for problem in report.problems[:SHOWN_PROBLEMS])
    if not sum(report.kept.values()):
        raise ValueError(
            f"no usable file under {root}: expected {EXPECTED}; "
            f"lay it out so, or use the world{problems}"
        )
    purposes = {
        "corpus": "documents to pre-train on",
        "qa": "questions with answers to fine-tune on",
    }
    for kind, purpose in purposes.items():
        if not report.kept[kind]:
            raise ValueError(
                f"no usable record under {root}/{kind} ({purpose}): expected {EXPECTED}{problems}"
            )
    if not report.kept["general"]:
        raise ValueError(
            f"{root}/corpus has 1 document, general text is held out from at least 2: "
            "add some, or general/"
        )
    if not all(qa[split] for split in QA_SPLITS):
        counts = ", ".join(f"{split} {qa[split]}" for split in QA_SPLITS)
        raise ValueError(
            f"{root}/qa has too few questions for three splits ({counts}): "
            "give qa/train.jsonl at least 3"
        )


def _unique(
    records: Iterable[Record],
    kind: str,
    content: Callable[[Record], Any],
    seen: set[str],
    report: CurationReport,
) -> Iterator[Record]:
    """Give each record an id made of its content, and drop exact duplicates."""
    for record in records:
        text = json.dumps(content(record), ensure_ascii=False)
        identifier = hashlib.sha256(text.encode()).hexdigest()[:16]
        if identifier in seen:
            report.drop(kind, "exact duplicate")
            continue
        seen.add(identifier)
        report.kept[kind] += 1
        yield {"id": identifier, **record}


def _read_lines(path: Path) -> Iterator[Record]:
    """Read JSON lines one at a time."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
