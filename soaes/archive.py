"""Results without models: what tables and their page read of a store, in one file.

    python -m soaes.archive scale=tiny seed=0,1,2 --out a.tar.xz       pack the rows that are built
    python -m soaes.archive a.tar.xz b.tar.xz --into FOLDER            unpack into one folder
    python -m soaes.table scale=tiny seed=0,1,2 runtime.store=FOLDER   read it, as any store

So rows that several machines measured become one table, further seeds join those of a published
table, and its answers can be looked into without training anything. Nothing is built in FOLDER.
"""

from __future__ import annotations

import argparse
import io
import lzma
import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from soaes.metrics.schema import PREDICTIONS
from soaes.pipeline import conf_folders
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import (
    RESULTS_ONLY,
    STAGE,
    Store,
    atomic_write,
    check_writable,
    format_bytes,
    write_text,
)
from soaes.report import table_spec
from soaes.report.results import existing_store_of, row_recipes

# What is packed of a stage: how it was made, what it measured, and the shape of its model.
FILES = (
    "recipe.yaml",
    "manifest.json",
    "metrics.json",
    PREDICTIONS,
    "curves.jsonl",
    "config.json",
    "packing_report.json",
    "curation_report.json",
)
# What a stage measured; of a recipe that was built twice it can differ.
MEASURED = ("metrics.json", PREDICTIONS)
# Answers of one seed repeat their questions and references: xz finds repetitions within 64 MB.
PRESET: Final = 9


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    arguments = _parser().parse_args()
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        if (arguments.out is None) == (arguments.into is None):
            raise ValueError("one of --out FILE, to pack, and --into FOLDER, to unpack")
        if arguments.out is not None:
            print(pack(arguments.words, arguments.out))
        else:
            print(unpack([Path(word) for word in arguments.words], arguments.into))


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.archive", description=summary)
    parser.add_argument(
        "words",
        nargs="*",
        help="with --out: overrides as given to soaes.run; with --into: archives",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="pack the rows into this file")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="unpack archives into it")
    conf_folders.add_option(parser)
    return parser


# ---------------------------------------------------------------- packing


def pack(overrides: list[str], out: Path) -> str:
    """Pack the results of all tables' rows that are built.

    Equal results give equal bytes.

    Args:
        overrides: The command line of the sweeps.
        out: The file, tar compressed by xz.

    Returns:
        A line that says what was packed.

    Raises:
        ValueError: There is no such store, nothing is built, or `out` cannot be written.
    """
    store = existing_store_of(overrides)
    goals = _goals(overrides)
    built = [goal for goal in goals.values() if store.holds(goal.name)]
    if not built:
        raise ValueError(
            f"{store.root}: no row of any table is built; run soaes.run with the same words"
        )
    names = [name for goal in built for name in goal.ancestry() if store.holds(name)]
    check_writable(out.absolute().parent, "set --out FILE, where the results are written to")
    with atomic_write(out) as handle:
        with tarfile.open(fileobj=handle, mode="w:xz", preset=PRESET) as archive:
            for name in dict.fromkeys(names):
                _add(archive, store, name)
    size = format_bytes(out.stat().st_size)
    return f"{out}: {len(built)} of {len(goals)} rows, {len(set(names))} stages, {size}"


def _goals(overrides: list[str]) -> dict[str, Recipe]:
    """Return what the rows of all tables are read from, seed by seed, by name."""
    of_seeds: dict[int, dict[str, Recipe]] = {}
    for table in table_spec.table_names():
        spec = table_spec.load(table)
        for key, row in spec.rows.items():
            for seed, goals in row_recipes(key, row, overrides, spec.few_seeds).items():
                of_seeds.setdefault(seed, {}).update((goal.name, goal) for goal in goals.values())
    return {name: goal for seed in sorted(of_seeds) for name, goal in of_seeds[seed].items()}


def _add(archive: tarfile.TarFile, store: Store, name: str) -> None:
    for file in FILES:
        path = store.folder(name) / file
        if not path.exists():
            continue
        content = path.read_bytes()
        entry = tarfile.TarInfo(f"{name}/{file}")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


# ---------------------------------------------------------------- unpacking


def unpack(archives: list[Path], folder: Path) -> str:
    """Unpack archives into one folder, which tables read as a store.

    A stage that is there already stays as it is. Of a recipe that was built twice, on two machines
    for instance, the first result counts, and it is said.

    Args:
        archives: Files that `pack` wrote.
        folder: Empty, missing, or a folder of earlier archives.

    Returns:
        A line that says what was unpacked.

    Raises:
        ValueError: No archive is given, one is damaged or holds something else, or the folder is a
            store in which stages were built.
    """
    if not archives:
        raise ValueError("name the archives before --into FOLDER")
    for path in archives:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
    check_writable(folder, "set --into FOLDER, where the results are unpacked")
    store = Store(folder)
    if store.all_names() and not (folder / RESULTS_ONLY).exists():
        raise ValueError(f"{folder}: stages were built in it; unpack into a folder of its own")
    write_text(folder / RESULTS_ONLY, "Unpacked by soaes.archive: results without models.\n")
    num_new = 0
    known: list[str] = []
    differing: list[str] = []
    for path in archives:
        with TemporaryDirectory(dir=folder, prefix=".archive-") as scratch:
            for name in _extract(path, Path(scratch)):
                if not store.holds(name):
                    shutil.move(Path(scratch) / name, store.folder(name))
                    num_new += 1
                    continue
                known.append(name)
                if _measured(Path(scratch) / name) != _measured(store.folder(name)):
                    differing.append(name)
    said = f"{folder}: {num_new} stages"
    if known:
        said += f", {len(known)} were there"
    if differing:
        said += f"; {len(differing)} of them with other results, such as {differing[0]}: the first "
        said += "ones count"
    return said


def _measured(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / file for file in MEASURED) if path.exists()]


def _extract(path: Path, folder: Path) -> list[str]:
    """Extract an archive, and return the names of its stages.

    Raises:
        ValueError: It is damaged, or holds something else than files of stages.
    """
    try:
        with tarfile.open(path, "r:xz") as archive:
            for entry in archive:
                _check_entry(path, entry)
                archive.extract(entry, folder, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(
            f"{path}: no archive that soaes.archive wrote, or cut off ({error})"
        ) from None
    names = sorted(found.name for found in folder.iterdir())
    for name in names:
        for file in ("recipe.yaml", "manifest.json"):
            if not (folder / name / file).exists():
                raise ValueError(f"{path}: {name} has no {file}; pack it anew")
    return names


def _check_entry(path: Path, entry: tarfile.TarInfo) -> None:
    stage, _, file = entry.name.partition("/")
    if not entry.isfile() or not STAGE.fullmatch(stage) or file not in FILES:
        raise ValueError(f"{path}: {entry.name!r} is no result of a stage; nothing of it is kept")


if __name__ == "__main__":
    main()
