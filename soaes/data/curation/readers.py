"""Read a user's files of one kind: dialogues, exam questions. Documents: soaes.data.readers.

Readers report what does not fit, and yield the rest; what becomes of a record is decided by
soaes.stages.curate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast

from soaes.data.curation import chat_formats, exam_files, parsing, sources
from soaes.data.curation.curation_report import CurationReport, printable
from soaes.data.curation.parsing import ParseError
from soaes.data.curation.text_cleaning import remove_control_tokens
from soaes.data.records import ExamQuestion, ExamSplits, Message

JSON_SUFFIXES = (".jsonl", ".json")
SPLITS = ("dev", "val", "test")
COLUMNS = ("question", "a", "b", "c", "d", "answer")


@dataclass(frozen=True)
class SourcedDialogue:
    """A dialogue, and where it stands."""

    file: str
    line: int
    record: dict[str, Any]  # as the user wrote it
    messages: list[Message]


class ExamFile(NamedTuple):
    """A file of exam questions."""

    exam: str
    split: str  # dev, val or test
    subject: str
    file: str


def dialogues(
    root: Path, kind: str, files: list[str], report: CurationReport
) -> Iterator[SourcedDialogue]:
    """Yield every record that is a dialogue."""
    for file in _readable(root, kind, files, JSON_SUFFIXES, report):
        for line, record in parsing.objects(root / file):
            if isinstance(record, ParseError):
                report.problem(kind, file, line, record.reason, record.detail)
                continue
            try:
                dialogue = chat_formats.messages(record)
            except chat_formats.RecordFormatError as error:
                report.problem(kind, file, line, error.reason, error.detail)
                continue
            report.markers[kind] += dialogue.num_removed
            report.unread[kind].update(dialogue.unread)
            if dialogue.moved_system:
                report.repaired[kind][
                    "an answer before the first question is the system prompt"
                ] += 1
            yield SourcedDialogue(file, line, record, dialogue.messages)


def place_category(dialogue: SourcedDialogue) -> str:
    """Return the folder's name below dialogue/, else the file's name without its suffix."""
    path = PurePosixPath(printable(dialogue.file))
    return path.parts[1] if len(path.parts) > 2 else path.stem


def questions(root: Path, files: list[str], report: CurationReport) -> dict[str, ExamSplits]:
    """Read exam questions.

    Where an exam has val/, it is used as the test split: C-Eval publishes no answers to its test
    questions.

    Returns:
        Exam -> split (dev, test) -> questions.
    """
    exams: dict[str, ExamSplits] = {}
    csv_files = _readable(root, "exam", files, (".csv",), report)
    for exam_file in _exam_files(csv_files, report):
        splits = exams.setdefault(exam_file.exam, {"dev": [], "test": []})
        split = "dev" if exam_file.split == "dev" else "test"
        splits[split] += _questions(root, exam_file.file, exam_file.subject, report)
    return exams


def _exam_files(files: Iterator[str], report: CurationReport) -> list[ExamFile]:
    """Return the files that are read; the split is a folder's name or the ending of the file's."""
    files_read = []
    for file in files:
        _, *folders, file_name = PurePosixPath(file).parts
        stem = PurePosixPath(file_name).stem
        subject, _, ending = stem.rpartition("_")
        parts = [part.lower() for part in (*folders[1:], ending)]
        splits = [part for part in parts if part in SPLITS]
        if not folders or not splits:
            report.problem("exam", file, 0, "not at exam/NAME/{dev,val,test}/SUBJECT.csv")
            continue
        if ending.lower() not in SPLITS or not subject:
            subject = stem
        files_read.append(ExamFile(exam_files.exam_name(folders[0]), splits[0], subject, file))

    exams_with_val = {exam_file.exam for exam_file in files_read if exam_file.split == "val"}
    scored_files = []
    for exam_file in files_read:
        if exam_file.split == "test" and exam_file.exam in exams_with_val:
            reason = "not read: val/ is scored where an exam has it"
            report.problem("exam", exam_file.file, 0, reason)
        else:
            scored_files.append(exam_file)
    return scored_files


def _questions(
    root: Path, file: str, subject: str, report: CurationReport
) -> Iterator[ExamQuestion]:
    for line, row in parsing.table(root / file):
        if isinstance(row, ParseError):
            report.problem("exam", file, line, row.reason, row.detail)
            continue
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            report.problem("exam", file, 1, "no column " + ", ".join(missing))
            return  # the same holds for every row
        others = {name for name in row if name not in (*COLUMNS, "id", "")}
        report.unread["exam"].update(name for name in others if row[name].strip())
        cells: dict[str, str] = {}
        for column in COLUMNS:
            cells[column], num_removed = remove_control_tokens(row[column])
            report.markers["exam"] += num_removed
        answer = cells["answer"].strip().upper()
        if not all(cells[column].strip() for column in COLUMNS[:-1]):
            report.problem("exam", file, line, "empty question or option")
        elif answer not in ("A", "B", "C", "D"):
            detail = repr(answer)[:20]
            report.problem("exam", file, line, "the answer is none of A, B, C, D", detail)
        else:
            report.kept["exam"] += 1
            yield {
                "subject": printable(subject),
                "question": cells["question"],
                "A": cells["a"],
                "B": cells["b"],
                "C": cells["c"],
                "D": cells["d"],
                "answer": cast(Literal["A", "B", "C", "D"], answer),
            }


def _readable(
    root: Path, kind: str, files: list[str], suffixes: tuple[str, ...], report: CurationReport
) -> Iterator[str]:
    """Yield the files that have one of the suffixes and may be opened, and report the others."""
    for file in files:
        reason, detail = sources.refusal(root, file)
        if reason:
            report.problem(kind, file, 0, reason, detail)
        elif _suffix(file) not in suffixes:
            detail = f"{kind}/ reads {', '.join(suffixes)}"
            report.problem(kind, file, 0, "file type not read", detail)
        else:
            report.files[kind] += 1
            yield file


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()
