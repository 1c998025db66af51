"""Review questions, labels and near-duplicates in a browser, and export what people decided.

    python -m soaes.review store/screen-1a2b3c                    the page, for one person
    python -m soaes.review DATA --reviewer li --reviewer wang     for two; each gets an address
    python -m soaes.review DATA --export FOLDER                   items.jsonl and decisions.jsonl

DATA is a folder with items.jsonl, or an export, whose decisions are brought in. Decisions lie in
reviews/NAME.sqlite of the working folder (--database), never in DATA. The page answers this machine
alone; from another one, `ssh -L 8137:127.0.0.1:8137 HOST` leads to it. Ctrl-C ends it, and the same
command goes on. Loads no model and imports no torch.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from soaes.data.annotation.item import ITEMS, RUBRIC
from soaes.data.annotation.reviews import PLACES
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.store import check_writable
from soaes.review.database import Database
from soaes.review.export import export, load, settings_of
from soaes.review.plan import ReviewSettings
from soaes.review.service import Service

PORT = 8137
FOLDER = Path("reviews")
SETTINGS = ("twice", "limit", "lease")


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    arguments = _parser().parse_args()
    with one_line_errors():
        _run(arguments)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    defaults = ReviewSettings()
    parser = argparse.ArgumentParser(prog="python -m soaes.review", description=summary)
    parser.add_argument("data", type=Path, help=f"a folder with {ITEMS}")
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help=f"{FOLDER}/NAME.sqlite by default"
    )
    parser.add_argument(
        "--reviewer",
        action="append",
        default=[],
        metavar="NAME",
        help="who reviews; repeat it for several, by default the login name",
    )
    parser.add_argument(
        "--twice",
        type=float,
        metavar="SHARE",
        help=f"share of the items that are decided on twice, blindly ({defaults.twice})",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="SHARE",
        help="training questions are read until at most this share of the rest can be wrong, "
        f"with 95 %% confidence ({defaults.limit}; 0 reads them all)",
    )
    parser.add_argument(
        "--lease",
        type=float,
        metavar="MINUTES",
        help=f"for how long an item is kept for whoever has it on the screen ({defaults.lease:g})",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT}; 0 takes a free one")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write an export, and end")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    data = arguments.data
    if not (data / ITEMS).is_file():
        raise ValueError(
            f"{data}: no folder with {ITEMS}; name the output of `screen`, or an export"
        )
    path = arguments.database or FOLDER / f"{data.resolve().name}.sqlite"
    _check_outside(path, data, "--database", "FILE")
    if arguments.export:
        _check_outside(arguments.export / ITEMS, data, "--export", "FOLDER")
    check_writable(path.parent, "name another file by --database FILE")
    database = _open(path, data, arguments)
    try:
        _load(database, data)
        if arguments.export:
            _export(database, arguments.export)
        else:
            _serve(database, data, arguments)
    except sqlite3.Error as error:
        raise ValueError(f"{path}: {error}; what was acknowledged is kept") from None
    finally:
        database.close()


def _check_outside(path: Path, data: Path, option: str, word: str) -> None:
    """Refuse a file in DATA or, where DATA is an output of a store, anywhere in that store."""
    data = data.resolve()
    guarded = data.parent if (data / "manifest.json").exists() else data
    if guarded in path.resolve().parents:
        raise ValueError(
            f"{option} {path}: lies in {guarded}, where nothing may change; "
            f"set {option} {word} to another place"
        )


def _open(path: Path, data: Path, arguments: argparse.Namespace) -> Database:
    """Open the review, with the settings of the command line, the file, the export, or defaults."""
    database = Database(path)
    known: dict[str, Any] = database.get("settings") or settings_of(data)
    given = {name: getattr(arguments, name) for name in SETTINGS}
    chosen = {name: value for name, value in given.items() if value is not None}
    database.use(ReviewSettings(**{**known, **chosen}))
    return database


def _load(database: Database, data: Path) -> None:
    changes, num_decisions = load(database, data)
    print(f"{changes.items:,} items of {data}, {changes.new:,} of them new")
    if changes.missing:
        print(
            f"{changes.missing:,} items are no longer in it: they are given to nobody, and their "
            "decisions are kept but not exported"
        )
    if num_decisions:
        print(f"{num_decisions:,} decisions brought in")
    print(f"decisions are kept in {database.path}")


def _export(database: Database, folder: Path) -> None:
    counts = export(database, folder)
    left_out = database.num_left_out()
    remark = f"; {left_out:,} on items that are no longer in DATA are left out" if left_out else ""
    print(f"{folder}: {counts['items']:,} items, {counts['decisions']:,} decisions{remark}")
    for kind, number in counts["items_by_kind"].items():
        others = {place for place in PLACES.values() if place != PLACES[kind]}
        if others.intersection(folder.parts) and PLACES[kind] not in folder.parts:
            print(
                f"{number:,} of the items are of kind {kind}, which nobody reads here: export them "
                f"to a folder below {PLACES[kind]}/ of your data"
            )


def _serve(database: Database, data: Path, arguments: argparse.Namespace) -> None:
    names = arguments.reviewer or database.reviewers() or [_login_name()]
    title = data.resolve().name
    service = Service(database, names, arguments.port, title, _announce, _rubric(data))
    print("each address opens one browser; Ctrl-C ends, and the same command goes on", flush=True)
    with suppress(KeyboardInterrupt):
        service.run()
    database_option = f" --database {arguments.database}" if arguments.database else ""
    command = f"python -m soaes.review {data}{database_option} --export FOLDER"
    print(f"\nended; `{command}` writes what was decided")


def _rubric(data: Path) -> str:
    """Return by what people decide on the items of a folder; "" where it does not say."""
    path = data / RUBRIC
    if not path.is_file():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8; save it in that encoding") from None


def _announce(reviewer: str, address: str) -> None:
    print(f"{reviewer}: {address}", flush=True)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


if __name__ == "__main__":
    main()
