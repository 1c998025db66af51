"""Questions, answers and reports about the domain's enterprises, divided into splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Literal, TypeVar

from soaes.data.records import QuestionRecord
from soaes.world import enterprise_wordings as words
from soaes.world.facts import Entity, World, facts
from soaes.world.prose import pair, statement

PAIR_SHARE = 0.12  # share of the questions that ask for two attributes
LEAD_SHARE = 0.12  # share of the answers that open with a set phrase
CLOSING_SHARE = 0.06  # share of the answers that close with a set phrase
MAX_OMITTED = 2  # attributes that a report may leave out

Task = Literal["qa", "report"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """A question without its answer.

    Attributes:
        enterprise: the enterprise asked about.
        attribute: the attribute asked for, or several.
        text: the question.
    """

    enterprise: Entity
    attribute: str | list[str]
    text: str


def questions(
    world: World,
    seed: int,
    count: int,
    report_share: float = 0.03,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    unseen_enterprises: int = 0,
    unseen_questions: int = 0,
) -> dict[str, list[QuestionRecord]]:
    """Return the questions of each split.

    No question is in two splits; the same fact in another wording may be.

    Args:
        world: the world.
        seed: seed of all draws.
        count: questions of train, dev and test together.
        report_share: share of the questions that ask for a report.
        dev_share: share of the questions in dev.
        test_share: share of the questions in test.
        unseen_enterprises: enterprises, the last of the world, that train, dev and test do not ask
            about.
        unseen_questions: questions about these, with the same share of reports. They make the split
            `unseen`, which exists if there are any.

    Raises:
        ValueError: for sizes and shares out of range, or more questions than the world has.
    """
    _check_shares(count, report_share, dev_share, test_share)
    _check_unseen(world, unseen_enterprises, unseen_questions)
    num_seen = len(world.enterprises) - unseen_enterprises
    rng = Random(f"{seed}/questions")
    seen_world = replace(world, enterprises=world.enterprises[:num_seen])
    drawn = _draw_questions(rng, seen_world, count, report_share, "count or raise enterprises")
    num_reports = round(count * report_share)
    splits = _divide(rng, drawn, num_reports, dev_share, test_share)
    records = {split: _records(rng, split, items) for split, items in splits.items()}
    if unseen_enterprises:
        rng = Random(f"{seed}/questions/apart")
        unseen_world = replace(world, enterprises=world.enterprises[num_seen:])
        way_out = "unseen_questions or raise unseen_enterprises"
        drawn = _draw_questions(rng, unseen_world, unseen_questions, report_share, way_out)
        records["unseen"] = _records(rng, "unseen", rng.sample(drawn, len(drawn)))
    return records


def _draw_questions(
    rng: Random, world: World, count: int, report_share: float, way_out: str
) -> list[tuple[Task, Question]]:
    """Draw `count` different questions with their tasks, reports first.

    way_out: what to lower or raise where the world has too few, for the error message.
    """
    num_reports = round(count * report_share)
    num_pairs = round((count - num_reports) * PAIR_SHARE)
    num_singles = count - num_reports - num_pairs
    reports = _draw(rng, "reports", _reports(world), num_reports, way_out)
    pairs = _draw(rng, "questions for two attributes", _pairs(world), num_pairs, way_out)
    singles = _draw(rng, "questions for one attribute", _singles(world), num_singles, way_out)
    qa = pairs + singles
    drawn: list[tuple[Task, Question]] = []
    drawn += [("report", question) for question in rng.sample(reports, len(reports))]
    drawn += [("qa", question) for question in rng.sample(qa, len(qa))]
    return drawn


def _check_shares(count: int, report_share: float, dev_share: float, test_share: float) -> None:
    if count < 1:
        raise ValueError(f"count={count} is below 1; set count to 1 or more")
    shares = {"report_share": report_share, "dev_share": dev_share, "test_share": test_share}
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} must lie in [0, 1); set {name} within it")
    if dev_share + test_share >= 1:
        raise ValueError(
            f"dev_share={dev_share} and test_share={test_share} leave nothing for train; "
            "their sum must be below 1"
        )


def _check_unseen(world: World, unseen_enterprises: int, unseen_questions: int) -> None:
    limit = len(world.enterprises) - 1
    if not 0 <= unseen_enterprises <= limit:
        raise ValueError(
            f"unseen_enterprises={unseen_enterprises} is outside 0..{limit}: of {limit + 1} "
            "enterprises one must be asked about; set unseen_enterprises within it"
        )
    if (unseen_questions > 0) != (unseen_enterprises > 0) or unseen_questions < 0:
        raise ValueError(
            f"unseen_questions={unseen_questions} and unseen_enterprises={unseen_enterprises} "
            "do not fit together; set both to 1 or more, or both to 0"
        )


def _singles(world: World) -> list[Question]:
    """Return all questions for one attribute."""
    return [
        Question(enterprise, attribute, wording.format(x=enterprise.name))
        for enterprise, attribute in facts(world.enterprises)
        for wording in words.QUESTIONS[attribute]
    ]


def _pairs(world: World) -> list[Question]:
    """Return all questions for two attributes."""
    possible = []
    for enterprise in world.enterprises:
        for first, second in combinations(words.LABELS, 2):
            labels = {"a": words.LABELS[first], "b": words.LABELS[second]}
            for wording in words.PAIRS:
                text = wording.format(x=enterprise.name, **labels)
                possible.append(Question(enterprise, [first, second], text))
    return possible


def _reports(world: World) -> list[Question]:
    """Return all requests for a report."""
    return [
        Question(enterprise, list(words.LABELS), wording.format(x=enterprise.name))
        for enterprise in world.enterprises
        for wording in words.REPORTS
    ]


def _draw(
    rng: Random, what: str, possible: list[Question], count: int, way_out: str
) -> list[Question]:
    if count > len(possible):
        raise ValueError(
            f"{count} {what} are needed, this world has {len(possible)} different ones; "
            f"lower {way_out}"
        )
    return rng.sample(possible, count)


def _divide(
    rng: Random, items: Sequence[Item], num_reports: int, dev_share: float, test_share: float
) -> dict[str, list[Item]]:
    """Divide questions into splits. Reports come first in `items` and are divided on their own."""
    train: list[Item] = []
    dev: list[Item] = []
    test: list[Item] = []
    for group in (items[:num_reports], items[num_reports:]):
        num_dev = _part_size(len(group), dev_share)
        num_test = _part_size(len(group), test_share)
        train += group[num_dev + num_test :]
        dev += group[:num_dev]
        test += group[num_dev : num_dev + num_test]
    splits = {"train": train, "dev": dev, "test": test}
    return {split: rng.sample(part, len(part)) for split, part in splits.items()}


def _part_size(count: int, share: float) -> int:
    """Return the share of `count`, at least 1 where there are 8 or more."""
    least = 1 if share > 0 and count >= 8 else 0
    return max(round(count * share), least)


def _records(
    rng: Random, split: str, items: Sequence[tuple[Task, Question]]
) -> list[QuestionRecord]:
    """Answer the questions of a split."""
    records = []
    for index, (task, question) in enumerate(items):
        records.append(_record(rng, f"{split}-{index}", task, question))
    return records


def _record(rng: Random, identifier: str, task: Task, question: Question) -> QuestionRecord:
    attribute = question.attribute
    if task == "report":
        attribute, answer = _report(rng, question.enterprise)
    else:
        answer = _answer(rng, question.enterprise, attribute)
    names = [attribute] if isinstance(attribute, str) else attribute
    return {
        "id": identifier,
        "task": task,
        "subject": question.enterprise.name,
        "attribute": attribute,
        "values": [question.enterprise[name] for name in names],
        "messages": [
            {"role": "user", "content": question.text},
            {"role": "assistant", "content": answer},
        ],
    }


def _answer(rng: Random, enterprise: Entity, attribute: str | list[str]) -> str:
    if isinstance(attribute, list):
        text = pair(rng, enterprise, *attribute)
    else:
        text = statement(rng, enterprise, attribute, enterprise.name, zipf=True) + "。"
    lead = rng.choice(words.ANSWER_LEADS) if rng.random() < LEAD_SHARE else ""
    closing = rng.choice(words.ANSWER_CLOSINGS) if rng.random() < CLOSING_SHARE else ""
    return lead + text + closing


def _report(rng: Random, enterprise: Entity) -> tuple[list[str], str]:
    """Return the attributes that a report covers, and its text."""
    omitted = rng.sample(list(words.LABELS), rng.randint(0, MAX_OMITTED))
    text = rng.choice(words.REPORT_OPENINGS).format(x=enterprise.name)
    covered: list[str] = []
    for heading, attributes in words.REPORT_SECTIONS:
        section = [attribute for attribute in attributes if attribute not in omitted]
        if not section:
            continue
        clauses = []
        for attribute in section:
            wording = rng.choice(words.REPORT_CLAUSES[attribute])
            clauses.append(wording.format(v=enterprise[attribute]))
        text += heading + "，".join(clauses) + "。"
        covered += section
    return covered, text
