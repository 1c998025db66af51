"""No decision is lost, made twice or seen by others; leases, lots and versions."""

import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from soaes.review import account, queue
from soaes.review.database import ChangedElsewhereError, Database
from soaes.review.plan import ReviewSettings
from tests.helpers.reviews import decide_all, decision, label_item, toy_items


@pytest.fixture
def make(tmp_path):
    """Open a review of some items: `make(items, people, twice=.5)`."""
    opened = []

    def open_review(items, people=("li",), **settings):
        database = Database(tmp_path / f"{len(opened)}.sqlite")
        opened.append(database)
        database.use(ReviewSettings(**{"twice": 0, **settings}))
        database.load(items)
        database.register(people)
        return database

    yield open_review
    for database in opened:
        database.close()


def test_an_item_comes_again_until_it_is_decided(make):
    database = make(toy_items())
    first = database.next("li")
    assert database.next("li") == first
    database.decide("li", decision(first))
    assert database.next("li").item["id"] != first.item["id"]


def test_two_people_never_have_one_item(make):
    database = make(toy_items(), ("li", "wang"))
    assert database.next("li").item != database.next("wang").item
    assert not set(decide_all(database, "li")) & set(decide_all(database, "wang"))


def test_a_share_is_given_to_a_second_person_who_is_not_told(make):
    items = toy_items(limit := 9, tests=limit, devs=0)
    database = make(items, ("li", "wang"), twice=1)
    assert len(decide_all(database, "li")) == len(items), "nobody decides twice beside others"
    work = database.next("wang")
    assert work.version == 0 and work.decision is None
    decide_all(database, "wang", "reject")
    seconds = [each for each in database.decisions() if each["second"]]
    assert len(seconds) == len(items) and {each["reviewer"] for each in seconds} == {"wang"}


def test_a_mistyped_name_takes_no_second_round_from_who_reviews_alone(make):
    items = toy_items(limit := 9, tests=limit, devs=0)
    database = make(items, ("lii",), twice=1)
    database.register(("li",))
    assert database.reviewers() == ["li"]
    assert len(decide_all(database, "li")) == 2 * len(items)
    database.register(("wang",))
    database.add_session("secret", "wang")
    database.register(("zhao",))
    assert database.reviewers() == ["li", "wang", "zhao"]


def test_who_reviews_alone_gets_the_share_again_at_the_end(make):
    items = toy_items(12, tests=12, devs=0)
    database = make(items, twice=0.5)
    done = decide_all(database, "li")
    twice = {name for name, count in Counter(done).items() if count == 2}
    assert 1 <= len(twice) < 12 and set(done[12:]) == twice
    (row,) = account.agreements(database)
    assert (row["first"], row["second"], row["items"]) == ("li", "li", len(twice))


def test_what_is_skipped_does_not_return_and_goes_to_others(make):
    database = make(toy_items(3), ("li", "wang"))
    skipped = decide_all(database, "li", "skip")
    assert len(skipped) == 3 and database.next("li") is None
    assert sorted(decide_all(database, "wang")) == sorted(skipped)


def test_a_lease_expires(make):
    database = make(toy_items(1), ("li", "wang"), lease=0.1 / 60)
    database.next("li")
    assert database.next("wang") is None
    time.sleep(0.15)
    late, taken = database.assignment(toy_items(1)[0]["id"], "li", False), database.next("wang")
    assert taken is not None
    database.decide("wang", decision(taken))
    database.decide("li", decision(late))
    assert [each["second"] for each in database.decisions()] == [False, True], "work is kept"


def test_a_lease_is_renewed_by_its_owner_alone(make):
    database = make(toy_items(1), ("li", "wang"), lease=0.2 / 60)
    identifier = database.next("li").item["id"]
    time.sleep(0.12)
    assert database.renew("li", identifier) and not database.renew("wang", identifier)
    time.sleep(0.12)
    assert database.next("wang") is None


def test_of_two_tabs_the_second_is_told_and_nothing_is_overwritten(make):
    database = make(toy_items())
    first, second = database.next("li"), database.next("li")
    database.decide("li", decision(first))
    with pytest.raises(ChangedElsewhereError) as caught:
        database.decide("li", decision(second, "reject"))
    current = caught.value.assignment
    assert current.version == 1 and current.decision["verdict"] == "accept"
    assert database.decide("li", decision(current, "reject")) == 2
    assert [each["verdict"] for each in database.decisions()] == ["reject"]


