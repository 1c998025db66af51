"""The figures of the relevance scorer are what they are called."""

from random import Random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import relevance
from soaes.data.curation.labels import Label, LabelledPassage
from soaes.data.curation.passages import fingerprint

TOPICS = {"owners": ["出资人"]}


@pytest.fixture(scope="module")
def evaluation():
    rng = Random(0)
    passages = []
    for number in range(120):
        relevant = number % 3 == 0
        words = ["出资人委派董事", "产权转让", "评估备案"] if relevant else ["蛋糕烤熟", "靠右行驶"]
        text = "，".join(rng.choices([*words, "按时接种"], k=4)) + f"。{number}"
        family = f"family {number % 7}"
        probability = 0.5 if relevant else 0.1
        label = Label("a", fingerprint(text), relevant, probability, family)
        passages.append(LabelledPassage(text, label, "d"))
    return relevance.Evaluation(passages, TOPICS)


def test_areas_are_those_of_sklearn(evaluation):
    weights = np.random.default_rng(0).integers(0, 4, len(evaluation.relevant)).astype(float)
    scores = np.round(evaluation.decisions + np.random.default_rng(1).normal(size=120) * 3)
    ranking = relevance.Ranking(evaluation, scores)
    expected = roc_auc_score(evaluation.relevant, scores, sample_weight=weights)
    assert ranking.figures(weights)["auc"] == pytest.approx(expected)
    chosen = ~evaluation.relevant | (evaluation.families == "family 0")
    expected = roc_auc_score(evaluation.relevant[chosen], scores[chosen])
    assert ranking.by_family(np.ones(120))["family 0"] == pytest.approx(expected)


def test_the_calibration_error_is_how_far_probabilities_are_off(evaluation, monkeypatch):
    weights = np.ones(120)
    truth = evaluation.relevant.astype(float)
    monkeypatch.setattr(evaluation, "probabilities", truth)
    assert evaluation.calibration_error(weights) == 0
    monkeypatch.setattr(evaluation, "probabilities", np.full(120, 0.5))
    assert evaluation.calibration_error(weights * 7) == pytest.approx(0.5 - 1 / 3, abs=0.1)


def test_intervals_resample_families_and_hold_the_figure(evaluation):
    ranking = relevance.Ranking(evaluation, evaluation.decisions)
    rng = np.random.default_rng(0)
    drawn = evaluation.resampled(rng) / evaluation.weights
    for family in set(evaluation.families):
        assert len(set(drawn[evaluation.families == family])) == 1
    figure = ranking.figures(evaluation.weights)["auc"]
    low, high = relevance.intervals(evaluation, ranking)["auc"]
    assert low <= figure <= high
