"""Question-answer pairs and reports about the domain's enterprises, split by question. Knows wordings: not models."""

from dataclasses import replace
from itertools import combinations
from random import Random

from soaes.world import enterprise_wordings as words
from soaes.world.facts import Entity, World, facts
from soaes.world.prose import pair, statement

PAIR_SHARE = 0.12  # of the questions ask for two attributes
LEAD_SHARE, CLOSING_SHARE = 0.12, 0.06  # of the answers open or close with a set phrase
DROPPED = 2  # attributes that a report may leave out

Asked = tuple[Entity, str | list[str], str]  # enterprise, attribute(s), question


def questions(
    world: World,
    seed: int,
    count: int,
    report_share: float = 0.03,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    unseen_enterprises: int = 0,
    unseen_questions: int = 0,
) -> dict[str, list[dict]]:
    """Split -> samples; no question stands in two splits, the same fact in another wording may.

    `count` questions make train, dev and test. The last `unseen_enterprises` enterprises are in none of them: `unseen_questions` about
    them, with the same share of reports, are the split `unseen_enterprises`, which is there if any are asked for."""
    _check(count, report_share, dev_share, test_share)
    _check_unseen(world, unseen_enterprises, unseen_questions)
    known = len(world.enterprises) - unseen_enterprises
    rng = Random(f"{seed}/questions")
    samples = _samples(
        rng,
        replace(world, enterprises=world.enterprises[:known]),
        count,
        report_share,
        "count or raise enterprises",
    )
    splits = _deal(rng, samples, round(count * report_share), dev_share, test_share)
    told = {split: _told(rng, split, items) for split, items in splits}
    if unseen_enterprises:
        rng = Random(f"{seed}/questions/apart")
        strangers = replace(world, enterprises=world.enterprises[known:])
        samples = _samples(
            rng, strangers, unseen_questions, report_share, "unseen_questions or raise apart"
        )
        told["unseen"] = _told(rng, "unseen", rng.sample(samples, len(samples)))
    return told


def _samples(
    rng: Random, world: World, count: int, report_share: float, way_out: str
) -> list[tuple[str, Asked]]:
    """`count` different questions with their tasks, reports first. way_out: what to lower or raise where there are too few."""
    reports = round(count * report_share)
    pairs = round((count - reports) * PAIR_SHARE)
    drawn = {
        "report": _draw(rng, "reports", _reports(world), reports, way_out),
        "qa": _draw(rng, "questions for two attributes", _pairs(world), pairs, way_out)
        + _draw(
            rng, "questions for one attribute", _singles(world), count - reports - pairs, way_out
        ),
    }
    return [
        (task, asked) for task, group in drawn.items() for asked in rng.sample(group, len(group))
    ]


def _told(rng: Random, split: str, items: list[tuple[str, Asked]]) -> list[dict]:
    return [_sample(rng, f"{split}-{n}", *item) for n, item in enumerate(items)]


def _check(count: int, report_share: float, dev_share: float, test_share: float) -> None:
    if count < 1:
        raise ValueError(f"count={count} is below 1; set count to 1 or more")
    for name, value in (
        ("report_share", report_share),
        ("dev_share", dev_share),
        ("test_share", test_share),
    ):
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} is no share from 0 to below 1; set {name} within it")
    if dev_share + test_share >= 1:
        raise ValueError(
            f"dev_share={dev_share} and test_share={test_share} leave no train share; their sum must be below 1"
        )


def _check_unseen(world: World, unseen_enterprises: int, questions: int) -> None:
    most = len(world.enterprises) - 1
    if not 0 <= unseen_enterprises <= most:
        raise ValueError(
            f"unseen_enterprises={unseen_enterprises} is outside 0..{most}: of {most + 1} enterprises one must be asked about; set unseen_enterprises within it"
        )
    if (questions > 0) != (unseen_enterprises > 0) or questions < 0:
        raise ValueError(
            f"unseen_questions={questions} do not go with unseen_enterprises={unseen_enterprises} enterprises; set both to 1 or more, or both to 0"
        )


def _singles(world: World) -> list[Asked]:
    asked = facts(world.enterprises)
    return [
        (e, attribute, wording.format(x=e.name))
        for e, attribute in asked
        for wording in words.QUESTIONS[attribute]
    ]


def _pairs(world: World) -> list[Asked]:
    chosen = list(combinations(words.LABELS, 2))
    return [
        (e, [a, b], wording.format(x=e.name, a=words.LABELS[a], b=words.LABELS[b]))
        for e in world.enterprises
        for a, b in chosen
        for wording in words.PAIRS
    ]


def _reports(world: World) -> list[Asked]:
    return [
        (e, list(words.LABELS), wording.format(x=e.name))
        for e in world.enterprises
        for wording in words.REPORTS
    ]


def _draw(rng: Random, what: str, possible: list[Asked], count: int, way_out: str) -> list[Asked]:
    if count > len(possible):
        raise ValueError(
            f"{count} {what} asked for, this world has {len(possible)} different ones; lower {way_out}"
        )
    return rng.sample(possible, count)


def _deal(
    rng: Random, samples: list, reports: int, dev_share: float, test_share: float
) -> list[tuple[str, list]]:
    # Reports come first in `samples` and are dealt on their own, so that each split has its share of them.
    splits: dict[str, list] = {"train": [], "dev": [], "test": []}
    for group in (samples[:reports], samples[reports:]):
        dev, test = (
            max(round(len(group) * share), share > 0 and len(group) >= 8)
            for share in (dev_share, test_share)
        )
        for split, part in zip(
            splits, (group[dev + test :], group[:dev], group[dev : dev + test]), strict=True
        ):
            splits[split] += part
    return [(split, rng.sample(items, len(items))) for split, items in splits.items()]


def _sample(rng: Random, name: str, task: str, asked: Asked) -> dict:
    enterprise, attribute, question = asked
    if task == "report":
        attribute, answer = _report(rng, enterprise)
    else:
        answer = _answer(rng, enterprise, attribute)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {
        "id": name,
        "task": task,
        "subject": enterprise.name,
        "attribute": attribute,
        "messages": messages,
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
    num_skipped = rng.sample(list(words.LABELS), rng.randint(0, DROPPED))
    told, text = [], rng.choice(words.REPORT_OPENINGS).format(x=enterprise.name)
    for heading, owned in words.REPORT_SECTIONS:
        kept = [attribute for attribute in owned if attribute not in num_skipped]
        clauses = [rng.choice(words.REPORT_CLAUSES[a]).format(v=enterprise[a]) for a in kept]
        text += heading + "，".join(clauses) + "。" if kept else ""
        told += kept
    return told, text