def test_a_decision_that_is_sent_again_is_made_once(make):
    database = make(toy_items())
    sent = decision(database.next("li"))
    assert database.decide("li", sent) == database.decide("li", sent) == 1
    assert len(database.decisions()) == 1


def test_an_edit_keeps_the_original(make):
    database = make(toy_items(1))
    work = database.next("li")
    database.decide("li", decision(work, "edit", answer="其他"))
    assert database.decisions()[0]["answer"] == "其他"
    assert database.item(work.item["id"]) == work.item


def test_texts_that_were_not_to_be_edited_are_the_items(make):
    database = make(toy_items(1))
    work = database.next("li")
    database.decide("li", decision(work, "accept", answer="forged"))
    assert database.decisions()[0]["answer"] == work.item["answer"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"verdict": "yes"}, "verdict=yes", id="verdict of another kind"),
        pytest.param({"verdict": "edit"}, "as they were", id="edit without a change"),
        pytest.param({"verdict": "edit", "answer": " "}, "empty", id="edit to nothing"),
        pytest.param({"verdict": "edit", "question": " "}, "question is empty", id="no question"),
        pytest.param({"verdict": "reject", "reason": " "}, "reason", id="rejection without reason"),
        pytest.param({"item": "0" * 16}, "no such item", id="unknown item"),
        pytest.param({"answer": "\ud800", "verdict": "edit"}, "surrogate", id="half a character"),
    ],
)
def test_a_decision_that_means_nothing_is_refused(make, change, message):
    database = make(toy_items(1))
    sent = replace(decision(database.next("li")), **change)
    with pytest.raises(ValueError, match=message):
        database.decide("li", sent)
    assert not database.decisions()


def test_a_lot_is_read_until_its_rest_is_within_the_limit(make):
    database = make(toy_items(400, tests=2, devs=0), limit=0.2)
    done = decide_all(database, "li")
    (lot,) = database.lots().values()
    assert len(done) == 2 + lot.reviewed and 5 < lot.reviewed < 60
    (train,) = [group for group in account.groups(database) if group.part == "train"]
    assert (train.due, train.remaining) == (lot.reviewed, 0)
    (stated,) = account.account(database)["sampling"]
    assert stated["accepted"] and 0.1 < stated["unread_wrong_at_most"] <= 0.2


def test_a_lot_with_errors_and_a_limit_of_zero_are_read_whole(make):
    bad = make(toy_items(40, tests=0, devs=0), limit=0.2)
    assert len(decide_all(bad, "li", "reject")) == 40
    strict = make(toy_items(40, tests=0, devs=0), limit=0)
    assert len(decide_all(strict, "li")) == 40


def test_an_item_that_all_skipped_counts_as_wrong(make):
    database = make(toy_items(5, tests=0, devs=0))
    decide_all(database, "li", "skip")
    assert database.lots()["qa"].wrong == 5


def test_labels_have_their_own_verdicts(make):
    database = make([label_item()])
    assert decide_all(database, "li", "yes") == [label_item()["id"]]


def test_a_second_draw_asks_nothing_again_and_keeps_its_own_probabilities(make):
    def drawn(draw, probability):
        sample = {"draw": draw, "stratum": "all", "size": 9, "probability": probability}
        return {**label_item(), "sample": sample}

    database = make([drawn("a", 0.25)])
    decide_all(database, "li", "yes")
    more = toy_items(1)
    database.load([drawn("b", 0.5), *more])
    assert decide_all(database, "li") == [more[0]["id"]]
    (item,) = [item for item in database.items() if item["kind"] == "relevance"]
    assert item == drawn("b", 0.5)


def test_the_counts_that_are_kept_are_those_of_the_items(make):
    people = ("li", "wang", "zhao")
    database = make([*toy_items(40), label_item()], people, twice=0.5)
    for number, person in enumerate(people * 12):
        work = database.next(person)
        verdicts = ("accept", "reject", "skip") if work.item["kind"] == "qa" else ("yes", "skip")
        database.decide(person, decision(work, verdicts[number % len(verdicts)]))
    work = database.assignment(database.decisions()[0]["item"], "li", False)
    if work.version:
        database.decide("li", decision(work, "skip"))
    kept = [tuple(row) for row in database.rows("SELECT * FROM counts")]
    database.load([*toy_items(40), label_item()])
    assert kept == [tuple(row) for row in database.rows("SELECT * FROM counts")]


