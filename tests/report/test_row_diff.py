"""Rows differ by paired metrics, curves by their first step, answers question by question."""

import numpy as np
import pytest

from soaes.data.jsonl import write_jsonl
from soaes.metrics.bootstrap import Measured
from soaes.metrics.samples import statistics
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report.recipe_diff import MatchingStages
from soaes.report.results import TableRow
from soaes.report.row_diff import Side, diff_curves, diff_metrics, diff_questions


def answer(index, score=50.0, **changes):
    scores = dict.fromkeys(("rouge1", "rouge2", "rougeL", "bleu4"), score)
    texts = {"question": f"q{index}", "reference": "r", "prediction": "p"}
    return {"id": f"test-{index}", "task": "qa", **texts, **scores, **changes}


def side(folder, name, rows, seed=0):
    """A row of one goal whose predictions are given."""
    recipe = Recipe("soaes.stages.toy.evaluate", {"name": name, "seed": seed})
    store = Store(folder)
    write_jsonl(store.folder(recipe.name) / "predictions.jsonl", rows)
    sampled = statistics(store.folder(recipe.name) / "predictions.jsonl")
    value = float(np.mean([row.get("rouge1", 0) for row in rows]))
    measured = {
        "rouge1": Measured(value, sampled.get("rouge1")),
        "samples": Measured(len(rows)),
        "scoring": Measured("jieba"),
        f"only_{name}": Measured(1.0),
    }
    goals = {"evaluate": recipe}
    return Side(name, TableRow(name, recipes={seed: goals}, measured={seed: measured}), store)


def scores(seed, gain):
    """Questions of very different difficulty, and a small gain in each."""
    hard = np.random.default_rng(0).uniform(0, 90, size=60)
    noise = np.random.default_rng(seed).normal(0, 1, size=60)
    return [answer(index, float(score + gain)) for index, score in enumerate(hard + noise)]


def test_metrics_are_paired_over_the_samples_that_both_answer(tmp_path):
    left, right = side(tmp_path, "a", scores(1, 0.0)), side(tmp_path, "b", scores(2, 2.0))
    diff = diff_metrics(left.row, right.row)
    (difference,) = diff.differences
    assert difference.metric == "rouge1" and difference.effect.value == pytest.approx(2, abs=0.6)
    assert difference.right - difference.left == pytest.approx(difference.effect.value)
    assert difference.is_decided, "unpaired, the questions' spread of 26 points would hide it"
    assert diff.num_equal == 1 and diff.seeds == (0,)
    assert diff.only_left == ("only_a",) and diff.only_right == ("only_b",)
    others = enumerate(scores(2, 2.0), 100)
    other_samples = [answer(index, row["rouge1"]) for index, row in others]
    apart = diff_metrics(left.row, side(tmp_path, "c", other_samples).row)
    assert not apart.differences[0].is_decided


def test_a_metric_that_is_equal_in_every_seed_is_counted_alone(tmp_path):
    left, right = side(tmp_path, "a", scores(1, 0.0)), side(tmp_path, "b", scores(1, 0.0))
    diff = diff_metrics(left.row, right.row)
    assert not diff.differences and diff.num_equal == 2
    other_seed = side(tmp_path, "c", scores(1, 0.0), seed=1)
    assert diff_metrics(left.row, other_seed.row).seeds == ()


# ---------------------------------------------------------------- curves


def curve(*losses, lr=0.1, pace=1.0):
    lines = [{"step": 0, "val/perplexity": 9.0, "seconds": pace}]
    for step, loss in enumerate(losses, 1):
        values = {"train/loss": loss, "train/lr": lr, "train/tokens_per_s": 100 * pace}
        lines.append({"step": step, **values, "seconds": step * pace})
    return lines


def parting(folder, left, right):
    recipes = [Recipe("soaes.stages.toy.cpt", {"name": name}) for name in ("left", "right")]
    store = Store(folder)
    for recipe, lines in zip(recipes, (left, right), strict=True):
        write_jsonl(store.folder(recipe.name) / "curves.jsonl", lines)
    sides = [Side("", TableRow(""), store)] * 2
    (diff,) = diff_curves(*sides, [MatchingStages("CPT", *recipes)])
    return diff


def test_curves_part_at_the_first_step_that_differs_and_not_by_the_clock(tmp_path):
    diff = parting(tmp_path, curve(3, 2, 1), curve(3, 2, 1, pace=2.0))
    assert diff.first is None and diff.loss is None and diff.common_steps == 4
    diff = parting(tmp_path, curve(3, 2, 1), curve(3, 2.5, 1))
    assert diff.first == diff.loss and diff.first.step == 2
    assert (diff.first.left, diff.first.right) == (2, 2.5)
    diff = parting(tmp_path, curve(3, 2, 1), curve(3, 2, 0.5, lr=0.2))
    assert (diff.first.metric, diff.first.step, diff.loss.step) == ("train/lr", 1, 3)


def test_curves_are_compared_at_common_steps(tmp_path):
    right = [line for line in curve(3, 2, 1) if line["step"] != 2]
    diff = parting(tmp_path, curve(3, 9, 1), right)
    assert diff.first is None and diff.common_steps == 3


def test_one_folder_and_stages_without_curves_are_left_out(tmp_path):
    recipe = Recipe("soaes.stages.toy.cpt", {})
    other = Recipe("soaes.stages.toy.cpt", {"name": "other"})
    toy = Side("", TableRow(""), Store(tmp_path))
    write_jsonl(tmp_path / recipe.name / "curves.jsonl", curve(1))
    stages = [MatchingStages("CPT", recipe, recipe), MatchingStages("CPT", recipe, other)]
    assert not diff_curves(toy, toy, stages)


# ---------------------------------------------------------------- questions


def test_questions_are_gained_and_lost_among_those_that_both_answer(tmp_path):
    def recalled(index, value):
        return answer(index, value_recall=value, attribute_recall=0)

    left = [recalled(index, value) for index, value in enumerate((100, 0, 50, 100))]
    right = [recalled(index, value) for index, value in enumerate((100, 100, 0, 50))]
    right += [recalled(9, 100)]
    (diff,) = diff_questions(side(tmp_path, "a", left), side(tmp_path, "b", right[::-1]))
    assert [question.question for question in diff.gained] == ["q1"]
    assert [question.question for question in diff.lost] == ["q3"]
    assert diff.num_right == (2, 2) and diff.num_shared == 4 and diff.num_questions == (4, 5)
    assert "every value" in diff.criterion


def test_without_values_an_answer_is_right_that_equals_the_reference(tmp_path):
    left, right = [answer(0)], [answer(0, prediction="r")]
    (diff,) = diff_questions(side(tmp_path, "a", left), side(tmp_path, "b", right))
    (question,) = diff.gained
    assert (question.left, question.right, question.reference) == ("p", "r", "r")


def test_exams_are_judged_by_the_picked_option(tmp_path):
    def exam(picked):
        fields = {"exam": "ceval", "subject": "law", "question": "?", "answer": "C"}
        return [{**fields, "picked": letter} for letter in picked]

    (diff,) = diff_questions(side(tmp_path, "a", exam("CAB")), side(tmp_path, "b", exam("CCA")))
    assert len(diff.gained) == 1 and not diff.lost and diff.num_right == (1, 2)


def test_decoded_prompts_have_no_right_answer(tmp_path):
    rows = [{"id": "test-0", "prompt": "q", "prediction": "p", "reference": "r"}]
    assert not diff_questions(side(tmp_path, "a", rows), side(tmp_path, "b", rows))
