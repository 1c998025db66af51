"""A sheet has each question once, and of each row what it answered."""

from soaes.pipeline.recipe import Recipe
from soaes.report.page import answers
from tests.helpers.reports import SCORES, build, toy_goals, toy_store


def test_each_question_stands_once_with_the_answers_of_every_row(tmp_path):
    store, goals = toy_store(tmp_path, "x"), toy_goals()
    (sheet,) = answers.sheets(store, [(0, goal) for goal in goals.values()] * 2)
    assert sheet["stages"] == [goal.name for goal in goals.values()], "each once"
    assert len(sheet["questions"]) == 3
    for question in sheet["questions"]:
        told = [question["texts"][index] for index in question["answers"]]
        assert told == ["plain x", "trained x"]
        first_scores = [scores[0] for scores in question["scores"]]
        assert first_scores == [round(score, 1) for score in SCORES.values()]
        assert question["scores"][0][-1] is None, "its lines have no value_recall"


def test_rows_of_two_seeds_never_stand_on_one_sheet(tmp_path):
    store, goals = toy_store(tmp_path), toy_goals()
    pairs = list(enumerate(goals.values()))
    assert [sheet["seed"] for sheet in answers.sheets(store, pairs)] == [0, 1]


def test_a_row_that_was_not_asked_has_no_answer(tmp_path):
    store, goals = toy_store(tmp_path), toy_goals()
    few = Recipe("soaes.stages.evaluate.evaluate", {"few": True})
    first = answers.read_jsonl(store.folder(goals["plain"].name) / "predictions.jsonl")[0]
    build(store, few, predictions=[first])
    (sheet,) = answers.sheets(store, [(0, goals["plain"]), (0, few)])
    asked = [question["answers"][1] for question in sheet["questions"]]
    assert asked == [0, -1, -1]
    assert sheet["questions"][1]["scores"][1] is None


def test_a_question_that_an_exam_asks_twice_stands_twice(tmp_path):
    store, exam = toy_store(tmp_path), Recipe("soaes.stages.evaluate.benchmark", {"shots": 0})
    line = {"exam": "ceval", "subject": "law", "question": "?", "answer": "A"}
    build(store, exam, predictions=[{**line, "picked": "A"}, {**line, "picked": "B"}])
    (sheet,) = answers.sheets(store, [(0, exam)])
    right = [question["scores"][0] for question in sheet["questions"]]
    assert right == [[1.0], [0.0]]
    assert sheet["questions"][0]["group"] == "ceval: law"
