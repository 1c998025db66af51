"""Curate: turn a user's own files into the data folder that every later stage reads.

The path of the data, kind by kind (general, corpus, dialogue, qa, exam):

    soaes.stages.corpus     reads the documents of general and corpus, in stages of its own
                            where they are cleaned, deduplicated and decontaminated
    sources.listing         lists the files of dialogue, qa and exam
    readers                 turn a file into records; problems are reported line by line
    decontamination         drops what holds a question of dev, of test or of an exam
    _unique                 gives ids computed from the content, and drops exact duplicates
    splits                  divide what the user did not: held-out general text, dev and test
    curation_report.json    says what was kept, and what was dropped and why

A part that the user did not give may be split off another; a part that is given and cannot be used
is an error, never replaced.

This module knows which files make the folder; how a file is read is known to soaes.data.curation.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar, cast

from soaes.data import splits
from soaes.data.curation import (
    chat_formats,
    dialogue_filters,
    exam_files,
    readers,
    relevance,
    sources,
)
from soaes.data.curation.curation_report import MAX_LISTED, CurationReport, printable
from soaes.data.curation.decontamination import HELD_OUT, HeldOutQuestions
from soaes.data.curation.document import DROPS, read_accounts, read_documents
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.records import QuestionRecord
from soaes.data.settings import DialogueSettings
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json
from soaes.pipeline.validation import check_in_range, check_whole

Record = TypeVar("Record", bound=Mapping[str, Any])

EXPECTED = (
    "corpus/**.{txt,md,html,pdf,docx,jsonl,...} and qa/{train,dev,test}.jsonl, and optionally "
    "general/**, dialogue/**.{json,jsonl}, exam/NAME/{dev,test}/SUBJECT.csv"
)
KINDS = ("dialogue", "qa", "exam")  # whose files this stage reads itself
DOCUMENT_KINDS = ("general", "corpus")
DOCUMENT_FIELDS: tuple[Literal["id", "text", "source"], ...] = ("id", "text", "source")
RELEVANT, OTHER = "relevant", "other"  # categories of dialogues that have no label
QA_SPLITS = ("train", "dev", "test")
DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xlsx")


def files(
    documents: Path,
    read: Path,
    scores: Path,
    digest: str,
    *,
    root: str,
    seed: int,
    held_out: float = 0.2,
    split_one_in: int = 10,
    dialogue: DialogueSettings = DialogueSettings(),
    adopted: Path | None = None,
    out: Path,
) -> None:
    """Make a data folder of a user's documents, dialogues, questions and exams.

    Writes general.jsonl, corpus.jsonl, dialogue.jsonl and qa/SPLIT.jsonl, exam/ as CSV, and
    curation_report.json: what was kept, and what was dropped and why. A broken file or line is
    listed there and does not stop the rest, unless nothing of a part is left.

    Args:
        documents: the folder of the last stage of soaes.stages.corpus.
        read: the folder of its stage `read`, which names the files that are no documents.
        scores: the folder of its stage `score`, whose scorer judges dialogues without a label.
        digest: digest of the dialogues, questions and exams (soaes.data.curation.sources), which
            stands for them in the recipe.
        root: the user's folder.
        seed: decides which documents and questions are held out.
        held_out: share of the corpus that becomes general text, in (0, 1), if the user has none.
        split_one_in: a missing dev or test split takes one in so many of the train questions.
        dialogue: which dialogues are kept.
        adopted: the folder of soaes.stages.annotation.adopt, whose questions come beside those of
            qa/; None: what people decided in annotation/ is not read.
        out: the stage's output folder.

    Raises:
        ValueError: if the folder changed since the job was planned, lacks what every chain of
            stages needs, or has a part of which nothing can be used.
    """
    check_in_range("held_out", held_out, "(0, 1)", "the corpus's share that becomes general text")
    check_whole("split_one_in", split_one_in, 2, "of so many train questions one is split off")
    sources.check_unchanged(root, digest, KINDS)
    names = sources.listing(root)
    base = Path(root)
    report = CurationReport()
    out.mkdir(parents=True, exist_ok=True)
    questions = HeldOutQuestions()
    exam = _exams(base, names["exam"], questions, report, out)
    if names[sources.ANNOTATION] and adopted is None:
        name = printable(names[sources.ANNOTATION][0])
        report.problem("qa", name, 0, "not read: data=reviewed reads annotation/")
    qa = _qa(base, names["qa"], adopted, split_one_in, seed, questions, report, out)
    categories_of = _categories(scores, dialogue)
    dialogues = _dialogues(base, names["dialogue"], dialogue, categories_of, questions, report, out)
    _count_unread(read, report)
    accounts = read_accounts(documents)
    _count_dropped(accounts, report)
    of_adopted = _held_out_of_adopted(adopted)
    general = _documents(documents, names, held_out, seed, of_adopted, report, out)
    _check_sufficient(root, report, qa)
    summary = {
        "general": general,
        "corpus": report.counts("corpus"),
        "dialogue": dialogues,
        "qa": qa,
        "exam": exam,
        "steps": [_without_samples(account) for account in accounts],
        "not_read": [printable(name) for name in sources.unread_names(root)],
        "contaminated": report.num_contaminated,
        "problems_total": report.num_problems,
        "problems": report.problems,
    }
    write_json(out / "curation_report.json", summary)
    kept = {kind: report.kept[kind] for kind in sources.KINDS}
    counts = {"problems": report.num_problems, "contaminated": report.num_contaminated}
    write_metrics(out, {**counts, **kept})


def held_out_questions(
    digest: str, *, root: str, seed: int, split_one_in: int = 10, out: Path
) -> None:
    """Write the questions that evaluation asks, which no document may hold.

    They are those that `files` holds out: of the exams, of qa/dev and qa/test, and of what it
    splits off qa/train where one of these is missing. Writes held_out.jsonl.

    Args:
        digest: digest of the dialogues, questions and exams, as of `files`.
        root: the user's folder.
        seed: decides which questions are split off, as of `files`.
        split_one_in: a missing split takes one in so many questions, as of `files`.
        out: the stage's output folder.

    Raises:
        ValueError: if the folder changed since the job was planned, or if of a part that is given
            nothing can be used.
    """
    check_whole("split_one_in", split_one_in, 2, "of so many train questions one is split off")
    sources.check_unchanged(root, digest, KINDS)
    names = sources.listing(root)
    report = CurationReport()
    held_out = HeldOutQuestions()
    with TemporaryDirectory() as scratch:
        _exams(Path(root), names["exam"], held_out, report, Path(scratch))
        _qa(Path(root), names["qa"], None, split_one_in, seed, held_out, report, Path(scratch))
    rows = list(held_out.rows())
    write_jsonl(out / HELD_OUT, rows)
    write_metrics(out, {"held_out": len(rows)})


def _count_unread(read: Path, report: CurationReport) -> None:
    """Report the files that were read, and what of them became no document."""
    account = read_accounts(read)[-1]
    report.files.update(account["files"])
    for kind, fields in account["fields_not_read"].items():
        report.unread[kind].update(fields)
    for drop in _lines(read / DROPS):
        kind = drop["source"].partition("/")[0]
        report.problem(kind, drop["source"], 0, drop["rule"], drop["detail"])


def _count_dropped(accounts: Sequence[dict[str, Any]], report: CurationReport) -> None:
    """Count the documents that the steps dropped by rule; their drops.jsonl name them."""
    for account in accounts:
        for place, taken in account["taken"].items():
            dropped = {rule: counts["documents"] for rule, counts in taken.items()}
            report.dropped[place.partition("/")[0]].update(+Counter(dropped))
        if account["step"] == "decontaminate":
            report.num_contaminated += account["documents"]["dropped"]


def _without_samples(account: dict[str, Any]) -> dict[str, Any]:
    """Return a step's account without the samples of its rules, which stand in its own folder."""
    rules = {
        name: {key: count for key, count in counts.items() if key != "samples"}
        for name, counts in account["rules"].items()
    }
    return {**account, "rules": rules}


