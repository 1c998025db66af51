"""What several people's decisions on one item come to.

A skip says nothing. An item on which people disagree has no verdict: it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from soaes.data.annotation.item import Decision

Pair = tuple[str, str]  # what two people decided on one item

NOBODY = "nobody decided"
SKIPPED = "everyone skipped it"
DISAGREED = "reviewers disagree"


def verdict(decision: Decision) -> str:
    """Return the word of a decision, for `common` and `pairs`."""
    return decision["verdict"]


def decided(decisions: Iterable[Decision]) -> list[Decision]:
    """Return the decisions that say something, first ones before second ones."""
    found = [decision for decision in decisions if decision["verdict"] != "skip"]
    return sorted(found, key=_first_one_first)


def common(decisions: Sequence[Decision], word: Callable[[Decision], str]) -> str:
    """Return what everyone who decided on an item says, or why there is no such word.

    Args:
        decisions: All of the item.
        word: What a decision says.

    Returns:
        A word, or one of `NOBODY`, `SKIPPED` and `DISAGREED`.
    """
    words = {word(decision) for decision in decided(decisions)}
    if len(words) > 1:
        return DISAGREED
    if words:
        return words.pop()
    return SKIPPED if decisions else NOBODY


def pairs(
    decisions_of_items: Iterable[Iterable[Decision]], word: Callable[[Decision], str]
) -> list[Pair]:
    """Return what two people say of the items that two decided on.

    Args:
        decisions_of_items: All decisions, item by item.
        word: What a decision says.
    """
    found = []
    for decisions in decisions_of_items:
        people: dict[str, str] = {}  # who decides twice does not agree with another person
        for decision in decided(decisions):
            people.setdefault(decision["reviewer"], word(decision))
        if len(people) > 1:
            first, second, *_ = people.values()
            found.append((first, second))
    return found


def _first_one_first(decision: Decision) -> tuple[bool, str, str]:
    return decision["second"], decision["time"], decision["reviewer"]
