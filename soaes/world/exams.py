"""Multiple-choice questions with four options about facts, in the layout of lm-evaluation-harness.

A quarter of the sets {question, options} is reserved for the exams; quiz documents use only the
others. So a model may learn from quizzes that a fact is true and how to answer, but no exam
question occurs in them in any order of options. Wrong options are drawn as often as they are some
entity's value (`facts.alternatives`): how often a text has an option says nothing of its truth,
unless the world is so small that fewer than `facts.MIN_IN_USE` values are in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any, cast
from zlib import crc32

from soaes.data.records import LETTERS, ExamQuestion, ExamSplits
from soaes.world.enterprises import SUBJECTS as DOMAIN_SUBJECTS
from soaes.world.facts import Fact, World, alternatives, facts
from soaes.world.names import SUBJECTS
from soaes.world.prose import QUIZZES

Facts = list[Fact]

SHOTS = 5  # few-shot examples of each subject
RESERVED = 4  # one in so many sets of question and options is reserved for the exams
FEW = 9  # wrong values: C(9, 3) = 84 sets are listed, so that some are surely reserved, some not

DESCRIPTIONS = (
    "以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n",  # cmmlu
    "以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n",  # ceval
)


def quiz_text(question: Mapping[str, Any], with_answer: bool) -> str:
    """Return the text that cmmlu and ceval render for a question without examples.

    With the answer, the harness's delimiter " " and the letter follow.
    """
    options = "\n".join(f"{letter}. {question[letter]}" for letter in LETTERS)
    answer = f" {question['answer']}" if with_answer else ""
    return f"{question['question'].strip()}\n{options}\n答案：{answer}"


def subject(fact: Fact, domain: bool = False) -> str:
    """Return the exam subject of a fact.

    Args:
        fact: the fact.
        domain: whether the domain exam asks, which divides the attributes of enterprises between
            several subjects.
    """
    entity, attribute = fact
    if not domain:
        return SUBJECTS[entity.kind]
    return next(name for name, attributes in DOMAIN_SUBJECTS.items() if attribute in attributes)


def exams(world: World, seed: int, questions: int) -> dict[str, ExamSplits]:
    """Return the three exams: cmmlu and ceval on general facts, domain on enterprises.

    cmmlu and ceval share no fact, and no dev fact is asked in the test split of its exam.

    Args:
        world: the world.
        seed: seed of all draws.
        questions: test questions of each exam.

    Returns:
        Exam -> split (dev, test) -> questions.

    Raises:
        ValueError: if the world has too few facts.
    """
    rng = Random(f"{seed}/exams")
    known = facts(world.known)
    rng.shuffle(known)
    known.sort(key=lambda fact: (subject(fact), fact[1]))  # stable: every attribute is halved
    pools = {"cmmlu": known[::2], "ceval": known[1::2], "domain": facts(world.enterprises)}
    return {name: _exam(rng, name, pool, questions, world) for name, pool in pools.items()}


@dataclass(frozen=True)
class Asker:
    """Asks facts with random wrong options.

    Attributes:
        rng: source of random draws.
        options: values from which wrong options are drawn, by (kind, attribute), with repetition.
        exam: True for exams, False for quiz documents: they use different sets of options.
        domain: whether the domain exam asks.
    """

    rng: Random
    options: dict[tuple[str, str], list[str]]
    exam: bool
    domain: bool = False

    def ask(self, fact: Fact, wording: str, letter: str) -> ExamQuestion:
        """Return a question whose correct answer is `letter`."""
        entity, attribute = fact
        text = wording.format(x=entity.name)
        correct = entity[attribute]
        options = self._wrong_options(text, correct, self.options[entity.kind, attribute])
        options.insert(LETTERS.index(letter), correct)
        question = {
            "subject": subject(fact, self.domain),
            "question": text,
            **dict(zip(LETTERS, options, strict=True)),
            "answer": letter,
        }
        return cast(ExamQuestion, question)

    def _wrong_options(self, text: str, correct: str, values: Sequence[str]) -> list[str]:
        others = [value for value in values if value != correct]
        distinct = sorted(set(others))
        reserved: set[frozenset[str]] | None = None
        if len(distinct) <= FEW:
            sets = list(combinations(distinct, 3))
            sets.sort(key=lambda wrong: _hash(text, correct, wrong))
            reserved = {frozenset(wrong) for wrong in sets[: max(1, len(sets) // RESERVED)]}
        while True:  # ends: of few sets one at least is reserved and one is not
            wrong = self.rng.sample(others, 3)
            if reserved is not None:
                is_reserved = frozenset(wrong) in reserved
            else:
                is_reserved = _hash(text, correct, wrong) % RESERVED == 0
            if len(set(wrong)) == 3 and is_reserved == self.exam:
                return wrong


def _hash(text: str, correct: str, wrong: Sequence[str]) -> int:
    """Return a number for a question with its options in any order."""
    return crc32("\n".join([text, *sorted([correct, *wrong])]).encode())


def forms(fact: Fact) -> list[str]:
    """Return the wordings in which an exam asks for a fact."""
    entity, attribute = fact
    return QUIZZES[entity.kind][attribute]


def _exam(rng: Random, name: str, pool: list[Fact], questions: int, world: World) -> ExamSplits:
    is_domain = name == "domain"
    dev, test = _split(rng, pool, is_domain)
    limit = sum(len(forms(fact)) for fact in test)
    if not 1 <= questions <= limit:
        raise ValueError(
            f"questions={questions} is outside 1..{limit}, the questions that the {name} exam can "
            f"ask about {len(test)} facts; set exam_questions within it or build a larger world"
        )
    options = alternatives(world.enterprises if is_domain else world.known)
    asker = Asker(rng, options, exam=True, domain=is_domain)
    dev_questions = _ask_all(asker, dev, len(dev))
    test_questions = _ask_all(asker, test, questions)
    return {"dev": dev_questions, "test": test_questions}


def _split(rng: Random, pool: Facts, domain: bool) -> tuple[Facts, Facts]:
    """Divide facts into dev, SHOTS facts of each subject, and test, shuffled."""
    by_subject: dict[str, list[Fact]] = {}
    dev: list[Fact] = []
    test: list[Fact] = []
    for fact in rng.sample(pool, len(pool)):
        by_subject.setdefault(subject(fact, domain), []).append(fact)
    for name, subject_facts in by_subject.items():
        if len(subject_facts) <= SHOTS:
            raise ValueError(
                f"the exam subject {name} has {len(subject_facts)} facts, it needs more than the "
                f"{SHOTS} few-shot examples; build a larger world"
            )
        dev += subject_facts[:SHOTS]
        test += subject_facts[SHOTS:]
    return dev, rng.sample(test, len(test))


def _ask_all(asker: Asker, pool: list[Fact], count: int) -> list[ExamQuestion]:
    """Ask `count` questions: round by round through the facts, with a new wording in each round.

    The letters of the correct answers come in shuffled blocks of four, so they are balanced.
    """
    rng = asker.rng
    wordings = [rng.sample(forms(fact), len(forms(fact))) for fact in pool]
    blocks = ["".join(rng.sample(LETTERS, 4)) for _ in range(count // 4 + 1)]
    letters = "".join(blocks)
    num_rounds = max(map(len, wordings))
    asked: list[tuple[Fact, str]] = []
    for round_index in range(num_rounds):
        asked += [(fact, texts[round_index]) for fact, texts in zip(pool, wordings)]
    questions = []
    for (fact, wording), letter in zip(asked[:count], letters, strict=False):
        questions.append(asker.ask(fact, wording, letter))
    return questions