def test_hours_follow_from_the_seconds_spent(make):
    database = make(toy_items(20, tests=20, devs=0))
    assert account.headline(database, "li")["hours"] is None
    for _ in range(4):
        work = database.next("li")
        database.decide("li", decision(work, seconds=90.0))
    headline = account.headline(database, "li")
    assert headline["hours"] == pytest.approx(16 * 90 / 3600)
    assert (headline["decided"], headline["due"], headline["today"]) == (4, 20, 4)


def test_items_that_left_the_data_are_kept_but_given_to_nobody(make):
    items = toy_items(4)
    database = make(items)
    work = database.next("li")
    database.decide("li", decision(work))
    rest = [item for item in items if item != work.item]
    changes = database.load([*rest[:1], *toy_items(6)[4:]])
    assert changes == (3, 2, 3) and database.num_left_out() == 1
    assert len(decide_all(database, "li")) == 3


def test_twenty_people_at_once_lose_nothing_and_see_no_error(make, tmp_path):
    people = [f"p{number}" for number in range(20)]
    items = toy_items(100, tests=100, devs=0)
    database = make(items, people, twice=0.2)
    other = Database(database.path)  # a second process would open the file so
    with ThreadPoolExecutor(20) as threads:
        halves = [database if number % 2 else other for number in range(20)]
        done = list(threads.map(decide_all, halves, people))
    other.close()
    rows = database.rows("SELECT needed, given FROM items")
    assert all(row["needed"] == row["given"] for row in rows)
    assert len(database.decisions()) == sum(map(len, done)) == sum(row["needed"] for row in rows)


def test_a_file_that_is_no_review_is_refused_and_left_alone(tmp_path):
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (a)")
    other.close()
    (tmp_path / "text").write_text("text that is no database " * 100)
    for name in ("other.sqlite", "text"):
        with pytest.raises(ValueError, match="--database"):
            Database(tmp_path / name)
    assert (tmp_path / "text").read_text().startswith("text that is")


def test_a_write_that_fails_at_its_end_leaves_the_review_usable(make):
    database = make(toy_items(3))
    connection = database._connection
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(
        "CREATE TABLE child (name TEXT REFERENCES reviewers (name) DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(sqlite3.IntegrityError), database._write() as cursor:
        cursor.execute("INSERT INTO child VALUES ('nobody')")  # only COMMIT looks
    database.decide("li", decision(database.next("li")))
    assert len(database.decisions()) == 1


def test_what_is_exported_is_one_state_of_the_review(make):
    database = make(toy_items(3, tests=0, devs=0))
    other = Database(database.path)
    with database.snapshot():
        assert database.decisions() == []
        other.decide("li", decision(other.next("li")))
        assert database.decisions() == [] and database.lots()["qa"].reviewed == 0
    other.close()
    assert len(database.decisions()) == 1


def test_a_decision_without_a_key_is_refused(make):
    database = make(toy_items(3))
    with pytest.raises(ValueError, match="key is empty"):
        database.decide("li", decision(database.next("li"), key=""))
    assert database.decisions() == []


def test_words_are_looked_for_in_texts_and_not_in_names_of_fields(make):
    database = make(toy_items(6))
    totals = [
        queue.listed(database, "li", "all", words, 0)["total"]
        for words in ("研发投入", "question", "origin", "%", "")
    ]
    assert totals[0] in range(1, 6) and totals[1:3] == [0, 0] and totals[4] == 6
    assert totals[3] == sum("%" in item["question"] + item["answer"] for item in toy_items(6))


def test_the_list_shows_no_title_of_a_passage_that_is_yet_to_be_judged(make):
    item = label_item()
    database = make([item])
    (entry,) = queue.listed(database, "li", "all", "", 0)["items"]
    assert entry["about"] == "" and item["document"]["title"] not in entry["question"]
    assert entry["question"].startswith("第三节")
    decide_all(database, "li", "yes")
    (entry,) = queue.listed(database, "li", "all", "", 0)["items"]
    assert entry["question"] == item["document"]["title"]
    assert entry["about"] == item["document"]["source"]


def test_who_skipped_first_and_decides_after_another_is_the_second(make):
    database = make(toy_items(1), ("li", "wang"))
    work = database.next("li")
    database.decide("li", decision(work, "skip"))
    database.decide("wang", decision(database.next("wang")))
    database.decide("li", decision(database.assignment(work.item["id"], "li", False), "reject"))
    seconds = {each["reviewer"]: each["second"] for each in database.decisions()}
    assert seconds == {"wang": False, "li": True}
    assert [row["items"] for row in account.agreements(database)] == [1, 1]
