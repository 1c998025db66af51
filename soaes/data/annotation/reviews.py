"""The exports of several reviews as one: items, decisions, and how the items were drawn.

An item may be drawn twice, and a review be exported twice. A person has one word on an item, the
last; and an item counts once for each draw that took it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from soaes.data.annotation.agreement import agreement
from soaes.data.annotation.item import EXPORTED, ITEMS, Decision, ReviewItem, read_export
from soaes.data.annotation.verdicts import pairs, verdict
from soaes.data.curation import sources

# The folder of a user's data in which exports of items of a kind are read.
PLACES = {
    "qa": sources.ANNOTATION,
    "relevance": sources.LABELS,
    "near_duplicate": sources.PAIRS,
}

Key = tuple[str, str, bool]  # item, person, and whether it is the second round


@dataclass(frozen=True)
class Reviewed:
    """Items with what people decided.

    Attributes:
        items: By id.
        decisions: By the item's id; none for an item that nobody decided on.
        draws: Item -> draw -> probability; none for an item that was not drawn.
        num_replaced: Decisions that gave way to a later one of the same person.
    """

    items: dict[str, ReviewItem]
    decisions: dict[str, list[Decision]]
    draws: dict[str, dict[str, float]]
    num_replaced: int

    def probability(self, identifier: str) -> float:
        """Return the probability by whose inverse an item counts, over all draws; 1 without any."""
        return combined(list(self.draws.get(identifier, {}).values()))

    def agreement(self, kind: str) -> dict[str, Any]:
        """Return how well two people agree on the items of a kind."""
        decisions_of = (
            decisions
            for identifier, decisions in self.decisions.items()
            if self.items[identifier]["kind"] == kind
        )
        agreed = agreement(pairs(decisions_of, verdict))
        return {
            "pairs": agreed.items,
            "raw": agreed.raw,
            "kappa": agreed.kappa,
            "interval": [agreed.low, agreed.high],
        }


def combined(probabilities: Sequence[float]) -> float:
    """Return the probability whose inverse is the sum of the others' inverses; 1 of none.

    Each draw alone gives totals of the whole corpus, so that their sum counts it once a draw.
    """
    if len(probabilities) == 1:
        return probabilities[0]
    return 1 / sum(1 / probability for probability in probabilities) if probabilities else 1.0


def folders_of(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the folders of the exports among files, and the files that belong to none.

    Args:
        names: Files relative to the data root.
    """
    names = list(names)
    folders = sorted({str(PurePosixPath(name).parent) for name in names if _is_items(name)})
    of_exports = {f"{folder}/{name}" for folder in folders for name in EXPORTED}
    return folders, [name for name in names if name not in of_exports]


def gather(root: Path, folders: Iterable[str]) -> Reviewed:
    """Read exports.

    Args:
        root: The user's folder.
        folders: Of the exports, relative to it.

    Raises:
        ValueError: A file of them may not be opened, is damaged, or says otherwise than another
            how an item was drawn or what a person decided at that time.
    """
    items: dict[str, ReviewItem] = {}
    draws: dict[str, dict[str, float]] = defaultdict(dict)
    last: dict[Key, Decision] = {}
    num_replaced = 0
    for folder in folders:
        check_readable(root, folder)
        export = read_export(root / folder)
        _check_drawn(export.items, f"{root / folder}/{ITEMS}")
        for item in export.items:
            items.setdefault(item["id"], item)
            if sample := item.get("sample"):
                probability = sample["probability"]
                before = draws[item["id"]].setdefault(sample["draw"], probability)
                if before != probability:
                    raise ValueError(
                        f"{root / folder}/{ITEMS}: probability={probability} of item "
                        f"{item['id']}: another export of this draw says {before}; export the "
                        "review anew"
                    )
        num_replaced += add_decisions(last, export.decisions, folder)
    decisions: dict[str, list[Decision]] = {identifier: [] for identifier in items}
    for key in sorted(last):
        decisions[key[0]].append(last[key])
    return Reviewed(items, decisions, draws, num_replaced)


def add_decisions(last: dict[Key, Decision], more: Iterable[Decision], place: str) -> int:
    """Add decisions, and return how many gave way: of a person's on an item the last one counts.

    Args:
        last: By item, person and round; filled.
        more: Of another export.
        place: Of that export, for messages.

    Raises:
        ValueError: A person decided twice at the same time.
    """
    num_replaced = 0
    for decision in more:
        key = decision["item"], decision["reviewer"], decision["second"]
        known = last.setdefault(key, decision)
        if known == decision:
            continue
        if known["time"] == decision["time"]:
            raise ValueError(
                f"{place}: {decision['reviewer']} decided otherwise on {decision['item']} in "
                f"another export, both at {decision['time'] or 'no time'}; export the review anew"
            )
        num_replaced += 1
        last[key] = max(known, decision, key=lambda each: each["time"])
    return num_replaced


def _check_drawn(items: Iterable[ReviewItem], place: str) -> None:
    """Check that of an export all items of a kind were drawn, or none: others weigh nothing alike.

    Raises:
        ValueError: One lacks the probability that others have.
    """
    items = list(items)
    drawn = {item["kind"] for item in items if "sample" in item}
    for item in items:
        if item["kind"] in drawn and "sample" not in item:
            raise ValueError(
                f"{place}: item {item['id']} has no sample, and others of its kind have; export "
                "the review anew"
            )


def check_readable(root: Path, folder: str) -> None:
    """Check that the files of an export may be opened.

    Raises:
        ValueError: One may not, such as a link that leads out of the data root.
    """
    for name in EXPORTED:
        if not os.path.lexists(root / folder / name):
            continue
        reason, detail = sources.refusal(root, f"{folder}/{name}")
        if reason:
            raise ValueError(f"{root}/{folder}/{name}: {reason} ({detail})")


def _is_items(name: str) -> bool:
    return PurePosixPath(name).name == ITEMS
