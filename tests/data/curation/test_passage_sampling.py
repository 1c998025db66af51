"""Every passage is drawn with the probability that is written down, and none without one."""

from collections import Counter

import numpy as np
import pytest

from soaes.data.curation.document import SourceDocument, curated
from soaes.data.curation.passage_sampling import (
    STARTS,
    Kinds,
    Population,
    probabilities,
    systematic,
)
from soaes.data.curation.passages import Passage
from soaes.data.curation.relevance import Features, LinearScorer


def population():
    """Laws and recipes: a rare stratum, a document that is long, and one that has few passages."""
    found = Population()
    rng = np.random.default_rng(0)
    for number in range(40):
        origin = "law" if number % 4 == 0 else "recipes"
        size = 60 if number == 8 else 1 + number % 7
        rare = 0.3 if origin == "law" else 0.02
        terms = np.where(rng.random(size) < rare, "several", "none")
        found.add(origin, terms)
    return found


def test_a_systematic_draw_takes_each_element_as_often_as_its_probability_says():
    chances = np.array([3, 10, 1, 0, 5, 5, 10, 2, 4]) / 10
    steps = 100
    drawn = [systematic(chances, (step + 0.5) / steps) for step in range(steps)]
    assert {len(each) for each in drawn} == {4}
    counts = np.bincount(np.concatenate(drawn), minlength=len(chances))
    assert np.array_equal(counts, np.round(chances * steps))
    assert len(systematic(np.zeros(0), 0.5)) == 0
    assert systematic(np.ones(3), 1 - 1 / STARTS).tolist() == [0, 1, 2]


def test_totals_by_the_inverse_probabilities_are_those_of_the_corpus():
    """What is counted stands in the long document above all: a limit that no weight knew shows."""
    sizes, totals = population().sizes(), Counter()
    squares = Counter()
    num_draws = 150
    for seed in range(num_draws):
        drawn = population().draw(40, 3, seed)
        assert len(drawn) == 40
        assert max(Counter(each.document for each in drawn).values()) <= 3
        counted = Counter()
        for each in drawn:
            counted[each.stratum] += 1 / each.probability
            counted["long"] += (each.document == 8) / each.probability
        totals.update(counted)
        squares.update({name: value**2 for name, value in counted.items()})
    for name, size in {**sizes, "long": 60}.items():
        mean = totals[name] / num_draws
        error = np.sqrt(max(0.0, squares[name] / num_draws - mean**2) / num_draws)
        assert mean == pytest.approx(size, abs=4 * error + 1e-6), name


def test_rare_kinds_are_drawn_as_often_as_others_and_origins_get_what_is_expected():
    strata = np.repeat([0, 1], [900, 100])
    for kinds, rare in (([0, 0], 25), ([0, 1], 50)):  # sqrt(100/900): a third of the other's
        chances = probabilities(strata, kinds, np.arange(1000), 100, 5)
        assert chances.sum() == pytest.approx(100)
        assert chances[strata == 1].sum() == pytest.approx(rare)
    from_laws = set()
    for seed in range(20):
        drawn = population().draw(40, 3, seed)
        from_laws.add(sum(each.stratum.startswith("law") for each in drawn))
    assert max(from_laws) - min(from_laws) <= 1 and min(from_laws) > 5


def test_all_is_drawn_for_certain_where_there_is_no_more():
    drawn = population().draw(10_000, 1000, seed=0)
    assert len(drawn) == len(population()) and {each.probability for each in drawn} == {1.0}
    few = population().draw(10_000, 2, seed=0)
    assert max(Counter(each.document for each in few).values()) == 2
    assert sum(each.probability for each in few if each.document == 8) == pytest.approx(2 * 2 / 60)
    assert Population().draw(5, 1, seed=0) == [] and Population().sizes() == {}
    assert population().draw(40, 3, seed=1) == population().draw(40, 3, seed=1)
    assert population().draw(40, 3, seed=1) != population().draw(40, 3, seed=2)


def test_a_kind_says_terms_and_band_and_a_stratum_the_origin_too():
    text = "国资委\n国资委和国资委\n国资委与SOE\n其他"
    spans = [Passage(0, 3), Passage(4, 11), Passage(12, 19), Passage(20, 22)]
    document = curated("corpus", "corpus/law/a.md", SourceDocument(text, "corpus/law/a.md"))
    topics = {"a": ["国资委", "国资"], "b": ["soe"]}
    assert Kinds(topics, None)(document, spans) == ["one", "one", "several", "none"]
    assert Kinds({}, None)(document, spans) == [""] * 4
    features = Features(topics)
    scorer = LinearScorer(features, np.zeros(features.size), intercept=0.9)
    assert Kinds({}, scorer)(document, spans[:1]) == ["0.7"]
    assert Kinds(topics, scorer)(document, spans[:1]) == ["one/0.7"]
    found = Population()
    for origin, kinds in (("law", ["none", ""]), ("", ["none", ""])):
        found.add(origin, kinds)
    assert found.sizes() == {"all": 1, "law": 1, "law/none": 1, "none": 1}
