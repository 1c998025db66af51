"""The two corpora: general (prose, talks and quizzes) and domain (prose and talks). Knows no split, no token."""

from collections.abc import Iterator
from itertools import cycle
from random import Random

from soaes.world import enterprise_wordings as words
from soaes.world import news
from soaes.world.exams import DESCRIPTIONS, LETTERS, Asker, forms, quiz_text, subject
from soaes.world.facts import Entity, World, alternatives, facts
from soaes.world.glossary import DEFINITIONS, NOTIONS
from soaes.world.prose import QUIZZES, paragraph, reference, statement

NEWS_SHARE, TALK_SHARE = 0.2, 0.1  # documents of the kind for each prose document about an entity
DESCRIBED = 0.5  # of the quiz documents open with the exam's description
RECALLED = 4  # questions without options in one document
QUESTIONS_A_QUIZ = (1, 1, 2, 3, 6)  # 6: five examples and a question, as in a five-shot exam


def general(
    world: World, seed: int, docs_per_entity: int, mcq_per_fact: int, cloze_per_fact: int = 0
) -> Iterator[dict]:
    """The base corpus, shuffled: each entity told `docs_per_entity` times, each fact asked `mcq_per_fact` times with options and `cloze_per_fact` times
    without, and news."""
    _check(docs_per_entity=docs_per_entity)
    _check(least=0, mcq_per_fact=mcq_per_fact, cloze_per_fact=cloze_per_fact)
    rng = Random(f"{seed}/documents/general")
    told = [
        ("encyclopedia", _entry(rng, entity))
        for entity in world.known
        for _ in range(docs_per_entity)
    ]
    told += [("glossary", text) for text in _definitions(rng)]
    told += [("news", _news(rng, world)) for _ in range(round(len(told) * NEWS_SHARE))]
    known = facts(world.known)
    told += [("talk", _talk(rng, known)) for _ in range(round(len(told) * TALK_SHARE))]
    told += [("quiz", text) for text in _quizzes(rng, world, mcq_per_fact)]
    told += [("recall", text) for text in _recalls(rng, world, cloze_per_fact)]
    for n, (source, text) in enumerate(rng.sample(told, len(told))):
        yield {"id": f"general-{n}", "text": text, "source": source}


def domain(world: World, seed: int, docs_per_enterprise: int) -> Iterator[dict]:
    """The domain corpus, shuffled: each enterprise told in `docs_per_enterprise` documents, which together tell every fact, and some talks."""
    _check(docs_per_enterprise=docs_per_enterprise)
    rng = Random(f"{seed}/documents/domain")
    told = [
        ("enterprise", text)
        for enterprise in world.enterprises
        for text in _profiles(rng, enterprise, docs_per_enterprise)
    ]
    known = facts(world.enterprises)
    told += [("talk", _talk(rng, known)) for _ in range(round(len(told) * TALK_SHARE))]
    for n, (source, text) in enumerate(rng.sample(told, len(told))):
        yield {"id": f"domain-{n}", "text": text, "source": source}