def _documents(
    documents: Path,
    names: dict[str, list[str]],
    held_out: float,
    seed: int,
    of_adopted: HeldOutQuestions | None,
    report: CurationReport,
    out: Path,
) -> dict[str, Any]:
    """Write general and corpus as the steps before left them.

    General text is never trained on by CPT. The steps know no question that people accepted, so
    documents that hold one of dev or test are left out here.
    """
    for kind in DOCUMENT_KINDS:
        rows = _documents_of(kind, documents, report)
        if of_adopted is not None:
            rows = _without_adopted(rows, kind, of_adopted, report)
        write_jsonl(out / f"{kind}.jsonl", rows)
    if names["general"]:
        way_out = f"or remove it to have {100 * held_out:.0f} % of corpus/ held out"
        _check_given("general", names["general"], report.kept["general"], report, way_out)
        return {**report.counts("general"), "source": "general/"}
    if report.kept["corpus"] > 1:
        _hold_out(out, held_out, seed, report)
    source = f"{100 * held_out:.0f} % of corpus, held out from CPT"
    return {**report.counts("general"), "source": source}


def _documents_of(kind: str, documents: Path, report: CurationReport) -> Iterator[dict[str, str]]:
    """Yield the documents of a kind, with the ids by which the steps know them."""
    for document in read_documents(documents):
        if document["kind"] == kind:
            report.kept[kind] += 1
            yield {name: document[name] for name in DOCUMENT_FIELDS}


