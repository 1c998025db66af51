"""A document scores as its best passages do, and a topic as often as its terms occur."""

import pytest

from soaes.data.curation import relevance


def test_a_document_scores_the_mean_of_its_best_passages():
    scores = {"甲": 0.9, "乙": 0.6, "丙": 0.3, "丁": 0.0}
    paragraphs = [name * 200 for name in "丁丙乙甲丁"]

    def score(text):
        return scores[text[0]]

    assert relevance.document_score("\n".join(paragraphs), score) == pytest.approx(0.6)
    assert relevance.document_score(paragraphs[2], score) == pytest.approx(0.6)
    assert relevance.document_score("  \n", score) == 0


def test_terms_are_counted_by_the_longest_and_without_case():
    scorer = relevance.TopicScorer({"a": ["国资", "国资委", "SOE"]})
    assert scorer.density("国资委" + "一" * 397) == pytest.approx(1 / 400 / relevance.FULL_DENSITY)
    assert scorer.density("soe" * 50) == 1 and scorer.document("") == 0
