"""The budget holds the most credible, then the most relevant, then the most important documents."""

import tracemalloc

import numpy as np
import pytest

from soaes.data.curation.selection import (
    Candidates,
    Judged,
    bands_of,
    frontier,
    reasons,
    tier_of,
)
from soaes.data.curation.settings import CleaningSettings, DomainSettings, SelectionSettings

TIERS = {"law": 1, "gov.cn": 2, "stats.gov.cn": 3}


def candidate(tier=1, relevance=0.95, importance=0.5, tokens=100, origin="law"):
    return tier, relevance, importance, tokens, origin


def candidates_of(rows):
    candidates = Candidates()
    for row in rows:
        candidates.add(*row)
    return candidates


def kept(candidates, **settings):
    found = reasons(candidates_of(candidates), SelectionSettings(**settings))
    return [index for index, reason in enumerate(found) if not reason]


def test_by_default_everything_is_kept():
    candidates = [candidate(), candidate(tier=5, relevance=0.0), candidate(relevance=None)]
    assert kept(candidates) == [0, 1, 2]


def test_the_budget_is_filled_by_tier_then_band_then_importance():
    candidates = [
        candidate(tier=2, relevance=0.99, importance=0.9),
        candidate(relevance=0.4, importance=0.9),
        candidate(relevance=0.91, importance=0.2),
        candidate(relevance=0.99, importance=0.1),
        candidate(relevance=0.91, importance=0.2),
    ]
    order = [kept(candidates, budget=100 * size) for size in range(1, 6)]
    assert order == [[2], [2, 4], [2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_long_document_gives_way_to_shorter_ones_that_fit():
    candidates = [candidate(importance=0.9, tokens=150), candidate(), candidate(tokens=40)]
    assert kept(candidates, budget=145) == [1, 2]


def test_no_origin_fills_more_than_its_share_but_an_experts_may():
    laws, reports = [candidate() for _ in range(4)], [candidate(tier=3, origin="reports")] * 2
    settings = {"budget": 400, "max_origin_share": 0.5}
    assert kept([*laws, *reports], **settings) == [0, 1, 4, 5]
    experts = [candidate(tier=1, relevance=None, origin="expert") for _ in range(3)]
    assert kept([*laws, *experts], **settings) == [0, 4, 5, 6]


def test_an_experts_documents_pass_every_threshold():
    candidates = [
        candidate(relevance=0.49),
        candidate(relevance=0.5),
        candidate(relevance=0.0, origin="expert"),
        candidate(tier=4),
    ]
    settings = SelectionSettings(threshold=0.5, lowest_tier=3)
    assert reasons(candidates_of(candidates), settings) == [
        "below the relevance threshold",
        "",
        "",
        "tier of the source",
    ]


def test_a_tier_belongs_to_the_origin_or_the_end_of_the_host():
    assert tier_of("law", "http://blog.example.com", TIERS) == 1
    assert tier_of("web", "http://www.gov.cn/a.htm", TIERS) == 2
    assert tier_of("web", "http://data.stats.gov.cn/", TIERS) == 3
    assert tier_of("web", "http://fakegov.cn/", TIERS) == tier_of("", "", TIERS) == 5
    assert tier_of("expert", "", TIERS) == 1


def test_the_frontier_weighs_passages_by_how_rarely_they_were_drawn():
    candidates = [candidate(relevance=0.9), candidate(relevance=0.2, tokens=900)]
    judged = [Judged(0.9, True, 1), Judged(0.9, False, 1), Judged(0.2, True, 3)]
    low, high, none = frontier(candidates_of(candidates), judged, [0.0, 0.5, 0.95])
    assert low == (0.0, 2, 1000, 0.8, 1.0)
    assert high == (0.5, 1, 100, 0.5, 0.25)
    assert none == (0.95, 0, 0, None, 0.0)


def test_a_document_costs_few_bytes():
    num_documents = 5_000
    settings = SelectionSettings(budget=1000 * num_documents, threshold=0.2)
    tracemalloc.start()
    candidates = Candidates()
    for number in range(num_documents):
        candidates.add(1 + number % 5, number / num_documents, 0.5, 2000, f"origin {number % 9}")
    found = reasons(candidates, settings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(found)) == 3 and peak < 160 * num_documents


def test_bands_begin_at_their_lower_end():
    scores = np.array([1.0, 0.9, 0.89, 0.1, 0.0, np.nan], np.float32)
    assert bands_of(scores).tolist() == [0, 0, 1, 4, 5, 5]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SelectionSettings(budget=0), "budget=0"),
        (lambda: SelectionSettings(threshold=50), "threshold=50"),
        (lambda: SelectionSettings(lowest_tier=6), "lowest_tier=6"),
        (lambda: SelectionSettings(max_origin_share=0), "max_origin_share=0"),
        (lambda: DomainSettings({}, {"law": 0}), r"tiers.law=0: must be a whole number from 1"),
        (lambda: DomainSettings({"a": "国资委"}, {}), "topics.a=国资委: must be a list of terms"),
        (lambda: DomainSettings({}, {}, "2020"), "as_of=2020: must be a date as in"),
        (lambda: DomainSettings({}, {}, 2020), "as_of=2020: must be a date as in"),
        (lambda: DomainSettings({}, {}, "2023-02-31"), "as_of=2023-02-31: must be a date as in"),
        (lambda: DomainSettings({"a": None}, {}), "topics.a=None: must be a list"),
        (lambda: CleaningSettings([], {"a": 3}), "cleaning.boilerplate.a=3: must be text"),
        (lambda: DomainSettings({"a": [985]}, {}), "topics.a=.985.: must be a list.*in quotes"),
    ],
)
def test_a_slip_in_the_settings_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
