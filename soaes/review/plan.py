"""Which items are reviewed, in what order, and which of them twice.

| part | items | reviewed |
|---|---|---|
| test, dev | questions that people hold the model to | all, first |
| label | relevance labels and near-duplicate pairs | all |
| train | questions to train on | in random order, until few of the rest can be wrong |

Knows no database: a plan is a function of the items and of the settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from soaes.data.annotation.item import ReviewItem
from soaes.pipeline.validation import check_in_range, check_positive

PARTS = ("test", "dev", "label", "train")
MANY_PARTS = 2**32


@dataclass(frozen=True)
class ReviewSettings:
    """How items are reviewed.

    Attributes:
        twice: Share of the items that are decided on twice, in [0, 1].
        limit: Largest share of wrong items among the training questions that nobody reads, in
            [0, 1): 0 reviews them all.
        lease: Minutes for which an item is kept for the person who has it on the screen.
    """

    twice: float = 0.1
    limit: float = 0.05
    lease: float = 15.0

    def __post_init__(self) -> None:
        check_in_range("twice", self.twice, "[0, 1]", "a share of the items")
        check_in_range("limit", self.limit, "[0, 1)", "a share of the items; 0 reviews them all")
        check_positive("lease", self.lease, "the minutes for which an item is kept")


class Place(NamedTuple):
    """Where an item stands in a review."""

    item: ReviewItem
    part: str
    lot: str  # training questions of one task are one lot; "" where every item is reviewed
    needed: int  # decisions, of different people where there are several


def plan(items: Iterable[ReviewItem], settings: ReviewSettings) -> list[Place]:
    """Return the items in the order of their review.

    Items that are all reviewed go document by document, so that each is read once; those of a lot
    go in random order, which the bound on its rest asks for, as do passages, each judged alone.
    """
    places = []
    for item in items:
        part = part_of(item)
        lot = (item["task"] or "qa") if part == "train" else ""
        needed = 1 + (_draw("twice", item["id"]) < settings.twice)
        places.append(Place(item, part, lot, needed))
    return sorted(places, key=_order)


def part_of(item: ReviewItem) -> str:
    """Return the part of PARTS that an item belongs to."""
    if item["kind"] != "qa":
        return "label"
    return item["split_hint"] or "train"


def _order(place: Place) -> tuple[object, ...]:
    item, phase = place.item, PARTS.index(place.part)
    if place.lot or item["kind"] == "relevance":
        return phase, item["kind"], _draw("order", item["id"]), item["id"]
    document = item["document"]
    return phase, item["kind"], document["id"], document["offset"], item["span"], item["id"]


def _draw(purpose: str, identifier: str) -> float:
    """Return a number in [0, 1) that is random and always the same."""
    digest = hashlib.sha256(f"{purpose}/{identifier}".encode()).digest()
    return int.from_bytes(digest[:4]) / MANY_PARTS
