"""Exams on disk, in the layouts that the two benchmarks are published in: C-Eval's for ceval, CMMLU's for every other.

    exam/cmmlu/test/SUBJECT.csv         ,Question,A,B,C,D,Answer
    exam/ceval/val/SUBJECT_val.csv      id,question,A,B,C,D,answer     (val is scored: C-Eval publishes no answers to its test)

Knows files of ours only; a user's own are read, and judged, by `gather`."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

Questions = dict[
    str, list[dict[str, str]]
]  # split (dev, test) -> {"subject", "question", "A" .. "D", "answer"}


def write(folder: Path, exam: str, splits: Questions) -> None:
    for split, questions in splits.items():
        for subject, rows in _by_subject(questions).items():
            path, header = _place(folder, exam, split, subject)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "w", newline="", encoding="utf-8") as handle:
                cells = [
                    [row["question"], *(row[letter] for letter in "ABCD"), row["answer"]]
                    for row in rows
                ]
                csv.writer(handle).writerows(
                    [header, *([at, *row] for at, row in enumerate(cells))]
                )


def read(folder: Path) -> dict[str, Questions]:
    """Exam -> split -> questions, for every exam that has test questions."""
    found: dict[str, Questions] = {}
    for path in sorted(folder.glob("*/*/*.csv")):
        exam, split = path.parts[-3], path.parts[-2]
        with open(path, newline="", encoding="utf-8") as handle:
            _, *rows = csv.reader(handle)
        subject = path.stem.removesuffix(f"_{split}") if exam == "ceval" else path.stem
        names = ("question", "A", "B", "C", "D", "answer")
        questions = [{"subject": subject, **dict(zip(names, row[1:]))} for row in rows]
        found.setdefault(exam, {"dev": [], "test": []})["dev" if split == "dev" else "test"] += (
            questions
        )
    return {exam: splits for exam, splits in found.items() if splits["test"]}


def _place(folder: Path, exam: str, split: str, subject: str) -> tuple[Path, list[str]]:
    if exam != "ceval":
        return folder / exam / split / f"{subject}.csv", ["", "Question", *"ABCD", "Answer"]
    split = "val" if split == "test" else split
    return folder / exam / split / f"{subject}_{split}.csv", ["id", "question", *"ABCD", "answer"]


def _by_subject(questions: Iterable[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    subjects = defaultdict(list)
    for question in questions:
        subjects[question["subject"]].append(question)
    return subjects
