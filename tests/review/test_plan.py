"""Test and dev items come first, documents stay together, and the lot is in random order."""

import pytest

from soaes.data.annotation.item import review_item
from soaes.review.plan import ReviewSettings, part_of, plan
from tests.helpers.reviews import document, label_item, pair_item, toy_items


def test_items_that_decide_a_score_come_first_and_training_items_last():
    places = plan([*toy_items(20), pair_item(), label_item()], ReviewSettings())
    parts = [place.part for place in places]
    assert parts == ["test"] * 3 + ["dev"] * 3 + ["label"] * 2 + ["train"] * 14
    assert {place.lot for place in places} == {"", "qa"}


def test_a_document_is_read_once():
    items = []
    for number in range(12):
        about = document(id=f"doc{number % 3}", text=f"text {number}")
        items.append(
            review_item("qa", task="qa", split_hint="test", question=f"q{number}", document=about)
        )
    order = [place.item["document"]["id"] for place in plan(items, ReviewSettings())]
    assert order == sorted(order)


def test_passages_of_one_document_do_not_follow_each_other():
    about = document(text="文" * 600)
    items = [
        review_item("relevance", document={**about, "id": str(number % 4)}, span=(number, 300))
        for number in range(40)
    ]
    order = [place.item["document"]["id"] for place in plan(items, ReviewSettings())]
    assert sum(one == other for one, other in zip(order[:-1], order[1:], strict=True)) < 20


def test_the_order_of_a_lot_is_random_and_does_not_follow_the_file():
    items = toy_items(60, tests=0, devs=0)
    forward, backward = plan(items, ReviewSettings()), plan(items[::-1], ReviewSettings())
    assert forward == backward and [place.item for place in forward] != items


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [
        pytest.param(0, 0, 0, id="none"),
        pytest.param(0.1, 60, 140, id="a tenth"),
        pytest.param(1, 1000, 1000, id="all"),
    ],
)
def test_a_share_of_the_items_is_decided_on_twice(share, low, high):
    places = plan(toy_items(1000), ReviewSettings(twice=share))
    assert low <= sum(place.needed == 2 for place in places) <= high


def test_every_kind_has_a_part():
    assert [part_of(item) for item in (toy_items(1)[0], pair_item())] == ["test", "label"]


@pytest.mark.parametrize("wrong", [{"twice": 1.5}, {"limit": 1}, {"lease": 0}])
def test_settings_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}="):
        ReviewSettings(**wrong)
