"""The training benchmark: every part on toy inputs, what it counts and what it refuses.

The rates themselves are not tested."""

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import train, train_memory
from benchmarks.train_packing import CAPACITIES, FIRST, Packing, first_fit
from benchmarks.train_reading import Reading
from benchmarks.train_turns import Turns
from soaes.data import chat, token_store
from soaes.data.settings import PackingSettings
from soaes.model import checkpoint
from soaes.model import soft_targets as formats
from soaes.stages import prepare

KEYS = ["name", "unit", "median", "low", "high", "rounds", "target", "better", "limit"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Rows of stage 2, their tokenizer and a model."""
    documents = tmp_path_factory.mktemp("documents")
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    folder = tmp_path_factory.mktemp("rows")
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 0, 160, 20, out=documents)
    prepare.tokenizer(documents, 600, out=tokenizer)
    prepare.pack(documents, tokenizer, ["qa"], None, 256, PackingSettings(), out=folder)
    digest = chat.tokenizer_digest(tokenizer)
    arrays = [np.asarray(array) for array in token_store.load(folder / "train", digest)]
    model = checkpoint.create(tokenizer, 1, 32, 2, 1, 256, seed=0)
    return token_store.Rows(*arrays), tokenizer, model


def run_rounds(part, *setting, count=5):
    """Run a part's rounds and return its results by name."""
    for number in range(count):
        part.run(number, counted=True)
    results = list(part.results(*setting))
    for result in results:
        assert list(result) == KEYS
        assert result["low"] <= result["median"] <= result["high"]
        assert result["median"] > 0
    return {result["name"]: result for result in results}


def test_contenders_take_turns_and_a_ratio_is_taken_within_a_round():
    order = []
    values = {"slow": iter([1, 9, 2, 3, 3, 3]), "fast": iter([2, 2, 50, 6, 6, 6])}

    def contender(name):
        order.append(name)
        return next(values[name])

    turns = Turns({name: partial(contender, name) for name in values}, times=3)
    turns.run(0, counted=True)
    turns.run(1, counted=True)
    assert turns.values == {"slow": [2, 3], "fast": [2, 6]}
    assert turns.ratios("fast", "slow") == [1, 2]
    assert all(set(order[start : start + 2]) == set(values) for start in range(0, 12, 2))


def test_first_fit_by_a_tree_is_first_fit():
    capacity = 16
    for seed in range(100):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 40, 50).tolist()
        pieces = []
        for length in lengths:
            for start in range(0, length, capacity):
                pieces.append(min(capacity, length - start))
        free = []  # by row
        for piece in sorted(pieces, reverse=True):
            fitting = [row for row, space in enumerate(free) if space >= piece]
            if fitting:
                free[fitting[0]] -= piece
            else:
                free.append(capacity - piece)
        assert first_fit(lengths, capacity) == len(free)


def test_packing_is_reported_with_its_fill():
    results = run_rounds(Packing(3000, ([100, 28] * 8, 128)))
    assert len(results) == 2 * (len(CAPACITIES) + 1) + 2
    assert sum(FIRST in name for name in results) == 2
    fills = [result["median"] for name, result in results.items() if "16 documents" in name]
    assert fills == [100, 100]


def test_padded_and_packed_documents_have_one_loss(toy):
    """Both sides count the same tokens, too; rates on a toy say nothing."""
    pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
    from benchmarks.train_padded import OURS, Padding

    rows, tokenizer, model = toy
    part = Padding(model, tokenizer, rows, step=1, steps=4)
    assert sum(part.lengths) == int(part.tokens_R.sum()) and int(part.tokens_R.max()) <= 256
    results = run_rounds(part, "toy", count=1)
    assert len(results) == 4 and any(OURS in name for name in results)
    assert all(0.3 < filled <= 1 for filled in part.filled.values())
    part.rows = rows._replace(ids_RT=rows.ids_RT[:, ::-1].copy())
    with pytest.raises(ValueError, match="no rate counts"):
        part.loss_difference()


def test_steps_are_reported_by_format(toy, monkeypatch):
    from benchmarks import train_steps
    from benchmarks.train_steps import FORMATS, Distilling, Share

    monkeypatch.setattr(train_steps, "SIDE", 64)  # seconds less
    rows, _, model = toy
    results = run_rounds(Distilling(model, rows, 2, torch.randn(600, 16)), "toy")
    assert [name.split()[3] for name in results] == [soft_targets.name for soft_targets in FORMATS]
    share = Share(model, rows, 2, 2)
    assert len(run_rounds(share, "toy")) == 4 and share.tokens == 2 * 256


def test_live_memory_counts_what_is_alive():
    """Of three matrices of 4 MB two live at a time; views and in-place sums allocate nothing."""
    with train_memory.LiveMemory() as memory:
        first = torch.ones(1000, 1000)
        second = first + 1
        second.view(-1).add_(1)
        del first
        second * 2
    assert memory.peak == 8_000_000


def test_the_chunked_loss_takes_less_than_the_whole():
    ours, whole, ratio = train_memory.results(1, tokens=1024, vocabulary=2000)
    assert ratio["median"] == whole["median"] / ours["median"] > 2


class ToyStore:
    """Rows of 1, 2, 3 .. tokens."""

    soft_targets = formats.Hidden()
    hidden = [torch.full((index + 1, 4), float(index)) for index in range(16)]

    def rows(self, indices):
        return {"hidden": torch.cat([self.hidden[index] for index in indices])}


def test_the_store_and_plain_files_give_the_same_bytes(tmp_path):
    part = Reading(ToyStore(), 16, tmp_path)
    for indices in part.indices[8][:5]:
        assert np.array_equal(part.read_store(indices)[0], part.read_plain(indices)[0])
    assert len(run_rounds(part)) == 6


@pytest.mark.parametrize(
    ("word", "message"),
    [
        pytest.param("rounds=4", "rounds=4: a whole number from 5 on", id="too few rounds"),
        pytest.param("row=5", "row=5: give rows=", id="unknown word"),
        pytest.param(
            "rows={tmp_path}/pack-0",
            "run `python -m soaes.run scale=tiny goal=rows.stage2` first",
            id="no such rows",
        ),
    ],
)
def test_the_command_line_refuses(word, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    with pytest.raises(ValueError, match=message):
        train.main([word.format(tmp_path=tmp_path)])
