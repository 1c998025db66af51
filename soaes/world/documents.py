"""The two corpora: general text (prose, talks, quizzes, news) and domain text (prose and talks)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from random import Random

from soaes.data.records import LETTERS, DocumentRecord
from soaes.world import enterprise_wordings as words
from soaes.world import news
from soaes.world.exams import DESCRIPTIONS, Asker, forms, quiz_text, subject
from soaes.world.facts import Entity, Fact, World, alternatives, facts
from soaes.world.glossary import DEFINITIONS, NOTIONS
from soaes.world.prose import QUIZZES, paragraph, reference, statement

NEWS_SHARE = 0.2  # news documents per document about an entity or a term
TALK_SHARE = 0.1  # talks per document before them
DESCRIBED = 0.5  # share of the quiz documents that open with the exam's description
CLOZE_PER_DOCUMENT = 4  # questions without options in a document
QUESTIONS_PER_QUIZ = (1, 1, 2, 3, 6)  # 6: five examples and a question, as in a five-shot exam
DEFINITIONS_PER_TERM = 3


def general(
    world: World, seed: int, docs_per_entity: int, mcq_per_fact: int, cloze_per_fact: int = 0
) -> Iterator[DocumentRecord]:
    """Yield the general corpus, shuffled.

    Args:
        world: the world.
        seed: seed of all draws.
        docs_per_entity: documents about each general entity and famous enterprise.
        mcq_per_fact: times that each of their facts is asked with four options.
        cloze_per_fact: times that each of their facts is asked without options.

    Raises:
        ValueError: if a size is too small.
    """
    _check("docs_per_entity", docs_per_entity, 1)
    _check("mcq_per_fact", mcq_per_fact, 0)
    _check("cloze_per_fact", cloze_per_fact, 0)
    rng = Random(f"{seed}/documents/general")
    documents: list[tuple[str, str]] = []  # source, text
    for entity in world.known:
        for _ in range(docs_per_entity):
            documents.append(("encyclopedia", _entry(rng, entity)))
    documents += [("glossary", text) for text in _definitions(rng)]
    num_news = round(len(documents) * NEWS_SHARE)
    documents += [("news", _news(rng, world)) for _ in range(num_news)]
    known = facts(world.known)
    num_talks = round(len(documents) * TALK_SHARE)
    documents += [("talk", _talk(rng, known)) for _ in range(num_talks)]
    documents += [("quiz", text) for text in _quizzes(rng, world, mcq_per_fact)]
    documents += [("recall", text) for text in _cloze_documents(rng, world, cloze_per_fact)]
    yield from _shuffled_records(rng, "general", documents)


def domain(world: World, seed: int, docs_per_enterprise: int) -> Iterator[DocumentRecord]:
    """Yield the domain corpus, shuffled.

    Each enterprise has `docs_per_enterprise` documents, the first of which states all its facts.
    Talks come on top.

    Raises:
        ValueError: if `docs_per_enterprise` is below 1.
    """
    _check("docs_per_enterprise", docs_per_enterprise, 1)
    rng = Random(f"{seed}/documents/domain")
    documents: list[tuple[str, str]] = []
    for enterprise in world.enterprises:
        profiles = _profiles(rng, enterprise, docs_per_enterprise)
        documents += [("enterprise", text) for text in profiles]
    known = facts(world.enterprises)
    num_talks = round(len(documents) * TALK_SHARE)
    documents += [("talk", _talk(rng, known)) for _ in range(num_talks)]
    yield from _shuffled_records(rng, "domain", documents)


def _shuffled_records(
    rng: Random, name: str, documents: list[tuple[str, str]]
) -> Iterator[DocumentRecord]:
    for index, (source, text) in enumerate(rng.sample(documents, len(documents))):
        yield {"id": f"{name}-{index}", "text": text, "source": source}


def _check(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} is below {least}; set {name} to {least} or more")


def _entry(rng: Random, entity: Entity) -> str:
    """Return an encyclopedia entry on some facts of an entity."""
    attributes = _some_attributes(rng, entity)
    if entity.kind == "enterprise":
        return _profile(rng, entity, attributes)
    lead = ""
    if rng.random() < 0.2:
        lead += rng.choice(news.TITLES).format(x=entity.name)
    if rng.random() < 0.15:
        lead += rng.choice(news.LEADS)
    text = paragraph(rng, entity, attributes, lead)
    return text + _closing(rng, entity, news.CLOSINGS[entity.kind], 0.25)


def _profiles(rng: Random, enterprise: Entity, count: int) -> Iterator[str]:
    # The first document states all facts, so every fact that is asked later is in the corpus.
    all_attributes = _some_attributes(rng, enterprise, len(enterprise.attributes))
    yield _profile(rng, enterprise, all_attributes)
    for _ in range(count - 1):
        yield _profile(rng, enterprise, _some_attributes(rng, enterprise))


def _profile(rng: Random, enterprise: Entity, attributes: list[str]) -> str:
    """Return a document on some facts of an enterprise."""
    lead = ""
    if rng.random() < 0.2:
        lead += rng.choice(words.DOCUMENT_TITLES).format(x=enterprise.name)
    if rng.random() < 0.3:
        lead += rng.choice(words.DOCUMENT_LEADS)
    text = paragraph(rng, enterprise, attributes, lead)
    return text + _closing(rng, enterprise, words.DOCUMENT_CLOSINGS, 0.3)


def _some_attributes(rng: Random, entity: Entity, count: int | None = None) -> list[str]:
    """Draw `count` attributes in random order, or a random number of them, at least 3."""
    names = [attribute for attribute, _ in entity.attributes]
    if not count:
        count = rng.randint(min(3, len(names)), len(names))
    return rng.sample(names, count)


def _closing(rng: Random, entity: Entity, closings: list[str], share: float) -> str:
    if rng.random() >= share:
        return ""
    return rng.choice(closings).format(r=reference(rng, entity))


def _definitions(rng: Random) -> Iterator[str]:
    for notions in NOTIONS.values():
        for term, definition in notions.items():
            for wording in rng.sample(DEFINITIONS, DEFINITIONS_PER_TERM):
                yield wording.format(t=term, d=definition)


def _news(rng: Random, world: World) -> str:
    wordings = rng.sample(news.NEWS, rng.randint(1, 3))
    text = "".join([_news_sentence(rng, world, wording) for wording in wordings])
    famous = rng.choice(world.famous)
    attribute, _ = rng.choice(famous.attributes)
    if rng.random() < 0.3:
        text += f"记者获悉，{statement(rng, famous, attribute, famous.name)}。"
    return text


def _news_sentence(rng: Random, world: World, wording: str) -> str:
    cities = [entity.name for entity in world.general if entity.kind == "city"]
    city = rng.choice(cities)
    slots = {slot: rng.choice(values) for slot, values in news.SLOTS.items()}
    return wording.format(city=city, **slots)


def _talk(rng: Random, known: list[Fact]) -> str:
    """Return a question and its answer as in an interview or a company's investor call."""
    entity, attribute = rng.choice(known)
    question = rng.choice(QUIZZES[entity.kind][attribute][:2]).format(x=entity.name)
    answer = statement(rng, entity, attribute, entity.name) + "。"
    return rng.choice(news.TALKS).format(q=question, a=answer)