def _held_out_of_adopted(adopted: Path | None) -> HeldOutQuestions | None:
    """Return the dev and test questions that people accepted; None where there are none."""
    if adopted is None:
        return None
    questions = HeldOutQuestions()
    for split in ("dev", "test"):
        for record in _adopted_questions(adopted, split):
            questions.add(f"qa/{split}", record["messages"])
    return questions


def _without_adopted(
    rows: Iterable[dict[str, str]],
    kind: str,
    of_adopted: HeldOutQuestions,
    report: CurationReport,
) -> Iterator[dict[str, str]]:
    """Yield the documents that hold no question that people accepted for dev or test."""
    for row in rows:
        if split := of_adopted.in_record(row):
            report.kept[kind] -= 1
            report.contaminated(kind, split)
        else:
            yield row


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


def _categories(
    scores: Path, settings: DialogueSettings
) -> Callable[[readers.SourcedDialogue], list[str]]:
    """Return what gives the categories of a dialogue: its labels, else its relevance or its place.

    Raises:
        ValueError: Relevance is asked for, and the domain has neither labels nor topics.
    """
    least = settings.min_relevance
    scorer = None
    if least is not None:
        if not (scores / relevance.SCORER).is_dir():
            raise ValueError(
                f"dialogue.min_relevance={least}: there is no scorer; give domain.topics or "
                "labels/, or set it to null"
            )
        scorer = relevance.load(scores / relevance.SCORER)

    def categories(dialogue: readers.SourcedDialogue) -> list[str]:
        labels = chat_formats.categories(dialogue.record)
        if labels:
            return labels
        if scorer is None or least is None:
            return [readers.place_category(dialogue)]
        text = "\n".join(turn["content"] for turn in dialogue.messages if turn["role"] != "system")
        return [RELEVANT if scorer.document(text) >= least else OTHER]

    return categories


