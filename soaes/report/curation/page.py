"""The page of a curation: one HTML file, and the same as JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_json
from soaes.report.curation import record, steps
from soaes.report.curation.record import Curation
from soaes.report.page import single_file
from soaes.report.page.single_file import FRAME, PLOTS, Page

FOLDER = "curation"  # of the store
SCRIPTS = (
    *PLOTS,
    *FRAME,
    "curation/words.js",
    "curation/texts.js",
    "curation/steps.js",
    "curation/drops.js",
    "curation/shares.js",
    "curation/page.js",
)


def render(curation: Curation) -> str:
    """Return the page as HTML; the same curation gives the same bytes."""
    return single_file.render(_page(curation))


def write(store: Store, last: Recipe, path: Path | None = None) -> str:
    """Write the page, and its JSON beside it.

    Args:
        store: Where the steps are.
        last: The last stage of curation.
        path: The file; by default curation/NAME.html of the store.

    Returns:
        The file and its size, to be printed.

    Raises:
        ValueError: No step is built, or a file of one is damaged.
    """
    if not steps.built_steps(store, last):
        raise ValueError(
            f"{store.root}: nothing of {last.name} is built; build it with `python -m soaes.run "
            "goal=data.documents` and the same words"
        )
    path = path or path_of(store, last)
    path.parent.mkdir(parents=True, exist_ok=True)
    curation = record.gather(store, last)
    write_json(path.with_suffix(".json"), {**curation.record, **curation.blocks})
    return single_file.write(path, _page(curation))


def write_outdated(store: Store, goals: Sequence[Recipe]) -> list[str]:
    """Write the pages of the curations behind some goals that are older than what they show.

    Returns:
        Each page with its size, to be printed; of those that were up to date the file alone.
    """
    lasts = {last.name: last for last in map(steps.curated, goals) if last is not None}
    lines = []
    for last in lasts.values():
        built = steps.built_steps(store, last)
        if built:
            path = path_of(store, last)
            lines.append(write(store, last) if _is_outdated(store, last, path) else str(path))
    return lines


def path_of(store: Store, last: Recipe) -> Path:
    """Return where the page of a curation is."""
    return store.root / FOLDER / f"{last.name}.html"


def _is_outdated(store: Store, last: Recipe, path: Path) -> bool:
    """Tell whether a page is missing, or older than a stage that it shows."""
    if not path.exists():
        return True
    made = path.stat().st_mtime
    folders = [step.folder for step in steps.built_steps(store, last)]
    if store.holds(last.name):
        folders.append(store.folder(last.name))
    return any((folder / "manifest.json").stat().st_mtime > made for folder in folders)


def _page(curation: Curation) -> Page:
    return Page(
        title="soaes curation",
        styles=("base.css", "page.css", "curation/page.css"),
        scripts=SCRIPTS,
        chinese="curation/chinese.json",
        record=curation.record,
        blocks=curation.blocks,
    )