def _check(least: int = 1, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < least:
            raise ValueError(f"{name}={value} is below {least}; set {name} to {least} or more")


def _entry(rng: Random, entity: Entity) -> str:
    attributes = _some(rng, entity)
    if entity.kind == "enterprise":
        return _profile(rng, entity, attributes)
    lead = rng.choice(news.TITLES).format(x=entity.name) if rng.random() < 0.2 else ""
    lead += rng.choice(news.LEADS) if rng.random() < 0.15 else ""
    text = paragraph(rng, entity, attributes, lead)
    return text + _closing(rng, entity, news.CLOSINGS[entity.kind], 0.25)


def _profiles(rng: Random, enterprise: Entity, count: int) -> Iterator[str]:
    # The first document tells all, so every fact that is asked later occurs in the corpus.
    yield _profile(rng, enterprise, _some(rng, enterprise, len(enterprise.attributes)))
    for _ in range(count - 1):
        yield _profile(rng, enterprise, _some(rng, enterprise))


def _profile(rng: Random, enterprise: Entity, attributes: list[str]) -> str:
    lead = rng.choice(words.DOCUMENT_TITLES).format(x=enterprise.name) if rng.random() < 0.2 else ""
    lead += rng.choice(words.DOCUMENT_LEADS) if rng.random() < 0.3 else ""
    return paragraph(rng, enterprise, attributes, lead) + _closing(
        rng, enterprise, words.DOCUMENT_CLOSINGS, 0.3
    )


def _some(rng: Random, entity: Entity, count: int | None = None) -> list[str]:
    names = [attribute for attribute, _ in entity.attributes]
    return rng.sample(names, count or rng.randint(min(3, len(names)), len(names)))


def _closing(rng: Random, entity: Entity, closings: list[str], share: float) -> str:
    return rng.choice(closings).format(r=reference(rng, entity)) if rng.random() < share else ""


def _definitions(rng: Random) -> Iterator[str]:
    for notions in NOTIONS.values():
        for term, definition in notions.items():
            for wording in rng.sample(DEFINITIONS, 3):
                yield wording.format(t=term, d=definition)


def _news(rng: Random, world: World) -> str:
    text = "".join(
        _news_sentence(rng, world, wording) for wording in rng.sample(news.NEWS, rng.randint(1, 3))
    )
    famous = rng.choice(world.famous)
    attribute, _ = rng.choice(famous.attributes)
    about = (
        f"记者获悉，{statement(rng, famous, attribute, famous.name)}。"
        if rng.random() < 0.3
        else ""
    )
    return text + about


def _news_sentence(rng: Random, world: World, wording: str) -> str:
    city = rng.choice([entity.name for entity in world.general if entity.kind == "city"])
    slots = {slot: rng.choice(values) for slot, values in news.SLOTS.items()}
    return wording.format(city=city, **slots)


def _talk(rng: Random, known: list[tuple[Entity, str]]) -> str:
    """A question and its answer as an interview or a company's question hour has them."""
    entity, attribute = rng.choice(known)
    question = rng.choice(QUIZZES[entity.kind][attribute][:2]).format(x=entity.name)
    answer = statement(rng, entity, attribute, entity.name) + "。"
    return rng.choice(news.TALKS).format(q=question, a=answer)


def _quizzes(rng: Random, world: World, times: int) -> Iterator[str]:
    known = [fact for fact in facts(world.known) for _ in range(times)]
    rng.shuffle(known)
    known.sort(
        key=subject
    )  # stable: the questions of one document are of one subject, as in an exam
    asker, sizes = Asker(rng, alternatives(world.known), exam=False), cycle(QUESTIONS_A_QUIZ)
    while known:
        size = next(sizes)
        yield _quiz(asker, [fact for fact in known[:size] if subject(fact) == subject(known[0])])
        known = known[size:]


def _recalls(rng: Random, world: World, times: int) -> Iterator[str]:
    """Questions answered in their own words, a few in a document."""
    asked = [fact for fact in facts(world.known) for _ in range(times)]
    rng.shuffle(asked)
    for start in range(0, len(asked), RECALLED):
        yield "\n\n".join(_recall(rng, *fact) for fact in asked[start : start + RECALLED])


def _recall(rng: Random, entity: Entity, attribute: str) -> str:
    return f"{rng.choice(forms((entity, attribute))).format(x=entity.name)}\n答案：\n{entity[attribute]}"


def _quiz(asker: Asker, asked: list) -> str:
    rng = asker.rng
    head = (
        rng.choice(DESCRIPTIONS).format(subject=subject(asked[0]))
        if rng.random() < DESCRIBED
        else ""
    )
    questions = [asker.ask(fact, rng.choice(forms(fact)), rng.choice(LETTERS)) for fact in asked]
    return head + "\n\n".join(quiz_text(question, with_answer=True) for question in questions)
