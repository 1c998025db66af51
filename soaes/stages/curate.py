"""Curate: from what a user has to the one data folder that every later stage reads.

Knows which files make the folder; how a file is read stands in soaes.data.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from soaes.data import splits
from soaes.data.curation import exam_files, readers, sources
from soaes.data.curation.curation_report import CurationReport, shown
from soaes.data.jsonl import write_jsonl

HELD_OUT = 0.2
EXPECTED = (
    "corpus/**.{txt,md,jsonl} and qa/{train,dev,test}.jsonl, and if there are any general/**.{txt,md,jsonl}, "
    "dialogue/**.{json,jsonl}, exam/NAME/{dev,test}/SUBJECT.csv"
)


def files(digest: str, *, root: str, seed: int, out: Path) -> None:
    """Read a user's folder; `digest` is the content that the recipe stands for.

    Writes general, corpus, dialogue and qa/ as JSON lines, exam/ as CSV, and curation_report.json: what was kept, what was dropped
    and why. A broken file or line is named there and does not stop the rest.
    """
    if (now := sources.digest(root)) != digest:
        raise ValueError(
            f"the data under {root} changed since it was planned ({digest[:12]}, now {now[:12]}); run again"
        )
    names, account, base = sources.listing(root), CurationReport(), Path(root)
    out.mkdir(parents=True, exist_ok=True)
    texts = _documents(base, names, seed, account, out)
    _dialogues(base, names["dialogue"], account, out)
    pairs = _qa(base, names["qa"], seed, account, out)
    exams = _exams(base, names["exam"], account, out)
    _require(root, account, pairs)
    parts = {"general": texts, "corpus": account.of("corpus"), "dialogue": account.of("dialogue")}
    summary = {**parts, "qa": pairs, "exam": exams, **account.summary()}
    (out / "curation_report.json").write_text(
        json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8"
    )
    counts = {"problems": account.total, **{kind: account.kept[kind] for kind in sources.KINDS}}
    (out / "metrics.json").write_text(
        json.dumps(counts)
    )  # the headline of the stage, in the terminal and in W&B


def _documents(base: Path, names: dict, seed: int, account: CurationReport, out: Path) -> dict:
    """Both kinds without duplicates, within and across them; general text is never trained on."""
    seen: set[str] = set()
    for kind in ("general", "corpus"):
        found = readers.documents(base, kind, names[kind], account)
        write_jsonl(
            out / f"{kind}.jsonl", _unique(found, kind, lambda row: row["text"], seen, account)
        )
    if account.kept["general"]:
        return account.of("general") | {"source": "general/"}
    if account.kept["corpus"] > 1:
        _hold_out(out, seed, account)
    return account.of("general") | {
        "source": f"{HELD_OUT:.0%} of corpus, held out from CPT".replace("%", " %")
    }


def _hold_out(out: Path, seed: int, account: CurationReport) -> None:
    """Move a share of corpus.jsonl to general.jsonl, line by line: a corpus may be larger than memory."""
    whole = (out / "corpus.jsonl").replace(out / "whole.jsonl")
    moved = splits.held_out([row["id"] for row in _read(whole)], HELD_OUT, seed)
    write_jsonl(out / "general.jsonl", (row for row in _read(whole) if row["id"] in moved))
    write_jsonl(out / "corpus.jsonl", (row for row in _read(whole) if row["id"] not in moved))
    whole.unlink()
    account.kept["general"] = len(moved)
    account.kept["corpus"] -= len(moved)


def _dialogues(base: Path, names: list[str], account: CurationReport, out: Path) -> None:
    rows = (
        {"category": readers.category(name, record), "messages": messages}
        for name, _, record, messages in readers.dialogues(base, "dialogue", names, account)
    )
    write_jsonl(
        out / "dialogue.jsonl",
        _unique(rows, "dialogue", lambda row: row["messages"], set(), account),
    )


def _qa(base: Path, names: list[str], seed: int, account: CurationReport, out: Path) -> dict:
    """Test and dev keep their questions, train gives up what it shares with them, and fills a missing split."""
    seen: set[str] = set()
    owner: dict[str, str] = {}
    parts = {}
    for part in ("test", "dev", "train"):
        rows = _apart(_pairs(base, part, names, account), part, owner, account)
        parts[part] = list(_unique(rows, "qa", lambda row: row["messages"], seen, account))
    for name in names:
        if _part(name) not in parts:
            account.fault("qa", name, 0, "not read: not qa/{train,dev,test}.jsonl")
    missing = [part for part in ("dev", "test") if not parts[part]]
    parts |= splits.split(parts["train"], missing, seed)
    for part, rows in parts.items():
        write_jsonl(out / "qa" / f"{part}.jsonl", rows)
    source = (
        f"{' and '.join(missing)}: a tenth of the train questions each" if missing else "as given"
    )
    return (
        account.of("qa")
        | {part: len(parts[part]) for part in ("train", "dev", "test")}
        | {"source": source}
    )


def _pairs(base: Path, part: str, names: list[str], account: CurationReport) -> Iterator[dict]:
    files = [name for name in names if _part(name) == part]
    for name, line, record, messages in readers.dialogues(base, "qa", files, account):
        task = record.get("task", "qa")
        if task in ("qa", "report"):
            yield {"task": task, "messages": messages}
        else:
            account.fault(
                "qa",
                name,
                line,
                "the task is neither qa nor report",
                task[:40] if isinstance(task, str) else "",
            )


def _apart(
    rows: Iterable[dict], part: str, owner: dict[str, str], account: CurationReport
) -> Iterator[dict]:
    for row in rows:
        if (first := owner.setdefault(splits.question(row["messages"]), part)) == part:
            yield row
        else:
            account.drop("qa", f"question of {part} is also in {first}")


def _part(name: str) -> str:
    path = Path(name)
    return path.stem if len(path.parts) == 2 else ""


def _exams(base: Path, names: list[str], account: CurationReport, out: Path) -> dict:
    """An exam without test questions cannot be scored: it is not written."""
    counts = {}
    for exam, parts in readers.questions(base, names, account).items():
        counts[shown(exam)] = {part: len(rows) for part, rows in parts.items()}
        if not parts["test"]:
            counts[shown(exam)]["note"] = "no val/ or test/ question: not scored"
            continue
        exam_files.write(out / "exam", exam, parts)
    return account.of("exam") | {"exams": counts}


def _require(root: str, account: CurationReport, pairs: dict) -> None:
    """What no chain can do without; the rest may be missing, and curation_report.json says so."""
    faults = "".join(f"\n  {problem}" for problem in account.problems[:5])
    if not sum(account.kept.values()):
        raise ValueError(
            f"no usable file under {root}: expected {EXPECTED}; lay it out so, or use the world{faults}"
        )
    for kind, need in (
        ("corpus", "documents to pre-train on"),
        ("qa", "questions with answers to fine-tune on"),
    ):
        if not account.kept[kind]:
            raise ValueError(
                f"no usable record under {root}/{kind} ({need}): expected {EXPECTED}{faults}"
            )
    if not account.kept["general"]:
        raise ValueError(
            f"{root}/corpus has 1 document, general text is held out from at least 2: add some, or general/"
        )
    if not all(pairs[part] for part in ("train", "dev", "test")):
        counts = ", ".join(f"{part} {pairs[part]}" for part in ("train", "dev", "test"))
        raise ValueError(
            f"{root}/qa has too few questions for three splits ({counts}): give qa/train.jsonl at least 3"
        )


def _unique(
    rows: Iterable[dict], kind: str, content: Callable, seen: set[str], account: CurationReport
) -> Iterator[dict]:
    """Rows with an id made of their content, each content once."""
    for row in rows:
        identifier = hashlib.sha256(
            json.dumps(content(row), ensure_ascii=False).encode()
        ).hexdigest()[:16]
        if identifier in seen:
            account.drop(kind, "exact duplicate")
        else:
            seen.add(identifier)
            account.kept[kind] += 1
            yield {"id": identifier, **row}


def _read(path: Path) -> Iterator[dict]:
    """Line by line."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
