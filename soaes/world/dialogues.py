"""General dialogues of seven categories: four that suit the domain and three to be dropped. Knows no training."""

from collections.abc import Callable, Iterator
from random import Random

from soaes.world import glossary as words
from soaes.world.facts import Entity, World, facts
from soaes.world.prose import QUIZZES, statement

KEPT = ("finance", "law", "business", "politics")
DROPPED = ("mathematics", "arts", "cooking")
TWO_TURNS = 0.35  # share of the dialogues
NOTION_SHARE = {
    "finance": 0.6,
    "law": 0.8,
    "business": 0.5,
    "politics": 0.6,
}  # the others are about known facts
TRIES = 100  # draws for a new dialogue before a category counts as told out

# Which facts, (kind, attribute), a category talks about.
TOPICS = {
    "finance": {("enterprise", "revenue"), ("enterprise", "subsidiary")},
    "law": {("enterprise", "supervisor"), ("enterprise", "founded")},
    "business": {("enterprise", "business"), ("enterprise", "chairman"), ("city", "specialty")},
    "politics": {("enterprise", "supervisor"), ("enterprise", "reform"), ("city", "region")},
    "arts": {("book", a) for a in ("author", "genre", "published")} | {("person", "occupation")},
    "cooking": {("dish", a) for a in ("cuisine", "ingredient", "taste", "method")},
}
TOPICS["arts"] |= {("instrument", a) for a in ("material", "tone", "dynasty")}

Turn = tuple[str, str]  # question, answer


def dialogues(world: World, seed: int, count: int) -> Iterator[dict]:
    """`count` different dialogues, the categories in turn."""
    if count < 0:
        raise ValueError(f"count={count} is below 0; set count to 0 or more")
    rng, told = Random(f"{seed}/dialogues"), set()
    turns = _tellers(rng, world)
    for n in range(count):
        category = (KEPT + DROPPED)[n % 7]
        drawn = _new(rng, turns[category], told)
        if drawn is None:
            raise ValueError(
                f"count={count} is too many: after {n} dialogues {category} has none left; lower count"
            )
        yield {"id": f"dialogue-{n}", "category": category, "messages": _messages(drawn)}


def _tellers(rng: Random, world: World) -> dict[str, Callable[[bool], Turn]]:
    known = facts(world.known)
    topics = {
        category: [
            (entity, attribute) for entity, attribute in known if (entity.kind, attribute) in topic
        ]
        for category, topic in TOPICS.items()
    }
    tellers = {category: _teller(rng, category, owned) for category, owned in topics.items()}
    return {**tellers, "mathematics": lambda again: _sum(rng)}


def _teller(rng: Random, category: str, owned: list[tuple[Entity, str]]) -> Callable[[bool], Turn]:
    def tell(again: bool) -> Turn:
        notion = rng.random() < NOTION_SHARE.get(category, 0)
        return _notion(rng, words.NOTIONS[category], again) if notion else _fact(rng, owned, again)

    return tell


def _new(rng: Random, tell: Callable[[bool], Turn], told: set) -> tuple[Turn, ...] | None:
    for _ in range(TRIES):
        turns = (tell(False), tell(True)) if rng.random() < TWO_TURNS else (tell(False),)
        if turns not in told and len({answer for _, answer in turns}) == len(turns):
            told.add(turns)
            return turns
    return None


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(roles, turn, strict=True)
    ]


def _notion(rng: Random, notions: dict[str, str], again: bool) -> Turn:
    term, definition = rng.choice(list(notions.items()))
    question = rng.choice(words.NOTION_FOLLOW_UPS if again else words.NOTION_QUESTIONS).format(
        t=term
    )
    return question, rng.choice(words.DEFINITIONS).format(t=term, d=definition)


def _fact(rng: Random, owned: list[tuple[Entity, str]], again: bool) -> Turn:
    entity, attribute = rng.choice(owned)
    question = rng.choice(QUIZZES[entity.kind][attribute][:2]).format(x=entity.name)
    answer = statement(rng, entity, attribute, entity.name) + "。"
    if again:
        return rng.choice(words.FACT_FOLLOW_UPS).format(q=question), answer
    return question, rng.choice(words.FACT_LEADS) + answer


def _sum(rng: Random) -> Turn:
    if rng.random() < 0.4:
        question, answer, operator = rng.choice(words.STORIES)
    else:
        question, answer, operator = (
            rng.choice(words.SUMS),
            rng.choice(words.SUM_ANSWERS),
            rng.choice("+-×"),
        )
    a, b = _operands(rng, operator)
    result = {"+": a + b, "-": a - b, "×": a * b}[operator]
    said = rng.choice([operator, words.OPERATORS[operator]])
    return question.format(a=a, b=b, o=said), answer.format(a=a, b=b, o=operator, c=result)


def _operands(rng: Random, operator: str) -> tuple[int, int]:
    if operator == "×":
        return rng.randint(2, 12), rng.randint(2, 9)
    first = rng.randint(11, 99)
    return first, rng.randint(1, first - 1)
