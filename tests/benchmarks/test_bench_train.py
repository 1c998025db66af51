"""The benchmark of training: every part on toys, what it counts and what it refuses. Rates are not looked at."""

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import train, train_memory
from benchmarks.train_packing import CAPACITIES, FIRST, Packing, first_fit
from benchmarks.train_reading import Reading
from benchmarks.train_turns import Turns
from soaes.data import token_store
from soaes.data.packing import best_fit
from soaes.model import checkpoint
from soaes.model import soft_targets as formats
from soaes.stages import prepare

KEYS = ["name", "unit", "median", "low", "high", "rounds", "target", "better", "limit"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Rows of stage 2, their tokenizer and a model."""
    documents, tokenizer, rows = (
        tmp_path_factory.mktemp(name) for name in ("documents", "tokenizer", "rows")
    )
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 160, 20, out=documents)
    prepare.tokenizer(documents, 600, out=tokenizer)
    prepare.pack(
        documents, tokenizer, ["qa"], None, 256, partial(best_fit, overflow="auto"), out=rows
    )
    read = token_store.Rows(*(np.asarray(array) for array in token_store.load(rows / "train")))
    return read, tokenizer, checkpoint.create(tokenizer, 1, 32, 2, 1, 256, seed=0)


def rounds(part, *of, count=5):
    for number in range(count):
        part.run(number, counted=True)
    results = list(part.results(*of))
    assert all(
        list(one) == KEYS and one["low"] <= one["median"] <= one["high"] and one["median"] > 0
        for one in results
    )
    return {one["name"]: one for one in results}


def test_contenders_take_turns_and_a_ratio_is_taken_within_a_round():
    seen = []
    told = {"slow": iter([1, 9, 2, 3, 3, 3]), "fast": iter([2, 2, 50, 6, 6, 6])}
    turns = Turns(
        {name: lambda name=name: seen.append(name) or next(told[name]) for name in told}, times=3
    )
    turns.run(0, counted=True)
    turns.run(1, counted=True)
    assert turns.taken == {"slow": [2, 3], "fast": [2, 6]} and turns.ratios("fast", "slow") == [
        1,
        2,
    ]
    assert all(set(seen[at : at + 2]) == set(told) for at in range(0, 12, 2))


def test_first_fit_by_a_tree_is_first_fit():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        lengths, rooms = rng.integers(1, 40, 50).tolist(), []
        for piece in sorted(
            (min(16, length - start) for length in lengths for start in range(0, length, 16)),
            reverse=True,
        ):
            at = next((at for at, room in enumerate(rooms) if room >= piece), len(rooms))
            rooms[at:] = [16 - piece] if at == len(rooms) else [rooms[at] - piece, *rooms[at + 1 :]]
        assert first_fit(lengths, 16) == len(rooms)


def test_packing_is_told_with_its_fill():
    results = rounds(Packing(3000, ([100, 28] * 8, 128)))
    assert (
        len(results) == 2 * (len(CAPACITIES) + 1) + 2
        and sum(FIRST in name for name in results) == 2
    )
    assert [results[name]["median"] for name in results if "16 documents" in name] == [100, 100]


def test_padded_and_packed_documents_have_one_loss(toy):
    """And the same tokens are counted on both sides; rates of a toy say nothing."""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    from benchmarks.train_padded import OURS, Padding

    rows, tokenizer, model = toy
    part = Padding(model, tokenizer, rows, step=1, steps=4)
    assert sum(part.lengths) == int(part.tokens_R.sum()) and int(part.tokens_R.max()) <= 256
    results = rounds(part, "toy", count=1)
    assert (
        len(results) == 4
        and all(0.3 < filled <= 1 for filled in part.filled.values())
        and any(OURS in name for name in results)
    )
    part.rows = rows._replace(ids_RT=rows.ids_RT[:, ::-1].copy())
    with pytest.raises(ValueError, match="no rate counts"):
        part.apart()


def test_steps_are_told_by_format(toy):
    from benchmarks.train_steps import FORMATS, Distilling, Share

    rows, _, model = toy
    results = rounds(Distilling(model, rows, 2, torch.randn(600, 16)), "toy")
    assert [name.split()[3] for name in results] == [soft_targets.name for soft_targets in FORMATS]
    share = Share(model, rows, 2, 2)
    assert len(rounds(share, "toy")) == 4 and share.tokens == 2 * 256


def test_alive_counts_what_is_alive():
    """Of three matrices of 4 MB two at a time; a view and a sum in place take nothing."""
    with train_memory.Alive() as counted:
        first = torch.ones(1000, 1000)
        second = first + 1
        second.view(-1).add_(1)
        del first
        second * 2
    assert counted.peak == 8_000_000


def test_the_chunked_loss_takes_less_than_the_whole():
    ours, whole, ratio = train_memory.results(1, tokens=1024, vocabulary=2000)
    assert ratio["median"] == whole["median"] / ours["median"] > 2


def test_the_store_and_plain_files_give_the_same_bytes(tmp_path):
    class Kept:
        """Rows of 1, 2, 3 .. tokens."""

        soft_targets = formats.Hidden()
        hidden = [torch.full((at + 1, 4), float(at)) for at in range(16)]

        def rows(self, which):
            return {"hidden": torch.cat([self.hidden[at] for at in which])}

    part = Reading(Kept(), 16, tmp_path)
    for which in part.asked[8][:5]:
        assert np.array_equal(part._ours(which)[0], part._plain(which)[0])
    assert len(rounds(part)) == 6


def test_the_command_line_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    refusals = {"rounds=4": "rounds=4: a whole number from 5 on", "row=5": "row=5: give rows=",
                f"rows={tmp_path}/pack-0": "run `python -m soaes.run scale=tiny goal=rows.stage2` first"}  # fmt: skip
    for words, message in refusals.items():
        with pytest.raises(ValueError, match=message):
            train.main([words])
