"""Training questions that nobody read, and how many of them can be wrong.

The review page reads a random part of each lot and bounds the errors of its rest (review.json of an
export). The bound goes with the items, so that it holds for whatever part of them is adopted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict, cast

from soaes.data.annotation.item import REVIEW, Export
from soaes.data.jsonl import read_jsonl
from soaes.pipeline.store import read_json


class Lot(TypedDict):
    """What nobody read of the training questions of one task of one export."""

    export: str  # its folder
    task: str
    wrong_at_most: int  # of the items
    confidence: float
    items: list[str]  # ids


def lots_of(folder: Path, export: Export) -> Iterator[Lot]:
    """Yield the lots that an export's review.json bounds; none where it has no such file.

    Raises:
        ValueError: review.json is damaged, or not of this export.
    """
    path = folder / REVIEW
    if not path.exists():
        return
    unread_of = _unread(export)
    try:
        for lot in read_json(path)["sampling"]:
            items = unread_of[lot["task"]]
            if len(items) != lot["unread"]:
                raise ValueError(
                    f"{path}: says that {lot['unread']} of {lot['task']} are unread, and "
                    f"{len(items)} are; export the review again"
                )
            yield {
                "export": folder.name,
                "task": lot["task"],
                "wrong_at_most": round(lot["unread_wrong_at_most"] * len(items)),
                "confidence": lot["confidence"],
                "items": items,
            }
    except (KeyError, TypeError):
        raise ValueError(f"{path}: is damaged; export the review again") from None


def read_lots(path: Path) -> list[Lot]:
    """Return the lots of a file; none where there is no such file."""
    return [cast(Lot, row) for row in read_jsonl(path)] if path.exists() else []


def errors_at_most(undecided: set[str], lots: Sequence[Lot], share: float) -> float | None:
    """Return the largest share of wrong items among those that nobody decided on; None for none.

    Args:
        undecided: Their ids.
        lots: The lots that they are of.
        share: What counts for those of no lot.
    """
    if not undecided:
        return None
    rest = set(undecided)
    num_wrong = 0.0
    for lot in lots:
        of_lot = rest.intersection(lot["items"])
        num_wrong += min(len(of_lot), lot["wrong_at_most"])
        rest -= of_lot
    return round((num_wrong + share * len(rest)) / len(undecided), 4)


def _unread(export: Export) -> dict[str, list[str]]:
    """Return the ids of the training questions without a decision, by task."""
    decided = {decision["item"] for decision in export.decisions}
    unread_of: dict[str, list[str]] = defaultdict(list)
    for item in export.items:
        is_train = item["kind"] == "qa" and not item["split_hint"]
        if is_train and item["id"] not in decided:
            unread_of[item["task"] or "qa"].append(item["id"])
    return unread_of
