"""Turn facts into sentences with varied subjects and joints. Knows wordings: not corpora, not splits, not the seed."""

from collections.abc import Sequence
from random import Random

from soaes.world import enterprise_wordings, wordings
from soaes.world.facts import Entity
from soaes.world.names import REFERENCES

STATEMENTS = {**wordings.STATEMENTS, "enterprise": enterprise_wordings.STATEMENTS}
QUIZZES = {**wordings.QUESTIONS, "enterprise": enterprise_wordings.QUIZZES}
MOST_CLAUSE = 26  # Chinese characters; a longer sentence takes no second clause


def statement(rng: Random, entity: Entity, attribute: str, subject: str, zipf: bool = False) -> str:
    """One wording of a fact without its full stop; `zipf` draws the wording of rank r with weight 1/r."""
    return _fill(_choose(rng, entity, attribute, zipf), entity, attribute, subject)


def paragraph(rng: Random, entity: Entity, attributes: Sequence[str], lead: str = "") -> str:
    """The facts in the given order: the first sentence names the entity, later ones name it or refer to it."""
    left, sentences = list(attributes), []
    while left:
        named = not sentences or rng.random() < 0.5
        subject = entity.name if named else reference(rng, entity)
        sentences.append(_sentence(rng, entity, left, subject))
    return lead + "".join(sentences)


def reference(rng: Random, entity: Entity) -> str:
    """Another way to say the entity, such as 该市."""
    return rng.choice(REFERENCES[entity.kind])


def pair(rng: Random, entity: Entity, first: str, second: str) -> str:
    """Two facts of an enterprise in one sentence, its name said once."""
    opening = rng.choice(_openings(entity, first))
    added = rng.choice(_additions(entity, second, opening))
    return _fill(opening, entity, first, entity.name) + "，" + _elided(added, entity, second) + "。"


def _sentence(rng: Random, entity: Entity, left: list[str], subject: str) -> str:
    if len(left) < 2 or rng.random() < 0.4:
        return statement(rng, entity, left.pop(0), subject) + "。"
    wording = rng.choice(_openings(entity, left[0]))
    text = _fill(wording, entity, left.pop(0), subject)
    while left and len(text) < MOST_CLAUSE and rng.random() < 0.8:
        additions = _additions(entity, left[0], wording)
        if not additions:
            break
        wording = rng.choice(additions)
        text += "，" + _elided(wording, entity, left.pop(0))
    return text + "。"


def _openings(entity: Entity, attribute: str) -> list[str]:
    return [wording for wording in STATEMENTS[entity.kind][attribute] if wording.startswith("{x}")]


def _additions(entity: Entity, attribute: str, before: str) -> list[str]:
    # 公司的科研平台是…，在1992年成立 would date the platform: after {x}的… a clause needs a subject of its own.
    start = "{x}的" if before.startswith("{x}的") else "{x}"
    return [wording for wording in _openings(entity, attribute) if wording.startswith(start)]


def _elided(wording: str, entity: Entity, attribute: str) -> str:
    # {x}的总部设在济南 -> 总部设在济南
    return _fill(wording.removeprefix("{x}").removeprefix("的"), entity, attribute, "")


def _fill(wording: str, entity: Entity, attribute: str, subject: str) -> str:
    return wording.format(x=subject, v=entity[attribute])


def _choose(rng: Random, entity: Entity, attribute: str, zipf: bool) -> str:
    options = STATEMENTS[entity.kind][attribute]
    weights = [1 / rank for rank in range(1, len(options) + 1)] if zipf else None
    return rng.choices(options, weights)[0]