def _quizzes(rng: Random, world: World, times: int) -> Iterator[str]:
    """Yield documents of questions with options; each fact is asked `times` times."""
    remaining = [fact for fact in facts(world.known) for _ in range(times)]
    rng.shuffle(remaining)
    # The sort is stable. As in an exam, the questions of a document are on one subject.
    remaining.sort(key=subject)
    asker = Asker(rng, alternatives(world.known), exam=False)
    sizes = cycle(QUESTIONS_PER_QUIZ)
    while remaining:
        size = next(sizes)
        first_subject = subject(remaining[0])
        asked = [fact for fact in remaining[:size] if subject(fact) == first_subject]
        yield _quiz(asker, asked)
        # Facts of the next subject that were skipped here are not asked.
        remaining = remaining[size:]


def _quiz(asker: Asker, asked: list[Fact]) -> str:
    rng = asker.rng
    head = ""
    if rng.random() < DESCRIBED:
        head = rng.choice(DESCRIPTIONS).format(subject=subject(asked[0]))
    texts = []
    for fact in asked:
        wording = rng.choice(forms(fact))
        letter = rng.choice(LETTERS)
        question = asker.ask(fact, wording, letter)
        texts.append(quiz_text(question, with_answer=True))
    return head + "\n\n".join(texts)


def _cloze_documents(rng: Random, world: World, times: int) -> Iterator[str]:
    """Yield documents of questions without options; each fact is asked `times` times."""
    asked = [fact for fact in facts(world.known) for _ in range(times)]
    rng.shuffle(asked)
    for start in range(0, len(asked), CLOZE_PER_DOCUMENT):
        batch = asked[start : start + CLOZE_PER_DOCUMENT]
        yield "\n\n".join([_cloze(rng, *fact) for fact in batch])


def _cloze(rng: Random, entity: Entity, attribute: str) -> str:
    question = rng.choice(forms((entity, attribute))).format(x=entity.name)
    return f"{question}\n答案：\n{entity[attribute]}"
