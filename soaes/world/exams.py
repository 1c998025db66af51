"""Examine the facts with four options each, in the layout of lm-evaluation-harness. Knows facts: not models, not files.

Of the sets {question, options} a quarter is reserved for the exams; quiz documents use only the others. So a model may
learn from quizzes that a fact is true and how to answer, but no exam question occurs in them in any order of options.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from zlib import crc32

from soaes.world.enterprises import SUBJECTS as DOMAIN_SUBJECTS
from soaes.world.facts import Entity, World, alternatives, facts
from soaes.world.names import SUBJECTS
from soaes.world.prose import QUIZZES

Fact = tuple[Entity, str]

LETTERS = "ABCD"
SHOTS = 5  # few-shot examples of each subject
RESERVED = 4  # one set of question and options in so many is an exam's

DESCRIPTIONS = (
    "以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n",  # cmmlu
    "以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n",  # ceval
)


def quiz_text(question: dict, with_answer: bool) -> str:
    """The context that cmmlu and ceval render without examples, and after the harness's delimiter " " the letter."""
    options = "\n".join(f"{letter}. {question[letter]}" for letter in LETTERS)
    answer = f" {question['answer']}" if with_answer else ""
    return f"{question['question'].strip()}\n{options}\n答案：{answer}"


def subject(fact: Fact, domain: bool = False) -> str:
    """The subject that examines a fact; the domain exam splits the enterprises' attributes into several."""
    entity, attribute = fact
    return (
        next(s for s, owned in DOMAIN_SUBJECTS.items() if attribute in owned)
        if domain
        else SUBJECTS[entity.kind]
    )


def exams(world: World, seed: int, questions: int) -> dict[str, dict[str, list[dict]]]:
    """Exam -> split -> questions; cmmlu and ceval share no fact, and no dev fact is asked in the test of its exam."""
    rng = Random(f"{seed}/exams")
    known = facts(world.known)
    rng.shuffle(known)
    known.sort(key=lambda fact: (subject(fact), fact[1]))  # stable: every attribute is halved
    halves = {"cmmlu": known[::2], "ceval": known[1::2], "domain": facts(world.enterprises)}
    return {name: _exam(rng, name, half, questions, world) for name, half in halves.items()}


@dataclass(frozen=True)
class Asker:
    """Asks facts with random wordings, wrong options and option orders; for an exam or for quiz documents."""

    rng: Random
    options: dict[tuple[str, str], list[str]]
    exam: bool
    domain: bool = False

    def ask(self, fact: Fact, wording: str, letter: str) -> dict:
        """One question whose right answer is `letter`."""
        entity, attribute = fact
        text, right = wording.format(x=entity.name), entity[attribute]
        wrong = self._wrong(text, right, self.options[entity.kind, attribute])
        wrong.insert(LETTERS.index(letter), right)
        choices = dict(zip(LETTERS, wrong, strict=True))
        return {
            "subject": subject(fact, self.domain),
            "question": text,
            **choices,
            "answer": letter,
        }

    def _wrong(self, text: str, right: str, values: Sequence[str]) -> list[str]:
        others = [value for value in values if value != right]
        while True:  # ends: of at least C(9, 3) = 84 sets a quarter is reserved
            wrong = self.rng.sample(others, 3)
            key = "\n".join([text, *sorted([right, *wrong])])
            if (crc32(key.encode()) % RESERVED == 0) == self.exam:
                return wrong


def forms(fact: Fact) -> list[str]:
    """The ways to ask for a fact in an exam."""
    entity, attribute = fact
    return QUIZZES[entity.kind][attribute]


def _exam(
    rng: Random, name: str, pool: list[Fact], questions: int, world: World
) -> dict[str, list[dict]]:
    dev, test = _split(rng, pool, name == "domain")
    most = sum(len(forms(fact)) for fact in test)
    if not 1 <= questions <= most:
        raise ValueError(
            f"questions={questions} is outside 1..{most}, the questions that the {name} exam can ask about "
            f"{len(test)} facts; set questions within it or build a larger world"
        )
    options = alternatives(world.enterprises if name == "domain" else world.known)
    asker = Asker(rng, options, exam=True, domain=name == "domain")
    return {"dev": _ask_all(asker, dev, len(dev)), "test": _ask_all(asker, test, questions)}


def _split(rng: Random, pool: list[Fact], domain: bool) -> tuple[list[Fact], list[Fact]]:
    by_subject: dict[str, list[Fact]] = {}
    for fact in rng.sample(pool, len(pool)):
        by_subject.setdefault(subject(fact, domain), []).append(fact)
    for name, owned in by_subject.items():
        if len(owned) <= SHOTS:
            raise ValueError(
                f"the exam subject {name} has {len(owned)} facts, it needs more than the {SHOTS} few-shot examples; "
                f"build a larger world"
            )
    dev = [fact for owned in by_subject.values() for fact in owned[:SHOTS]]
    test = [fact for owned in by_subject.values() for fact in owned[SHOTS:]]
    return dev, rng.sample(test, len(test))


def _ask_all(asker: Asker, pool: list[Fact], count: int) -> list[dict]:
    # Round by round through the facts, a new wording in each round; letters in shuffled blocks of four are balanced.
    rng = asker.rng
    orders = [rng.sample(forms(fact), len(forms(fact))) for fact in pool]
    letters = "".join("".join(rng.sample(LETTERS, 4)) for _ in range(count // 4 + 1))
    asked = [
        (fact, order[n])
        for n in range(max(map(len, orders)))
        for fact, order in zip(pool, orders, strict=True)
    ]
    return [
        asker.ask(fact, wording, letter)
        for (fact, wording), letter in zip(asked[:count], letters, strict=False)
    ]
