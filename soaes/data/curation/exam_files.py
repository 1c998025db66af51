"""Exams on disk, in the layouts of the two published benchmarks.

    exam/cmmlu/test/SUBJECT.csv         ,Question,A,B,C,D,Answer
    exam/ceval/val/SUBJECT_val.csv      id,question,A,B,C,D,answer

C-Eval's layout is used for the exam `ceval`, CMMLU's for every other. C-Eval's val split is scored,
because it publishes no answers to its test split. This module reads only files that `write` wrote;
a user's own are read and checked by soaes.data.curation.readers.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from soaes.data.records import ExamQuestion, ExamSplits

COLUMNS = ("question", "A", "B", "C", "D", "answer")
PUBLISHED = ("cmmlu", "ceval")


def exam_name(folder: str) -> str:
    """Return the name of an exam; `CEval` and `C-Eval` are `ceval`."""
    plain = re.sub(r"[^a-z0-9]", "", folder.lower())
    return plain if plain in PUBLISHED else folder


def write(folder: Path, exam: str, splits: ExamSplits) -> None:
    """Write an exam, a file per split and subject.

    Args:
        folder: the folder of all exams.
        exam: name of the exam.
        splits: questions of the splits `dev` and `test`.
    """
    for split, questions in splits.items():
        for subject, rows in _by_subject(questions).items():
            path, header = _layout(folder, exam, split, subject)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", newline="", encoding="utf-8") as handle:
                writer = csv.writer(handle)
                writer.writerow(header)
                for index, question in enumerate(rows):
                    cells = cast("dict[str, str]", question)
                    writer.writerow([index, *(cells[column] for column in COLUMNS)])


def read(folder: Path) -> dict[str, ExamSplits]:
    """Read every exam that has test questions.

    Returns:
        Exam -> split (dev, test) -> questions.
    """
    exams: dict[str, ExamSplits] = {}
    for path in sorted(folder.glob("*/*/*.csv")):
        exam, split = path.parts[-3], path.parts[-2]
        subject = path.stem.removesuffix(f"_{split}") if exam == "ceval" else path.stem
        with open(path, newline="", encoding="utf-8") as handle:
            _, *rows = csv.reader(handle)
        splits = exams.setdefault(exam, {"dev": [], "test": []})
        questions = splits["dev" if split == "dev" else "test"]
        for _, *cells in rows:
            question = {"subject": subject, **dict(zip(COLUMNS, cells))}
            questions.append(cast(ExamQuestion, question))
    return {exam: splits for exam, splits in exams.items() if splits["test"]}


def _layout(folder: Path, exam: str, split: str, subject: str) -> tuple[Path, list[str]]:
    """Return the path and the header of a file."""
    if exam != "ceval":
        path = folder / exam / split / f"{subject}.csv"
        return path, ["", "Question", *"ABCD", "Answer"]
    if split == "test":
        split = "val"
    path = folder / exam / split / f"{subject}_{split}.csv"
    return path, ["id", "question", *"ABCD", "answer"]


def _by_subject(questions: Iterable[ExamQuestion]) -> dict[str, list[ExamQuestion]]:
    subjects: dict[str, list[ExamQuestion]] = defaultdict(list)
    for question in questions:
        subjects[question["subject"]].append(question)
    return subjects