def _dialogues(
    base: Path,
    names: list[str],
    settings: DialogueSettings,
    categories_of: Callable[[readers.SourcedDialogue], list[str]],
    questions: HeldOutQuestions,
    report: CurationReport,
    out: Path,
) -> dict[str, Any]:
    """Write the dialogues, and count them by category."""

    def wanted() -> Iterator[dict[str, Any]]:
        for dialogue in readers.dialogues(base, "dialogue", names, report):
            if reason := dialogue_filters.reason_to_drop(dialogue.messages, settings):
                report.drop("dialogue", reason)
            else:
                yield {"category": categories_of(dialogue), "messages": dialogue.messages}

    clean_rows = _decontaminated(wanted(), "dialogue", questions.in_record, report)
    counts: Counter[str] = Counter()

    def counted(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for record in records:
            counts.update(record["category"])
            yield record

    unique = _unique(clean_rows, "dialogue", lambda row: row["messages"], set(), report)
    write_jsonl(out / "dialogue.jsonl", counted(unique))
    way_out = "or remove it: Instruct and stage 1 are then refused"
    _check_given("dialogue", names, report.kept["dialogue"], report, way_out)
    return {**report.counts("dialogue"), "categories": dict(counts.most_common(MAX_LISTED))}


def _qa(
    base: Path,
    names: list[str],
    adopted: Path | None,
    split_one_in: int,
    seed: int,
    questions: HeldOutQuestions,
    report: CurationReport,
    out: Path,
) -> dict[str, Any]:
    """Write the questions, no question in two splits, and hold out those of test and dev.

    Test and dev keep their questions; train loses those it shares with them, and fills a missing
    split.
    """
    seen: set[str] = set()
    of_test = HeldOutQuestions()
    parts: dict[str, list[QuestionRecord]] = {}
    for split in ("test", "dev", "train"):
        held_out = questions if split == "train" else of_test
        rows = chain(_questions(base, split, names, report), _adopted_questions(adopted, split))
        clean_rows = _decontaminated(rows, "qa", held_out.in_record, report)
        unique = _unique(clean_rows, "qa", lambda row: row["messages"], seen, report)
        parts[split] = cast("list[QuestionRecord]", list(unique))
        if split == "test":
            _hold_out_questions("qa/test", parts[split], of_test)
        if split != "train":
            _hold_out_questions(f"qa/{split}", parts[split], questions)
    _check_splits(names, parts, report, split_one_in)
    missing = [split for split in ("dev", "test") if not parts[split]]
    parts |= splits.split(parts["train"], missing, seed, split_one_in)
    for split in missing:
        _hold_out_questions(f"qa/{split}", parts[split], questions)
    # A question that moved may also stand as a turn of a longer conversation.
    num_train = len(parts["train"])
    parts["train"] = list(_decontaminated(parts["train"], "qa", questions.in_record, report))
    report.kept["qa"] -= num_train - len(parts["train"])
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
        task = dialogue.record.get("task") or "qa"
        if task in ("qa", "report"):
            yield {"task": task, "messages": dialogue.messages}
        else:
            detail = task[:40] if isinstance(task, str) else ""
            reason = "the task is neither qa nor report"
            report.problem("qa", dialogue.file, dialogue.line, reason, detail)


def _adopted_questions(adopted: Path | None, split: str) -> Iterator[dict[str, Any]]:
    """Yield what people accepted for a split."""
    path = None if adopted is None else adopted / "qa" / f"{split}.jsonl"
    for record in read_jsonl(path) if path is not None else ():
        yield {name: record[name] for name in ("task", "messages", "annotation")}


def _hold_out_questions(
    split: str, records: Iterable[QuestionRecord], questions: HeldOutQuestions
) -> None:
    for record in records:
        questions.add(split, record["messages"])


def _check_splits(
    names: list[str],
    parts: dict[str, list[QuestionRecord]],
    report: CurationReport,
    split_one_in: int,
) -> None:
    """Check that no file was meant for a split that would be split off train instead."""
    for split in ("test", "dev"):
        way_out = f"or remove it to have one in {split_one_in} of the train questions split off"
        given = [name for name in names if _split_of(name) == split]
        _check_given("qa", given, len(parts[split]), report, way_out)
    unread = [name for name in names if _split_of(name) not in parts]
    for name in unread:
        report.problem("qa", name, 0, "not read: not qa/{train,dev,test}.jsonl")
    missing = [f"qa/{split}.jsonl" for split in QA_SPLITS if not parts[split]]
    misnamed = [name for name in unread if Path(name).suffix.lower() in DATA_SUFFIXES]
    if misnamed and missing:
        raise ValueError(
            f"{printable(misnamed[0])} is not read, and {' and '.join(missing)} is missing; "
            "name it as the split that it is, or move it out of qa/"
        )


def _split_of(name: str) -> str:
    """Return `train` for qa/train.jsonl; "" for a file in a subfolder."""
    path = Path(name)
    return path.stem if len(path.parts) == 2 else ""


def _exams(
    base: Path,
    names: list[str],
    questions: HeldOutQuestions,
    report: CurationReport,
    out: Path,
) -> dict[str, Any]:
    """Write every exam that can be scored, and hold out its questions.

    Scored are those that have test questions. None of these is its own worked example.
    """
    exams: dict[str, dict[str, Any]] = {}
    found = readers.questions(base, names, report)
    for name in sorted(found.keys() | _exams_given(names)):
        exam_splits = found.get(name, {"dev": [], "test": []})
        asked = HeldOutQuestions()
        for question in exam_splits["test"]:
            asked.add_exam("its own test", question)
            questions.add_exam(f"exam/{printable(name)}", question)
        examples = _decontaminated(exam_splits["dev"], "exam", asked.in_exam_example, report)
        num_examples = len(exam_splits["dev"])
        exam_splits["dev"] = list(examples)
        report.kept["exam"] -= num_examples - len(exam_splits["dev"])
        sizes = {split: len(questions) for split, questions in exam_splits.items()}
        if exam_splits["test"]:
            exam_files.write(out / "exam", name, exam_splits)
            exams[printable(name)] = sizes
        else:
            _check_given("exam", _exams_given(names).get(name, []), 0, report, "or remove it")
            note = "no val/ or test/ question: not scored"
            exams[printable(name)] = {**sizes, "note": note}
    return {**report.counts("exam"), "exams": exams}


def _exams_given(names: list[str]) -> dict[str, list[str]]:
    """Return the CSV files of each exam that are not its examples."""
    exams: dict[str, list[str]] = {}
    for name in names:
        _, folder, *others = Path(name).parts
        is_dev = "dev" in others or Path(name).stem.endswith("_dev")
        if Path(name).suffix.lower() == ".csv" and not is_dev:
            exams.setdefault(exam_files.exam_name(folder), []).append(name)
    return exams


def _check_given(
    kind: str, names: list[str], num_kept: int, report: CurationReport, way_out: str
) -> None:
    """Check that something is left of a part that the user gave.

    Args:
        kind: general, corpus, dialogue, qa or exam.
        names: the files of the part.
        num_kept: records of it that were kept.
        report: says why the others were not.
        way_out: what to do instead of repairing the files.
    """
    if not names or num_kept:
        return
    files = ", ".join(printable(name) for name in names[:3])
    problems = [problem for problem in report.problems if problem.startswith(printable(names[0]))]
    found = (problems or _reasons(kind, report) or ["no record"])[0]
    raise ValueError(
        f"{files}: given, but none of its records can be used ({found}); repair it, {way_out}"
    )


def _reasons(kind: str, report: CurationReport) -> list[str]:
    """Return why records of a kind were left out, each reason with its count."""
    return [f"{count} x {reason}" for reason, count in report.dropped[kind].items()]


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
            dropped = "".join(f"\n  {reason}" for reason in _reasons(kind, report)[:5])
            raise ValueError(
                f"no usable record under {root}/{kind} ({purpose}): expected {EXPECTED}"
                f"{problems}{dropped}"
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


def _decontaminated(
    rows: Iterable[Record],
    kind: str,
    held_out_in: Callable[[Record], str],
    report: CurationReport,
) -> Iterator[Record]:
    """Yield each row that holds no held-out question; `held_out_in` names the split of one."""
    for row in rows:
        if split := held_out_in(row):
            report.contaminated(kind, split)
        else:
            yield row


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
