"""Read a user's files kind by kind: documents, dialogues, exam questions.

Knows where a record stands and books what does not fit; not what becomes of a record.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from soaes.data.curation import chat_formats, parsing
from soaes.data.curation.curation_report import CurationReport, shown
from soaes.data.curation.text_cleaning import clean, defuse

SHORTEST = 20  # characters of a document
PLAIN, JSON = (".txt", ".md"), (".jsonl", ".json")
SPLITS = ("dev", "val", "test")
COLUMNS = ("question", "a", "b", "c", "d", "answer")


def documents(root: Path, kind: str, names: list[str], account: CurationReport) -> Iterator[dict]:
    """{"text", "source"} of every document that is long enough, cleaned."""
    for name in _readable(kind, names, (*PLAIN, *JSON), account):
        plain = _suffix(name) in PLAIN
        for line, value in [parsing.text(root / name)] if plain else parsing.objects(root / name):
            text = value if plain else _field(value)
            if isinstance(text, parsing.ParseError):
                account.fault(kind, name, line, *text)
                continue
            text, markers = clean(text)
            account.markers[kind] += markers
            if len(text) < SHORTEST:
                account.drop(kind, f"shorter than {SHORTEST} characters")
            else:
                yield {"text": text, "source": shown(name) if plain else f"{shown(name)}:{line}"}


def dialogues(
    root: Path, kind: str, names: list[str], account: CurationReport
) -> Iterator[tuple[str, int, dict, list[dict]]]:
    """(file, line, record, messages) of every record that is a dialogue."""
    for name in _readable(kind, names, JSON, account):
        for line, record in parsing.objects(root / name):
            try:
                if isinstance(record, parsing.ParseError):
                    raise chat_formats.RecordFormatError(*record)
                messages, markers = chat_formats.messages(record)
            except chat_formats.RecordFormatError as misfit:
                account.fault(kind, name, line, *misfit.args)
                continue
            account.markers[kind] += markers
            yield name, line, record, messages


def category(name: str, record: dict) -> str:
    """The record's own, else the folder below dialogue/, else the file's name without its ending."""
    path = PurePosixPath(shown(name))
    return chat_formats.category(record) or (path.parts[1] if len(path.parts) > 2 else path.stem)


def questions(
    root: Path, names: list[str], account: CurationReport
) -> dict[str, dict[str, list[dict]]]:
    """exam -> dev or test -> questions.

    Where an exam has val/, that is its test: C-Eval publishes no answers to its test questions.
    """
    exams: dict[str, dict[str, list[dict]]] = {}
    for exam, split, subject, name in _placed(
        _readable("exam", names, (".csv",), account), account
    ):
        rows = exams.setdefault(exam, {"dev": [], "test": []})["dev" if split == "dev" else "test"]
        rows += _questions(root, name, subject, account)
    return exams


def _placed(names: Iterator[str], account: CurationReport) -> list[tuple[str, str, str, str]]:
    """(exam, split, subject, file): the split is a folder's name, or the ending of the file's."""
    placed = []
    for name in names:
        _, *folders, file = PurePosixPath(name).parts
        stem, _, ending = PurePosixPath(file).stem.rpartition("_")
        splits = [part for part in (*folders[1:], ending) if part in SPLITS]
        if not folders or not splits:
            account.fault("exam", name, 0, "not at exam/NAME/{dev,val,test}/SUBJECT.csv")
            continue
        placed.append(
            (
                folders[0],
                splits[0],
                stem if ending in SPLITS and stem else PurePosixPath(file).stem,
                name,
            )
        )
    with_val = {exam for exam, split, *_ in placed if split == "val"}
    for exam, split, _, name in placed:
        if split == "test" and exam in with_val:
            account.fault("exam", name, 0, "not read: val/ is scored where an exam has it")
    return [row for row in placed if row[1] != "test" or row[0] not in with_val]


def _questions(root: Path, name: str, subject: str, account: CurationReport) -> Iterator[dict]:
    for line, row in parsing.table(root / name):
        if isinstance(row, parsing.ParseError):
            account.fault("exam", name, line, *row)
            continue
        if missing := [column for column in COLUMNS if column not in row]:
            account.fault("exam", name, 1, "no column " + ", ".join(missing))
            return  # the same holds for every row
        cells = {column: defuse(row[column]) for column in COLUMNS}
        account.markers["exam"] += sum(markers for _, markers in cells.values())
        question = {column: text for column, (text, _) in cells.items()}
        question["answer"] = question["answer"].strip().upper()
        if not all(question[column].strip() for column in COLUMNS[:-1]):
            account.fault("exam", name, line, "empty question or option")
        elif question["answer"] not in ("A", "B", "C", "D"):
            account.fault(
                "exam",
                name,
                line,
                "the answer is none of A, B, C, D",
                repr(question["answer"])[:20],
            )
        else:
            account.kept["exam"] += 1
            letters = {column.upper(): question[column] for column in "abcd"}
            yield {
                "subject": shown(subject),
                "question": question["question"],
                **letters,
                "answer": question["answer"],
            }


def _readable(
    kind: str, names: list[str], suffixes: tuple[str, ...], account: CurationReport
) -> Iterator[str]:
    for name in names:
        if _suffix(name) in suffixes:
            account.files[kind] += 1
            yield name
        else:
            account.fault(
                kind, name, 0, "file type not read", f"{kind}/ reads {', '.join(suffixes)}"
            )


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _field(value: dict | parsing.ParseError) -> str | parsing.ParseError:
    """The text of a JSON record."""
    if isinstance(value, parsing.ParseError):
        return value
    text = value.get("text", value.get("content"))
    return (
        text
        if isinstance(text, str)
        else parsing.ParseError("no text or content field", ", ".join(value)[:80])
    )
