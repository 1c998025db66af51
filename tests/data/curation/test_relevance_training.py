"""The scorer learns from labels what no keyword says, and its scores are probabilities."""

from random import Random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from soaes.data.curation import relevance, relevance_training
from soaes.data.curation.labels import Label, LabelledPassage
from soaes.data.curation.passages import Passage, fingerprint

TOPICS = {"assets": ["国有资产", "国有资本"], "owners": ["国资委"]}
ABOUT = ["出资人委派董事", "产权转让应当评估", "企业领导人员的任免", "清产核资", "资本收益上缴"]
OTHER = ["蛋糕烤二十分钟", "车辆应当靠右行驶", "疫苗接种", "学生参加考试", "河流的水质监测"]


def passage(rng, relevant, family, probability=1.0):
    words = rng.choices(ABOUT if relevant else OTHER, k=3) + rng.choices(OTHER, k=2)
    rng.shuffle(words)
    text = "，".join(words) + f"，见第{rng.randrange(1000)}条。"
    label = Label("corpus/a.md", fingerprint(text), relevant, probability, family)
    return LabelledPassage(text, label, "d")


@pytest.fixture(scope="module")
def labelled():
    rng = Random(0)
    return [passage(rng, number % 3 == 0, f"family {number % 12}") for number in range(180)]


@pytest.fixture(scope="module")
def fitted(labelled):
    return relevance_training.fit(labelled, TOPICS)


def test_unseen_passages_without_keywords_are_told_apart(fitted):
    rng = Random(1)
    fresh = [passage(rng, number % 2 == 0, "new") for number in range(40)]
    scores = [fitted.scorer.document(one.text) for one in fresh]
    relevant = [score for score, one in zip(scores, fresh, strict=True) if one.label.relevant]
    others = [score for score, one in zip(scores, fresh, strict=True) if not one.label.relevant]
    assert min(relevant) > max(others) and fitted.auc > 0.99
    assert relevance.TopicScorer(TOPICS).density(fresh[0].text) == 0


def test_fitting_among_the_passages_is_fitting_among_the_features(labelled):
    features = relevance.Features(TOPICS)
    matrix = relevance_training.feature_matrix(features, [one.text for one in labelled])
    relevant = np.array([one.label.relevant for one in labelled])
    chosen = np.arange(len(labelled)) % 5 > 0
    rows = relevance_training.Rows(features, matrix, relevant)
    used = matrix[:, np.unique(matrix.indices)]
    model = LogisticRegression(C=relevance_training.INVERSE_PENALTY)
    expected = model.fit(used[chosen], relevant[chosen]).decision_function(used)
    assert np.allclose(rows.decisions(rows.fit(chosen)), expected, atol=0.1)


def test_scores_are_probabilities_of_the_corpus_that_was_sampled():
    """Every fourth passage is relevant; nine in ten of the others were left out of the sample."""
    rng = np.random.default_rng(0)
    decisions = rng.normal(size=4000)
    relevant = rng.random(4000) < relevance.sigmoid(2 * decisions - 1.5)
    drawn = relevant | (rng.random(4000) < 0.1)
    weights = np.where(relevant, 1.0, 10.0)
    slope, offset = relevance_training.calibration(
        decisions[drawn], relevant[drawn], weights[drawn]
    )
    assert (slope, offset) == (pytest.approx(2, abs=0.3), pytest.approx(-1.5, abs=0.2))


def test_every_labels_own_family_is_unseen_by_its_folds_scorer(labelled):
    words = ["鲸鱼洄游", "珊瑚白化"]
    own = []
    for number in range(20):
        text = "，".join(Random(number).choices(words, k=6)) + "。"
        own.append(LabelledPassage(text, Label("a", fingerprint(text), True, 1.0, "own"), "d"))
    fitted = relevance_training.fit([*labelled, *own], TOPICS)
    _, indices, _ = relevance.Features(TOPICS)("鲸鱼洄游", [Passage(0, 4)])
    unseen = fitted.by_fold[relevance_training.fold_of("own")]
    assert np.allclose(unseen.weights[indices], 0, atol=1e-6)
    assert (fitted.scorer.weights[indices] > 0.01).all()


def test_too_few_labels_are_refused_with_the_way_out(labelled):
    few = [one for one in labelled if one.label.relevant][:19]
    others = [one for one in labelled if not one.label.relevant]
    with pytest.raises(ValueError, match="19 relevant and 120 other .* needs 20 of each.*topics"):
        relevance_training.fit([*few, *others], TOPICS)
