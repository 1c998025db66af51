"""The synthetic world: deterministic, with disjoint splits and true answers."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from soaes.data.records import LETTERS
from soaes.world import dialogues, documents, exams, facts, questions
from soaes.world import enterprise_wordings as words
from soaes.world.names import NAMES, SUBJECTS
from soaes.world.prose import QUIZZES, STATEMENTS

WORLD = facts.build(0, entities=24, famous=4, enterprises=16)


def samples(world, seed=0):
    return questions.questions(world, seed, count=600)


def everything(seed):
    world = facts.build(seed, entities=24, famous=4, enterprises=16)
    texts = [
        *documents.general(world, seed, docs_per_entity=3, mcq_per_fact=2),
        *documents.domain(world, seed, docs_per_enterprise=3),
    ]
    chats = list(dialogues.dialogues(world, seed, count=70))
    chats += dialogues.short_questions(world, seed, count=70)
    return world, texts, chats, samples(world, seed), exams.exams(world, seed, questions=40)


def contents(group):
    return [sample["messages"][0]["content"] for sample in group]


def test_same_seed_same_world_in_every_process():
    code = f"import runpy; print(repr(runpy.run_path({__file__!r})['everything'](3)))"
    paths = os.pathsep.join(sys.path)
    processes = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": h, "PYTHONPATH": paths},
            capture_output=True,
            check=True,
        )
        for h in "12"
    ]
    assert processes[0].stdout == processes[1].stdout == f"{everything(3)!r}\n".encode()


def test_the_text_of_the_world_is_that_of_its_revision():
    """What changes it raises `revision` of `documents` in conf/data/world.yaml, and this digest."""
    digest = hashlib.sha256(f"{everything(3)!r}".encode()).hexdigest()
    assert digest[:16] == "30e326e67b91e7fb"


def test_other_seed_other_world():
    assert all(left != right for left, right in zip(everything(0), everything(1), strict=True))


def test_no_name_contains_another():
    names = ["".join(parts) for pools in NAMES.values() for parts in product(*pools)] + facts.BRANDS
    text = "\n".join(names)
    assert all(text.count(name) == 1 for name in names)


def test_famous_and_other_enterprises_are_disjoint():
    famous, others = ({e.name for e in group} for group in (WORLD.famous, WORLD.enterprises))
    assert len(famous) == 4 and len(others) == 16 and not famous & others


def test_the_general_corpus_never_names_a_domain_enterprise():
    texts = [d["text"] for d in documents.general(WORLD, 0, docs_per_entity=8, mcq_per_fact=4)]
    texts += [m["content"] for d in dialogues.dialogues(WORLD, 0, count=140) for m in d["messages"]]
    assert not [text for text in texts for e in WORLD.enterprises if e.name in text]


def test_the_domain_corpus_tells_every_fact_of_each_enterprise():
    texts = [
        d["text"]
        for d in documents.domain(WORLD, 0, docs_per_enterprise=1)
        if d["source"] == "enterprise"
    ]
    for enterprise in WORLD.enterprises:
        (text,) = (text for text in texts if enterprise.name in text)
        assert all(value in text for _, value in enterprise.attributes)
    assert not [text for text in texts if "答案：" in text]


def test_prose_has_no_doubled_punctuation_and_no_open_slot():
    _, corpus, chats, asked, _ = everything(0)
    texts = [document["text"] for document in corpus if document["source"] != "quiz"]
    texts += [m["content"] for s in [*chats, *asked["train"]] for m in s["messages"]]
    assert not [text for text in texts if re.search("[，。？：、]{2}|[{}]|年年|的的|，$", text)]


def test_each_statement_names_its_subject_and_value_and_some_open_with_it():
    for table in STATEMENTS.values():
        for wordings in table.values():
            assert len(wordings) == len(set(wordings)) >= 5
            assert all(w.count("{x}") == w.count("{v}") == 1 for w in wordings)
            assert sum(w.startswith("{x}") for w in wordings) >= 2
    for wordings in words.STATEMENTS.values():
        assert len(wordings) >= 12 and any(w.startswith("{x}的") for w in wordings)


def test_no_question_stands_in_two_splits():
    asked = [question for group in samples(WORLD).values() for question in contents(group)]
    assert len(asked) == len(set(asked)) == 600


def test_enterprises_set_apart_are_in_the_corpus_and_asked_about_in_their_own_split_alone():
    asked = questions.questions(WORLD, 0, count=400, unseen_enterprises=3, unseen_questions=40)
    named = {split: {sample["subject"] for sample in group} for split, group in asked.items()}
    assert (
        named["unseen"] == {e.name for e in WORLD.enterprises[-3:]} and len(asked["unseen"]) == 40
    )
    everyone = [
        m["content"]
        for split in ("train", "dev", "test")
        for s in asked[split]
        for m in s["messages"]
    ]
    assert not [text for text in everyone for name in named["unseen"] if name in text]
    corpus = "".join(d["text"] for d in documents.domain(WORLD, 0, docs_per_enterprise=1))
    assert all(
        value in corpus
        for e in WORLD.enterprises[-3:]
        for value in (e.name, *dict(e.attributes).values())
    )
    assert [s["id"] for s in asked["unseen"][:2]] == ["unseen-0", "unseen-1"]
    assert (
        sum(s["task"] == "report" for s in asked["unseen"]) == 1
        and len(set(contents(asked["unseen"]))) == 40
    )


def test_questions_set_apart_leave_the_draw_of_the_others_alone():
    few, many = (
        questions.questions(WORLD, 0, count=400, unseen_enterprises=3, unseen_questions=n)
        for n in (10, 90)
    )
    assert all(few[split] == many[split] for split in ("train", "dev", "test"))
    without = replace(WORLD, enterprises=WORLD.enterprises[:-3])
    assert questions.questions(without, 0, count=400) == {
        split: few[split] for split in ("train", "dev", "test")
    }


def test_splits_and_reports_have_their_shares():
    splits = questions.questions(WORLD, 0, count=300)
    assert {split: len(group) for split, group in splits.items()} == {
        "train": 240,
        "dev": 30,
        "test": 30,
    }
    reports = {split: sum(s["task"] == "report" for s in group) for split, group in splits.items()}
    assert sum(reports.values()) == 9 and min(reports.values()) >= 1


def test_every_answer_holds_the_true_values():
    enterprises = {e.name: e for e in WORLD.enterprises}
    for sample in (s for group in samples(WORLD).values() for s in group):
        question, answer = (m["content"] for m in sample["messages"])
        attributes = (
            [sample["attribute"]] if isinstance(sample["attribute"], str) else sample["attribute"]
        )
        assert sample["subject"] in question and sample["subject"] in answer
        assert all(enterprises[sample["subject"]][a] in answer for a in attributes)


def test_reports_have_four_to_seven_sentences_over_most_attributes():
    reports = [s for group in samples(WORLD).values() for s in group if s["task"] == "report"]
    for report in reports:
        text = re.sub(
            "[一二三]、.{4}。", "", report["messages"][1]["content"]
        )  # headings are no sentences
        assert 4 <= text.count("。") <= 7 and len(report["attribute"]) >= 7
        assert len(report["messages"][1]["content"]) <= 150


def test_the_first_wording_of_an_answer_is_the_most_frequent():
    answers = [s for s in samples(WORLD)["train"] if s["attribute"] == "headquarters"]
    first = sum("总部位于" in s["messages"][1]["content"] for s in answers)
    assert first > 2 * len(answers) / len(words.STATEMENTS["headquarters"])


def asked_facts(split, world):
    """Yield entity, attribute and question, as found from the text of each question."""
    for question in split:
        entity = next(e for e in world.known + world.enterprises if e.name in question["question"])
        wording = question["question"].replace(entity.name, "{x}")
        (attribute,) = (a for a, _ in entity.attributes if wording in exams.forms((entity, a)))
        yield entity, attribute, question


def test_the_general_exams_share_no_fact_and_dev_none_with_test():
    asked = {
        (name, split): {(e.name, a) for e, a, _ in asked_facts(group, WORLD)}
        for name, exam in exams.exams(WORLD, 0, questions=40).items()
        for split, group in exam.items()
    }
    assert not (asked["cmmlu", "dev"] | asked["cmmlu", "test"]) & (
        asked["ceval", "dev"] | asked["ceval", "test"]
    )
    assert not [
        name for name in ("cmmlu", "ceval", "domain") if asked[name, "dev"] & asked[name, "test"]
    ]


def test_exam_answers_are_true_and_the_other_options_false():
    for exam in exams.exams(WORLD, 0, questions=60).values():
        for entity, attribute, question in asked_facts(exam["dev"] + exam["test"], WORLD):
            options = [question[letter] for letter in LETTERS]
            assert question[question["answer"]] == entity[attribute] and len(set(options)) == 4


def test_exams_are_balanced_and_have_five_shots_a_subject():
    for name, exam in exams.exams(WORLD, 0, questions=40).items():
        assert set(Counter(q["answer"] for q in exam["test"]).values()) == {10}
        assert set(Counter(q["subject"] for q in exam["dev"]).values()) == {5}
        assert {q["subject"] for q in exam["test"]} <= {q["subject"] for q in exam["dev"]}
        assert len({q["question"] for q in exam["test"]}) == 40
        assert name == "domain" or {q["subject"] for q in exam["dev"]} <= set(SUBJECTS.values())


@pytest.mark.parametrize(
    "sizes",
    [
        dict(entities=24, famous=6, enterprises=16),
        dict(entities=60, famous=15, enterprises=60),
        dict(entities=120, famous=30, enterprises=120),
    ],
    ids=["24-entities", "60-entities", "120-entities"],
)
def test_how_often_a_text_has_an_option_does_not_tell_the_right_one(sizes):
    world = facts.build(0, **sizes)
    general = documents.general(world, 0, docs_per_entity=8, mcq_per_fact=2)
    text = "\n".join(document["text"] for document in general)
    correct = []
    for name in ("cmmlu", "ceval"):
        for question in exams.exams(world, 0, questions=100)[name]["test"]:
            counts = {letter: text.count(question[letter]) for letter in LETTERS}
            most = [letter for letter in LETTERS if counts[letter] == max(counts.values())]
            correct.append((question["answer"] in most) / len(most))
    chance = sum(correct) / len(correct)
    assert abs(chance - 0.25) < 3 * (0.25 * 0.75 / len(correct)) ** 0.5


def test_no_exam_question_occurs_in_the_quizzes():
    def key(text):
        lines = re.sub("[A-D]\\. ", "", text).split("\n")
        return lines[0], *sorted(lines[1:5])

    quizzes = [
        d["text"]
        for d in documents.general(WORLD, 0, docs_per_entity=1, mcq_per_fact=30)
        if d["source"] == "quiz"
    ]
    blocks = {key(block) for text in quizzes for block in text.split("\n\n") if "答案" in block}
    exam = exams.exams(WORLD, 0, questions=40)["cmmlu"]["test"]
    assert blocks and not blocks & {
        key(exams.quiz_text(question, with_answer=True)) for question in exam
    }


def test_the_layout_is_the_harness_layout():
    question = {
        "question": " 云川市位于哪个省？ ",
        "A": "甲",
        "B": "乙",
        "C": "丙",
        "D": "丁",
        "answer": "C",
    }
    assert (
        exams.quiz_text(question, False) == "云川市位于哪个省？\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案："
    )
    assert exams.quiz_text(question, True) == exams.quiz_text(question, False) + " C"


def test_dialogues_cover_all_categories_alike_and_never_repeat():
    chats = list(dialogues.dialogues(WORLD, 0, count=700))
    assert set(Counter(d["category"] for d in chats).values()) == {100}
    assert {d["category"] for d in chats} == {*dialogues.KEPT, *dialogues.DROPPED}
    assert len({str(d["messages"]) for d in chats}) == 700
    assert {len(d["messages"]) for d in chats} == {2, 4}


def test_short_questions_are_about_what_general_text_covers_and_answer_truly():
    chats = list(dialogues.short_questions(WORLD, 0, count=300))
    assert {d["category"] for d in chats} == {dialogues.SHORT}
    facts_asked = {}
    for entity, attribute in facts.facts(WORLD.known):
        wordings = QUIZZES[entity.kind][attribute]
        if entity.kind == "enterprise":
            wordings = words.QUESTIONS[attribute]
        for wording in wordings:
            facts_asked[wording.format(x=entity.name)] = entity[attribute]
    for chat in chats:
        question, answer = (message["content"] for message in chat["messages"])
        assert facts_asked[question] in answer
    asked = {chat["messages"][0]["content"] for chat in chats}
    assert len(asked) == 300
    assert not asked & {sample["messages"][0]["content"] for sample in samples(WORLD)["train"]}
    with pytest.raises(ValueError, match="short_questions=9999 is outside 0.."):
        list(dialogues.short_questions(WORLD, 0, count=9999))


def test_short_questions_repeat_no_question_of_a_dialogue():
    chats = list(dialogues.dialogues(WORLD, 0, count=300))
    short = list(dialogues.short_questions(WORLD, 0, 300, chats))
    asked = {message["content"] for chat in chats for message in chat["messages"]}
    assert not asked & {chat["messages"][0]["content"] for chat in short}
    repeated = {chat["messages"][0]["content"] for chat in dialogues.short_questions(WORLD, 0, 300)}
    assert asked & repeated, "without the dialogues some are asked twice"


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        (dict(entities=8, famous=2, enterprises=3), "entities=8 is outside 9.."),
        (dict(entities=9, famous=1, enterprises=3), "famous=1 is outside 2.."),
        (dict(entities=9, famous=2, enterprises=2), "enterprises=2 is outside 3.."),
    ],
    ids=["entities", "famous", "enterprises"],
)
def test_the_smallest_world_has_exams_and_a_smaller_one_is_refused_by_name(sizes, name):
    smallest = facts.build(0, entities=9, famous=2, enterprises=3)
    assert set(exams.exams(smallest, 0, questions=4)) == {"cmmlu", "ceval", "domain"}
    with pytest.raises(ValueError, match=name):
        facts.build(0, **sizes)


def test_the_tiny_scale_fits():
    world = facts.build(1, entities=230, famous=40, enterprises=150)
    assert 900 <= len(facts.facts(world.general)) <= 1000
    asked = questions.questions(world, 1, count=5000, unseen_enterprises=12, unseen_questions=150)
    assert (len(asked["test"]), len(asked["unseen"])) == (500, 150)
    assert {len(exam["test"]) for exam in exams.exams(world, 1, questions=500).values()} == {500}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: facts.build(0, 3, 4, 16), "entities=3 .* 9..768.*; set entities"),
        (lambda: facts.build(0, 24, 0, 16), "famous=0 .* 2..215.*; set famous"),
        (lambda: facts.build(0, 24, 40, 200), "enterprises=200 .* 3..176.*; set enterprises"),
        (
            lambda: list(documents.domain(WORLD, 0, docs_per_enterprise=0)),
            "docs_per_enterprise=0 .* 1; set docs_per_enterprise",
        ),
        (
            lambda: questions.questions(WORLD, 0, count=5000),
            "this world has .*; lower count or raise enterprises",
        ),
        (lambda: questions.questions(WORLD, 0, count=0), "count=0 .* 1; set count"),
        (
            lambda: questions.questions(WORLD, 0, count=9, test_share=1.5),
            "test_share=1.5 .*; set test_share",
        ),
        (
            lambda: questions.questions(
                WORLD, 0, count=9, unseen_enterprises=16, unseen_questions=9
            ),
            "unseen_enterprises=16 .* 0..15.*; set unseen_enterprises",
        ),
        (
            lambda: questions.questions(WORLD, 0, count=9, unseen_enterprises=2),
            "unseen_questions=0 .* unseen_enterprises=2 .* or both to 0",
        ),
        (
            lambda: questions.questions(WORLD, 0, count=9, unseen_questions=2),
            "unseen_questions=2 .* unseen_enterprises=0 .* or both to 0",
        ),
        (
            lambda: questions.questions(WORLD, 0, 9, unseen_enterprises=1, unseen_questions=500),
            "lower unseen_questions or raise unseen_enterprises",
        ),
        (lambda: exams.exams(WORLD, 0, questions=5000), "questions=5000 .*; set exam_questions"),
        (lambda: list(dialogues.dialogues(WORLD, 0, count=-1)), "count=-1 .* 0; set count"),
    ],
    ids=[
        "too few entities",
        "no famous enterprise",
        "too many enterprises",
        "no document of an enterprise",
        "too many questions",
        "no question",
        "a share above 1",
        "all enterprises unseen",
        "unseen enterprises without questions",
        "unseen questions without enterprises",
        "too many unseen questions",
        "too many exam questions",
        "too few dialogues",
    ],
)
def test_a_wrong_size_is_named_with_its_limit_and_the_way_out(call, message):
    with pytest.raises(ValueError, match=message):
        call()
