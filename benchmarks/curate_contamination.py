"""Decontamination: exam questions planted in real texts under disguises, and texts without any."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from benchmarks.rounds import row
from soaes.data.curation import ngrams
from soaes.data.curation.decontamination import SURE_CHARS, HeldOutQuestions
from soaes.data.records import LETTERS, ExamQuestion

AROUND = 400  # characters of the text before and after a planted question
MARKS = '，。？！、；：,.?!;:（）()“”"_'
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def results(corpus: Path, exam: Path) -> list[dict[str, Any]]:
    """Measure the share of planted questions that are found, and the texts that are flagged.

    Args:
        corpus: A folder with texts in Markdown and plain text, of which none holds a question.
        exam: A folder with exams as CSV files (question, A, B, C, D).
    """
    paths = sorted(path for path in corpus.rglob("*") if path.suffix in (".md", ".txt"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    exams = _questions(exam)
    held_out = HeldOutQuestions()
    for question in exams:
        held_out.add_exam("exam", question)
    flagged = sum(bool(held_out.in_text(text)) for text in texts)
    label = f"flagged of {len(texts)} texts without a question"
    rows = [row(label, "texts", [flagged], 0.0, "lower")]
    sure = [question for question in exams if len(_letters(question["question"])) >= SURE_CHARS]
    for name, disguise in DISGUISES.items():
        generator = random.Random(name)
        found = 0
        for question in sure:
            text = generator.choice(texts)
            cut = text.find("\n", generator.randrange(len(text)))
            before, after = text[max(0, cut - AROUND) : cut], text[cut : cut + AROUND]
            found += bool(held_out.in_text(f"{before}\n{disguise(question, generator)}\n{after}"))
        share = 100 * found / len(sure)
        rows.append(row(f"{len(sure)} planted questions, {name}: found", "%", [share], 99.0))
    return rows


def _block(question: ExamQuestion, order: str = LETTERS) -> str:
    cells = cast("dict[str, str]", question)
    options = [f"{letter}. {cells[option]}" for letter, option in zip(LETTERS, order)]
    return "\n".join([question["question"], *options])


def _other_marks(question: ExamQuestion, generator: random.Random) -> str:
    text = _block(question)
    return "".join(
        generator.choice(("", " ", "，", "...", "—")) if character in MARKS else character
        for character in text
    )


Disguise = Callable[[ExamQuestion, random.Random], str]
DISGUISES: dict[str, Disguise] = {
    "as it is": lambda question, _: _block(question),
    "other punctuation": _other_marks,
    "spaces everywhere": lambda question, _: " ".join(_block(question)),
    "full width": lambda question, _: _block(question).translate(FULL_WIDTH),
    "options in another order": lambda question, _: _block(question, "DBAC"),
    "lines of nine": lambda question, _: re.sub("(.{9})", r"\1\n", _block(question)),
    "without options": lambda question, _: f"**问：{question['question']}** 答：见教材。",
}


def _letters(text: str) -> str:
    return ngrams.text_of(ngrams.folded(text))


def _questions(folder: Path) -> list[ExamQuestion]:
    questions = []
    for path in sorted(folder.rglob("*.csv")):
        with open(path, newline="", encoding="utf-8-sig") as handle:
            for cells in csv.DictReader(handle):
                record = {str(name).strip().lower(): cell for name, cell in cells.items()}
                if record.get("question") and record.get("d"):
                    options = {letter: record[letter.lower()] for letter in LETTERS}
                    question = {"question": record["question"], "subject": path.stem, **options}
                    questions.append(cast(ExamQuestion, question))
    return questions
