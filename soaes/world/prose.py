"""Turn facts into Chinese sentences with varied subjects and conjunctions."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from soaes.world import enterprise_wordings, wordings
from soaes.world.facts import Entity
from soaes.world.names import REFERENCES

STATEMENTS = {**wordings.STATEMENTS, "enterprise": enterprise_wordings.STATEMENTS}
QUIZZES = {**wordings.QUESTIONS, "enterprise": enterprise_wordings.QUIZZES}
MAX_CLAUSE = 26  # Chinese characters; a longer sentence takes no further clause


def statement(rng: Random, entity: Entity, attribute: str, subject: str, zipf: bool = False) -> str:
    """State a fact in one of its wordings, without a full stop.

    Args:
        rng: source of random draws.
        entity: the entity.
        attribute: the attribute that is stated.
        subject: what the sentence calls the entity.
        zipf: draw the wording of rank r with weight 1/r instead of uniformly.
    """
    return _fill(_choose_wording(rng, entity, attribute, zipf), entity, attribute, subject)


def paragraph(rng: Random, entity: Entity, attributes: Sequence[str], lead: str = "") -> str:
    """State facts in the given order.

    The first sentence names the entity; later ones name it or refer to it.
    """
    remaining = list(attributes)
    sentences: list[str] = []
    while remaining:
        is_named = not sentences or rng.random() < 0.5
        subject = entity.name if is_named else reference(rng, entity)
        sentences.append(_sentence(rng, entity, remaining, subject))
    return lead + "".join(sentences)


def reference(rng: Random, entity: Entity) -> str:
    """Return another way to refer to the entity, such as 该市 ("this city")."""
    return rng.choice(REFERENCES[entity.kind])


def pair(rng: Random, entity: Entity, first: str, second: str) -> str:
    """State two facts of an enterprise in one sentence that names it once."""
    opening = rng.choice(_openings(entity, first))
    addition = rng.choice(_additions(entity, second, opening))
    first_clause = _fill(opening, entity, first, entity.name)
    return first_clause + "，" + _without_subject(addition, entity, second) + "。"


def _sentence(rng: Random, entity: Entity, remaining: list[str], subject: str) -> str:
    """Return a sentence of one or more facts, which are taken off `remaining`."""
    if len(remaining) < 2 or rng.random() < 0.4:
        return statement(rng, entity, remaining.pop(0), subject) + "。"
    wording = rng.choice(_openings(entity, remaining[0]))
    text = _fill(wording, entity, remaining.pop(0), subject)
    while remaining and len(text) < MAX_CLAUSE and rng.random() < 0.8:
        additions = _additions(entity, remaining[0], wording)
        if not additions:
            break
        wording = rng.choice(additions)
        text += "，" + _without_subject(wording, entity, remaining.pop(0))
    return text + "。"


def _openings(entity: Entity, attribute: str) -> list[str]:
    """Return the wordings that start with the subject."""
    return [wording for wording in STATEMENTS[entity.kind][attribute] if wording.startswith("{x}")]


def _additions(entity: Entity, attribute: str, before: str) -> list[str]:
    """Return the wordings that may follow the clause `before` without a subject of their own.

    公司的科研平台是…，在1992年成立 would date the platform: after {x}的… the next clause needs a
    subject of its own.
    """
    start = "{x}的" if before.startswith("{x}的") else "{x}"
    return [wording for wording in _openings(entity, attribute) if wording.startswith(start)]


def _without_subject(wording: str, entity: Entity, attribute: str) -> str:
    """Fill a wording less its subject: {x}的总部设在济南 -> 总部设在济南."""
    return _fill(wording.removeprefix("{x}").removeprefix("的"), entity, attribute, "")


def _fill(wording: str, entity: Entity, attribute: str, subject: str) -> str:
    return wording.format(x=subject, v=entity[attribute])


def _choose_wording(rng: Random, entity: Entity, attribute: str, zipf: bool) -> str:
    options = STATEMENTS[entity.kind][attribute]
    weights = [1 / rank for rank in range(1, len(options) + 1)] if zipf else None
    return rng.choices(options, weights)[0]
