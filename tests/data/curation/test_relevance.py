"""A document scores as its best passages do, and a topic as often as its terms occur."""

import numpy as np
import pytest

from soaes.data.curation import relevance
from soaes.data.curation.passages import Passage


def test_a_document_scores_the_mean_of_its_best_passages():
    assert relevance.document_score([0.0, 0.3, 0.6, 0.9, 0.0]) == pytest.approx(0.6)
    assert relevance.document_score([0.6]) == pytest.approx(0.6)
    assert relevance.document_score([]) == 0


def test_a_passage_has_the_same_features_alone_and_in_a_document():
    features = relevance.Features({"a": ["国资委", "SOE"], "b": ["委"], "c": ["没有"]})
    parts = ["国资委、国资委和SOEs。", "，。", "第二段：soe 与委员。", "国资", "委"]
    text = "\n".join(parts)
    spans = []
    for part in parts:
        start = spans[-1].end + 1 if spans else 0
        spans.append(Passage(start, start + len(part)))
    owners, indices, values = features(text, spans)
    for number, part in enumerate(parts):
        alone = features(part, [Passage(0, len(part))])
        within = owners == number
        assert np.array_equal(alone.features, indices[within])
        assert np.allclose(alone.values, values[within])
        lengths = alone.values[alone.features < relevance.FEATURES]
        assert len(lengths) == 0 or np.isclose(lengths @ lengths, 1)


def test_a_long_document_is_scored_block_by_block_alike(monkeypatch):
    features = relevance.Features({"a": ["国资委"]})
    weights = np.random.default_rng(0).normal(size=features.size)
    scorer = relevance.LinearScorer(features, weights, 0.1, slope=2.0)
    text = "\n".join(f"第{number}条 国资委履行职责。" * 12 for number in range(9))
    whole = scorer.probabilities(text)
    monkeypatch.setattr(relevance, "BLOCK", 2)
    assert len(whole) == 4 and np.allclose(scorer.probabilities(text), whole)
    assert scorer.document("") == scorer.document(" \n") == 0


def test_terms_are_counted_by_the_longest_and_without_case():
    scorer = relevance.TopicScorer({"a": ["国资", "国资委", "SOE"]})
    assert scorer.density("国资委" + "一" * 397) == pytest.approx(1 / 400 / relevance.FULL_DENSITY)
    assert scorer.density("soe" * 50) == 1 and scorer.document("") == 0
