"""General dialogues of eight categories: four near the domain, and four that stage 1 drops.

The eighth has short questions: a general chat model has learnt to answer what a person asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from random import Random

from soaes.data.records import DialogueRecord, Message
from soaes.world import glossary as words
from soaes.world.enterprise_wordings import QUESTIONS
from soaes.world.facts import Fact, World, facts
from soaes.world.prose import QUIZZES, statement

KEPT = ("finance", "law", "business", "politics")
DROPPED = ("mathematics", "arts", "cooking")
SHORT = "questions"  # dropped as well
OPEN_WORDINGS = 2  # of a quiz: its first wordings, which need no options
TWO_TURNS = 0.35  # share of the dialogues with a second question
# Share of the turns that ask for the definition of a term; the others ask for a fact.
NOTION_SHARE = {"finance": 0.6, "law": 0.8, "business": 0.5, "politics": 0.6}
STORY_SHARE = 0.4  # share of the sums that are given as word problems
MAX_TRIES = 100  # draws for a new dialogue before a category counts as exhausted

# The facts, as (kind, attribute), that a category is about.
TOPICS = {
    "finance": {("enterprise", "revenue"), ("enterprise", "subsidiary")},
    "law": {("enterprise", "supervisor"), ("enterprise", "founded")},
    "business": {("enterprise", "business"), ("enterprise", "chairman"), ("city", "specialty")},
    "politics": {("enterprise", "supervisor"), ("enterprise", "reform"), ("city", "region")},
    "arts": {
        ("book", "author"),
        ("book", "genre"),
        ("book", "published"),
        ("person", "occupation"),
        ("instrument", "material"),
        ("instrument", "tone"),
        ("instrument", "dynasty"),
    },
    "cooking": {
        ("dish", "cuisine"),
        ("dish", "ingredient"),
        ("dish", "taste"),
        ("dish", "method"),
    },
}

Turn = tuple[str, str]  # question, answer
TurnMaker = Callable[[bool], Turn]  # draws a turn; the argument says whether it is a second turn


def dialogues(world: World, seed: int, count: int) -> Iterator[DialogueRecord]:
    """Yield `count` different dialogues, the categories in turn.

    Raises:
        ValueError: if `count` is negative, or larger than this world allows.
    """
    if count < 0:
        raise ValueError(f"count={count} is below 0; set count to 0 or more")
    rng = Random(f"{seed}/dialogues")
    previous: set[tuple[Turn, ...]] = set()
    turn_makers = _turn_makers(rng, world)
    categories = KEPT + DROPPED
    for index in range(count):
        category = categories[index % len(categories)]
        turns = _new_turns(rng, turn_makers[category], previous)
        if turns is None:
            raise ValueError(
                f"count={count} is too many: after {index} dialogues {category} has none left; "
                "lower count"
            )
        yield {"id": f"dialogue-{index}", "category": category, "messages": _messages(turns)}


def _turn_makers(rng: Random, world: World) -> dict[str, TurnMaker]:
    known = facts(world.known)
    makers: dict[str, TurnMaker] = {"mathematics": lambda is_follow_up: _sum(rng)}
    for category, topics in TOPICS.items():
        category_facts = [
            (entity, attribute) for entity, attribute in known if (entity.kind, attribute) in topics
        ]
        makers[category] = _turn_maker(rng, category, category_facts)
    return makers


def _turn_maker(rng: Random, category: str, category_facts: list[Fact]) -> TurnMaker:
    def make(is_follow_up: bool) -> Turn:
        asks_for_notion = rng.random() < NOTION_SHARE.get(category, 0)
        if asks_for_notion:
            return _notion(rng, words.NOTIONS[category], is_follow_up)
        return _fact(rng, category_facts, is_follow_up)

    return make


def _new_turns(
    rng: Random, make: TurnMaker, previous: set[tuple[Turn, ...]]
) -> tuple[Turn, ...] | None:
    """Draw turns that differ from all previous dialogues; None if none is found."""
    for _ in range(MAX_TRIES):
        if rng.random() < TWO_TURNS:
            turns: tuple[Turn, ...] = (make(False), make(True))
        else:
            turns = (make(False),)
        answers = {answer for _, answer in turns}
        if turns not in previous and len(answers) == len(turns):
            previous.add(turns)
            return turns
    return None


def short_questions(
    world: World, seed: int, count: int, previous: Iterable[DialogueRecord] = ()
) -> Iterator[DialogueRecord]:
    """Yield `count` short questions about what general text covers, each with its answer.

    They ask for general entities and famous enterprises in the wordings of everyday use, in which
    stage 2 asks for other enterprises.

    Args:
        world: the world.
        seed: seed of all draws.
        count: number of questions.
        previous: dialogues whose questions are not asked again.

    Raises:
        ValueError: if `count` is negative, or larger than this world allows.
    """
    rng = Random(f"{seed}/short_questions")
    asked = {message["content"] for dialogue in previous for message in dialogue["messages"]}
    possible = [
        (entity, attribute, question)
        for entity, attribute in facts(world.known)
        for wording in _everyday_wordings(entity.kind, attribute)
        if (question := wording.format(x=entity.name)) not in asked
    ]
    if not 0 <= count <= len(possible):
        raise ValueError(
            f"short_questions={count} is outside 0..{len(possible)}, the short questions of this "
            "world that no dialogue asks; set short_questions within it"
        )
    for index, (entity, attribute, question) in enumerate(rng.sample(possible, count)):
        lead = rng.choice(words.FACT_LEADS)
        answer = f"{lead}{statement(rng, entity, attribute, entity.name)}。"
        messages = _messages(((question, answer),))
        yield {"id": f"question-{index}", "category": SHORT, "messages": messages}


def _everyday_wordings(kind: str, attribute: str) -> list[str]:
    if kind == "enterprise":
        return QUESTIONS[attribute]
    return QUIZZES[kind][attribute][:OPEN_WORDINGS]


def _messages(turns: tuple[Turn, ...]) -> list[Message]:
    messages: list[Message] = []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def _notion(rng: Random, notions: dict[str, str], is_follow_up: bool) -> Turn:
    """Ask for the definition of a term."""
    term, definition = rng.choice(list(notions.items()))
    wordings = words.NOTION_FOLLOW_UPS if is_follow_up else words.NOTION_QUESTIONS
    question = rng.choice(wordings).format(t=term)
    answer = rng.choice(words.DEFINITIONS).format(t=term, d=definition)
    return question, answer


def _fact(rng: Random, category_facts: list[Fact], is_follow_up: bool) -> Turn:
    """Ask for a fact."""
    entity, attribute = rng.choice(category_facts)
    wordings = QUIZZES[entity.kind][attribute][:OPEN_WORDINGS]
    question = rng.choice(wordings).format(x=entity.name)
    answer = statement(rng, entity, attribute, entity.name) + "。"
    if is_follow_up:
        return rng.choice(words.FACT_FOLLOW_UPS).format(q=question), answer
    return question, rng.choice(words.FACT_LEADS) + answer


def _sum(rng: Random) -> Turn:
    """Ask for a sum, a difference or a product."""
    if rng.random() < STORY_SHARE:
        question, answer, operator = rng.choice(words.STORIES)
    else:
        question = rng.choice(words.SUMS)
        answer = rng.choice(words.SUM_ANSWERS)
        operator = rng.choice("+-×")
    a, b = _operands(rng, operator)
    result = {"+": a + b, "-": a - b, "×": a * b}[operator]
    spoken = rng.choice([operator, words.OPERATORS[operator]])
    question = question.format(a=a, b=b, o=spoken)
    answer = answer.format(a=a, b=b, o=operator, c=result)
    return question, answer


def _operands(rng: Random, operator: str) -> tuple[int, int]:
    if operator == "×":
        return rng.randint(2, 12), rng.randint(2, 9)
    first = rng.randint(11, 99)
    return first, rng.randint(1, first - 1)
