"""Intervals cover what they say they cover, and pairs are compared in pairs.

A statistic at counts of one is the stage's own number.
"""

import numpy as np
import pytest

from soaes.data.jsonl import write_jsonl
from soaes.metrics import acceptance, estimators, exams, samples
from soaes.metrics.bootstrap import Measured, Samples, draws, effect, student
from soaes.stages import evaluate, speculate


def scored(values_N, names=None):
    """A row's mean over samples of one stratum."""
    pool = tuple(("qa", name) for name in (range(len(values_N)) if names is None else names))
    return Measured(
        values_N.mean(), Samples(pool, lambda counts_BN: counts_BN @ values_N / counts_BN.sum(1))
    )


def itself(terms):
    return terms[0]


def difference(terms):
    return terms[0] - terms[1]


def coverage(seeds, of_seed, of_question, of_both, questions=200, trials=300):
    """Share of simulated nulls, seeds and questions drawn anew, whose interval holds zero."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(trials):
        null_SN = (
            of_seed * rng.normal(size=(seeds, 1))
            + of_question * rng.normal(size=questions)
            + of_both * rng.normal(size=(seeds, questions))
        )
        measured = effect([[scored(values_N)] for values_N in null_SN], itself)
        inside += measured.low <= 0 <= measured.high
    return inside / trials


@pytest.mark.parametrize(
    ("seeds", "of_seed", "of_question", "of_both"),
    [
        (5, 0.1, 0.0, 1.0),  # training varies a little more than 200 questions do
        (5, 1.0, 1.0, 1.0),  # training is all there is
        (5, 0.0, 1.0, 1.0),  # questions are all there is, the same in every seed
        (3, 1.0, 1.0, 1.0),
        (2, 1.0, 1.0, 1.0),
        (1, 0.0, 1.0, 1.0),  # one seed, whose interval covers the questions alone
    ],
)
def test_a_null_lies_inside_as_often_as_promised(seeds, of_seed, of_question, of_both):
    assert coverage(seeds, of_seed, of_question, of_both) >= 0.92


def test_a_plain_bootstrap_of_five_seeds_would_not_cover():
    """What the widening is for: the same simulation without it."""
    rng = np.random.default_rng(1)
    null_TS = rng.normal(size=(300, 5))
    means_TB = null_TS[:, rng.integers(5, size=(1000, 5))].mean(-1)
    low_T, high_T = np.quantile(means_TB, (0.025, 0.975), axis=1)
    assert ((low_T <= 0) & (high_T >= 0)).mean() < 0.9


def test_students_t():
    assert [round(student(freedom), 3) for freedom in (1, 4, 10, 11, 30)] == [
        12.706,
        2.776,
        2.228,
        2.201,
        2.042,
    ]


def test_a_drawn_mean_varies_as_a_mean_does():
    """Of n samples in a stratum n - 1 are drawn: the variance of their mean is s^2 / n."""
    counts_BN = draws(tuple([("few", index) for index in range(5)] + [("alone", 0)]))
    values_N = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    assert (counts_BN[:, :5] @ values_N / 5).var() == pytest.approx(
        values_N.var(ddof=1) / 5, rel=0.06
    )
    assert (counts_BN[:, 5] == 1).all() and np.allclose(counts_BN[:, :5].sum(1), 5)


def test_rows_are_compared_on_the_samples_that_they_share():
    rng = np.random.default_rng(0)
    hard_N = 10 * rng.normal(size=300)
    left, right = scored(hard_N + 1 + 0.1 * rng.normal(size=300)), scored(hard_N)
    paired = effect([[left, right]], difference)
    assert 0.95 < paired.low < paired.high < 1.05
    cut = effect(
        [[left, scored(hard_N[:290], range(290))]], difference
    )  # ten of them were left out in one row
    strangers = effect([[left, scored(hard_N, range(1000, 1300))]], difference)
    assert (cut.high - cut.low) < 0.5 * (strangers.high - strangers.low)


def test_constants_vary_over_seeds_only():
    assert np.isnan(effect([[Measured(1.5)]], itself).low)
    measured = effect([[Measured(value)] for value in (1.0, 1.2, 1.1)], itself)
    assert (
        measured.low < 1.0 < 1.2 < measured.high
        and measured.value == pytest.approx(1.1)
        and measured.seeds == 3
    )


# ---------------------------------------------------------------- from predictions to statistics


def answered(rng, index):
    split, task = ("unseen" if index % 5 == 0 else "test"), ("report" if index % 3 == 0 else "qa")
    return {
        "id": f"{split}-{index}",
        "split": split,
        "task": task,
        "question": f"第{index}问",
        "reference": "甲",
        "prediction": "甲乙"[rng.integers(2)],
        "is_cut": False,
        **{score: 100 * rng.random() for score in estimators.SCORES},
    }


def taken(rng, index):
    exam = ("cmmlu", "ceval", "domain")[index % 3]
    return {
        "exam": exam,
        "subject": f"subject {index % 7}",
        "question": f"第{index}问",
        "picked": "ABCD"[rng.integers(4)],
        "answer": "B",
    }


def decoded(rng, index):
    tests = [int(rng.integers(1, 9))] * 3
    accepts = [int(rng.integers(count + 1)) for count in tests]
    return {
        "id": f"test-{index}",
        "task": "qa" if index % 2 else "report",
        "prompt": f"第{index}问",
        "is_cut": False,
        "new_tokens": int(rng.integers(5, 40)),
        "steps": 4 + index,
        "drafted": sum(tests),
        "accepted": min(accepts),
        "overlap": sum(tests) * rng.random(),
        "tests_per_position": tests,
        "accepts_per_position": accepts,
        "autoregressive_new_tokens": int(rng.integers(5, 40)),
        **{f"{side}seconds": rng.random(4).tolist() for side in ("", "autoregressive_")},
        **{
            f"{side}round_tokens": rng.integers(5, 40, 4).tolist()
            for side in ("", "autoregressive_")
        },
    }


def evaluated(rows):
    test, apart = ([row for row in rows if row["split"] == split] for split in ("test", "unseen"))
    return evaluate._scores_by_task(test) | {
        f"unseen_{key}": value for key, value in evaluate._scores(apart).items()
    }


KINDS = {
    "evaluate": (
        answered,
        evaluated,
        {
            "rouge1",
            "report_bleu4",
            "qa_rougeL",
            "unseen_rouge2",
            "exact_match",
            "unseen_exact_match",
        },
    ),
    "benchmark": (
        taken,
        lambda rows: exams.summary(rows, 0),
        {"cmmlu", "ceval", "domain", "average"},
    ),
    "speed": (
        decoded,
        lambda rows: acceptance.by_task(
            lambda some: speculate._speeds(some) | acceptance.acceptance_metrics(some), rows
        ),
        {
            "speedup",
            "tokens_per_s",
            "report_speedup",
            "acceptance_rate_per_position",
            "qa_draft_acceptance_rate",
            "overlap",
            "mean_acceptance_length",
        },
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_statistic_at_all_ones_is_the_stages_own_number(tmp_path, kind):
    row, metrics, expected = KINDS[kind]
    rng = np.random.default_rng(0)
    rows = [row(rng, index) for index in range(90)]
    write_jsonl(tmp_path / "predictions.jsonl", rows)
    statistics, numbers = samples.statistics(tmp_path / "predictions.jsonl"), metrics(rows)
    both = statistics.keys() & numbers.keys()
    assert expected <= both
    for metric in both:
        assert statistics[metric].statistic(np.ones((2, 90))) == pytest.approx(
            numbers[metric], rel=1e-12
        ), metric
    assert all(
        np.ptp(statistics[metric].statistic(draws(statistics[metric].pool))) > 0
        for metric in expected
    )


def test_fewer_than_ten_samples_have_no_interval(tmp_path):
    rng = np.random.default_rng(0)
    write_jsonl(tmp_path / "predictions.jsonl", [answered(rng, index) for index in range(21)])
    statistics = samples.statistics(tmp_path / "predictions.jsonl")
    assert {"rouge1", "qa_rouge1"} <= statistics.keys() and not {
        "report_rouge1",
        "unseen_rouge1",
    } & statistics.keys()
