"""Families hold near-duplicates and versions; splits take whole families and meet the shares."""

import random
from collections import Counter

import pytest

from soaes.data.annotation.families import assign, families


def text(seed, length=600):
    rng = random.Random(seed)
    return "".join(map(chr, rng.choices(range(0x4E00, 0x9F00), k=length)))


def test_near_duplicates_and_versions_are_one_family_and_strangers_are_not():
    base = text(0)
    documents = {
        "a": ("甲办法", base),
        "b": ("乙细则", base[:420] + text(1, 180)),  # J = .53
        "c": ("审计条例(2017-01-01)", text(2)),
        "d": ("审计条例(2023-01-01)", text(3)),
        "e": ("", text(4)),
        "f": ("", text(5)),
        "g": ("", ""),
    }
    family = families(documents)
    assert family["a"] == family["b"] == "a" and family["c"] == family["d"] == "c"
    assert len({family[name] for name in "acefg"}) == 5


@pytest.mark.parametrize("seed", range(3))
def test_each_task_is_divided_by_the_shares(seed):
    rng = random.Random(seed)
    tasks_of = {}
    for number in range(120):
        counts = Counter(qa=rng.randint(1, 20))
        if number % 3 == 0:
            counts["report"] = 1
        tasks_of[f"{number:03}"] = counts
    split_of = assign(tasks_of, 0.1, 0.1, seed)
    assert split_of == assign(dict(reversed(tasks_of.items())), 0.1, 0.1, seed)
    for task in ("qa", "report"):
        total = sum(counts[task] for counts in tasks_of.values())
        for split, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
            count = sum(tasks_of[name][task] for name in tasks_of if split_of[name] == split)
            assert count / total == pytest.approx(share, abs=0.03), (task, split)


def test_what_is_fixed_stays_and_counts():
    tasks_of = {str(number): Counter(qa=1) for number in range(20)}
    fixed = {"0": "test", "1": "test", "2": "dev", "3": "dev", "gone": "dev"}
    split_of = assign(tasks_of, 0.1, 0.1, 0, fixed)
    assert Counter(split_of.values()) == {"train": 16, "dev": 2, "test": 2}
    assert [split_of[name] for name in "0123"] == ["test", "test", "dev", "dev"]


def test_three_families_fill_three_splits():
    split_of = assign({name: Counter(qa=4) for name in "abc"}, 0.1, 0.1, 0)
    assert sorted(split_of.values()) == ["dev", "test", "train"]
