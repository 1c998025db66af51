"""Laws of packing: no token is lost, no row overflows, no document sees another."""

import json
import random
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.data import chat, packing, token_store
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.packing import best_fit, sum_of_squares
from soaes.data.settings import PackingSettings
from soaes.pipeline.progress import headline
from soaes.stages import prepare


def lengths_of(packed):
    rows = [[] for _ in range(packed.rows)]
    for row, _, start, stop in packed.pieces_P4.tolist():
        rows[row].append(stop - start)
    return rows


def by_definition(lengths, capacity):
    """Best-fit decreasing, one piece after the other: rows of (document, start, stop)."""
    pieces = [
        (document, start, min(start + capacity, length))
        for document, length in enumerate(lengths)
        for start in range(0, length, capacity)
    ]
    rows, rooms, moved = (
        [],
        [],
        [],
    )  # of equally full rows the one that has been so full for longest
    for turn, (document, start, stop) in enumerate(
        sorted(pieces, key=lambda piece: piece[1] - piece[2])
    ):
        fits = [row for row, room in enumerate(rooms) if room >= stop - start]
        row = min(fits, key=lambda row: (rooms[row], moved[row])) if fits else len(rows)
        if not fits:
            rows, rooms, moved = [*rows, []], [*rooms, capacity], [*moved, 0]
        rows[row].append((document, start, stop))
        rooms[row], moved[row] = rooms[row] - stop + start, turn
    return rows


def test_alike_pieces_at_once_are_placed_as_one_by_one():
    rng = random.Random(0)
    for _ in range(300):
        capacity = rng.choice([1, 7, 16, 64])
        lengths = [
            rng.randint(0, rng.choice([capacity // 3 + 1, capacity, 3 * capacity]))
            for _ in range(rng.randint(0, 90))
        ]
        expected = [
            [row, *piece]
            for row, pieces in enumerate(by_definition(lengths, capacity))
            for piece in pieces
        ]
        assert best_fit(lengths, capacity, "split").pieces_P4.tolist() == expected


def test_best_fit_packs_what_widely_used_trainers_pack():
    assert lengths_of(best_fit([5, 3, 9, 2, 7, 4, 4, 1, 6, 8], 10)) == [
        [9, 1],
        [8, 2],
        [7, 3],
        [6, 4],
        [5, 4],
    ]
    assert lengths_of(best_fit([12, 3, 25, 7], 10, "split")) == [[10], [10], [10], [7, 3], [5, 2]]


@pytest.mark.parametrize("method", [best_fit, sum_of_squares], ids=["best_fit", "sum_of_squares"])
def test_packing_loses_no_token(method):
    rng = random.Random(0)
    for _ in range(300):
        lengths = [rng.randint(0, 40) for _ in range(rng.randint(0, 60))]
        packed = method(lengths, 16, "split")
        assert all(sum(row) <= 16 for row in lengths_of(packed))
        seen = {
            (document, token)
            for _, document, start, stop in packed.pieces_P4.tolist()
            for token in range(start, stop)
        }
        pieces = sum(length for row in lengths_of(packed) for length in row)
        assert seen == {
            (document, token) for document, length in enumerate(lengths) for token in range(length)
        }
        assert pieces == len(seen), "a token is placed twice"
        assert packed.split == sum(length > 16 for length in lengths)


def test_too_long_is_dropped_and_named_or_refused():
    packed = best_fit([5, 20, 3], 10, "drop")
    assert packed.dropped == [1] and lengths_of(packed) == [[5, 3]]
    with pytest.raises(ValueError, match=r"law-7 has 20 tokens, a row holds 10.*overflow=split"):
        best_fit([5, 20], 10, "error", ["law-1", "law-7"])
    with pytest.raises(ValueError, match="overflow=cut"):
        best_fit([5], 10, "cut")


def test_least_squares_is_the_least_of_all_sums_of_squares():
    rng = np.random.default_rng(0)
    for _ in range(500):
        capacity = int(rng.integers(1, 20))
        with_room, length = (
            np.append(0, rng.integers(0, 4, capacity)),
            int(rng.integers(1, capacity + 1)),
        )
        with_room[capacity] = 0

        def squares(room, with_room=with_room, length=length, capacity=capacity):
            after = with_room.copy()
            after[room] -= room < capacity
            after[room - length] += 1
            return (after[1:] ** 2).sum()

        possible = [
            room for room in range(length, capacity + 1) if with_room[room] or room == capacity
        ]
        assert squares(packing._least_squares(with_room, length)) == min(map(squares, possible))


def test_documents_of_one_length_and_their_like_fill_rows_by_sum_of_squares():
    """Best-fit decreasing lays the longest together, whose gaps no other then fits."""
    lengths = np.random.default_rng(0).normal(42, 6, 4000).astype(int).clip(30, 90).tolist()
    filled = {
        method: sum(lengths) / (256 * method(lengths, 256).rows)
        for method in (best_fit, sum_of_squares)
    }
    assert filled[best_fit] < 0.98 and filled[sum_of_squares] > 0.995


def test_packing_is_near_full_on_short_documents():
    rng = random.Random(1)
    lengths = [rng.randint(5, 90) for _ in range(5000)]
    assert sum(lengths) / (256 * best_fit(lengths, 256).rows) > 0.995


def test_a_quarter_million_lengths_are_packed_in_seconds_and_full():
    """`make bench-train` times a million of them; placing one piece at a time is far slower."""
    lengths = np.clip(
        np.random.default_rng(0).lognormal(5.8, 1.1, 250_000).astype(int), 8, None
    ).tolist()
    began = time.process_time()
    packed = best_fit(lengths, 4096, "split")
    assert time.process_time() - began < 2.5 and sum(lengths) / (4096 * packed.rows) > 0.995


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents and a tokenizer of a toy world."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("documents", "tokenizer")}
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 0, 120, 20, out=folders["documents"])
    prepare.tokenizer(folders["documents"], 600, out=folders["tokenizer"])
    return folders


def general_lengths(texts):
    """Tokens of each general document that may be trained on: 1 in 50 is held out."""
    model = Tokenizer.from_file(str(texts["tokenizer"] / "tokenizer.json"))
    general_texts = [record["text"] for record in read_jsonl(texts["documents"] / "general.jsonl")]
    return [
        len(ids)
        for index, ids in enumerate(chat.document(model, general_texts))
        if index % 50 != 49
    ]


def packed_corpus(texts, out, **replay):
    out.mkdir(parents=True)
    prepare.pack(
        texts["documents"],
        texts["tokenizer"],
        ["corpus"],
        None,
        128,
        PackingSettings(),
        **replay,
        out=out,
    )
    digest = chat.tokenizer_digest(texts["tokenizer"])
    rows = token_store.load(out / "train", digest)
    return rows, json.loads((out / "packing_report.json").read_text())


def sequences(rows):
    """Count the documents (or full pieces of them) that rows hold, without padding."""
    counts = Counter()
    for ids, labels, positions in zip(*rows):
        starts = [*np.flatnonzero(positions == 0), len(ids)]
        counts.update(
            tuple(ids[a:b].tolist())
            for a, b in zip(starts, starts[1:])
            if (labels[a:b] != token_store.IGNORE).any()
        )
    return counts


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_replay_is_the_share_asked_for_on_top_of_the_whole_corpus(texts, tmp_path, share):
    alone, mixed = (
        packed_corpus(texts, tmp_path / str(replay), replay=replay) for replay in (0.0, share)
    )
    domain, general = alone[1]["train"]["tokens"], mixed[1]["replay"]["tokens"]
    lengths = general_lengths(texts)
    assert abs(general - share / (1 - share) * domain) <= max(lengths) / 2, (
        "whole documents allow for half a document"
    )
    assert mixed[1]["replay"]["different"] == min(mixed[1]["replay"]["documents"], len(lengths)), (
        "none comes again before all came once"
    )
    assert mixed[1]["train"]["tokens"] == mixed[1]["train"]["kept"] == domain + general
    extra = sequences(mixed[0])
    extra.subtract(sequences(alone[0]))
    assert min(extra.values()) >= 0, "a domain document is lost"
    assert sum(len(piece) * times for piece, times in extra.items()) == general
    digest = chat.tokenizer_digest(texts["tokenizer"])
    assert np.array_equal(
        token_store.load(tmp_path / "0.0" / "dev", digest).ids_RT,
        token_store.load(tmp_path / str(share) / "dev", digest).ids_RT,
    )


def test_no_replay_changes_nothing_and_the_same_replay_is_the_same(texts, tmp_path):
    def arrays(name, **replay):
        packed_corpus(texts, tmp_path / name, **replay)
        return {path.name: path.read_bytes() for path in (tmp_path / name / "train").iterdir()}

    assert (
        arrays("none")
        == arrays("zero", replay=0.0)
        != arrays("some", replay=0.3)
        == arrays("again", replay=0.3)
    )


def test_replay_out_of_its_range_or_without_text_is_refused(texts, tmp_path):
    with pytest.raises(ValueError, match=r"replay=1.*\[0, 1\)"):
        packed_corpus(texts, tmp_path / "all", replay=1)
    bare = shutil.copytree(texts["documents"], tmp_path / "bare")
    (bare / "general.jsonl").write_text("")
    with pytest.raises(ValueError, match="bare has none to train on.*set replay=0"):
        packed_corpus({**texts, "documents": bare}, tmp_path / "some", replay=0.2)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=50,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    config._attn_implementation = "sdpa"
    return Qwen2ForCausalLM(config).eval()


def packed_rows(documents, context):
    loss = [np.ones(len(document), bool) for document in documents]
    packed = best_fit([len(document) for document in documents], context)
    return token_store.fill(documents, loss, packed.pieces_P4, packed.rows, context, 0)


def causal_lm(model):
    from soaes.model.causal_lm import CausalLM

    return CausalLM(
        model,
        lr=1e-3,
        schedule=lambda step, steps: 1.0,
        betas=(0.9, 0.95),
        weight_decay=0.0,
        steps=1,
        grad_clip=1.0,
    )


def tensors(rows):
    names = ("ids_BT", "labels_BT", "positions_BT")
    return {
        name: torch.from_numpy(array.astype(np.int64))
        for name, array in zip(names, rows, strict=True)
    }


def documents_of(seed, count, longest=20):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 50, rng.integers(2, longest)).astype(np.int32) for _ in range(count)]


def test_packed_loss_equals_the_loss_of_documents_alone(model):
    documents = documents_of(0, 9)
    lit = causal_lm(model)
    packed = lit.loss_sum(tensors(packed_rows(documents, 48)))
    alone = sum(
        lit.loss_sum(tensors(packed_rows([document], len(document)))) for document in documents
    )
    reference = sum(
        model(torch.tensor(document[None]), labels=torch.tensor(document[None]).long()).loss
        * (len(document) - 1)
        for document in documents
    )
    assert torch.allclose(packed, alone, rtol=1e-6) and torch.allclose(packed, reference, rtol=1e-5)


def test_gradients_are_those_of_documents_alone_and_do_not_leak(model):
    documents = documents_of(1, 4)
    lit = causal_lm(model)

    def gradient(loss):
        return torch.cat(
            [part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]
        )

    packed = gradient(lit.loss_sum(tensors(packed_rows(documents, 80))))
    alone = sum(
        gradient(lit.loss_sum(tensors(packed_rows([document], len(document)))))
        for document in documents
    )
    assert (packed - alone).abs().max() < 1e-5 * alone.abs().max()


def test_a_changed_document_leaves_the_others_logits_bit_equal(model):
    documents = documents_of(2, 4)
    rows = packed_rows(documents, 80)
    before = tensors(rows)
    changed = {**before, "ids_BT": before["ids_BT"].clone()}
    end = int((before["positions_BT"][0] == 0).nonzero()[1])  # where the second document starts
    changed["ids_BT"][0, :end] = (changed["ids_BT"][0, :end] + 1) % 50
    hidden_before, hidden_after = (
        model.model(
            batch["ids_BT"], position_ids=batch["positions_BT"], use_cache=False
        ).last_hidden_state
        for batch in (before, changed)
    )
    assert torch.equal(hidden_before[0, end:], hidden_after[0, end:]) and not torch.equal(
        hidden_before[0, :end], hidden_after[0, :end]
    )


def test_a_step_has_one_loss_whatever_its_micro_batches():
    from soaes.data.datamodule import PackedDataModule

    rows = packed_rows(documents_of(3, 60), 32)
    seen = []
    for micro_batch_size in (8, 3, 1):
        data = PackedDataModule(
            rows, rows, global_batch_size=8, micro_batch_size=micro_batch_size, epochs=2, seed=5
        )
        batches = data.micro_batches(rank=0)
        assert len(batches) == len(data.steps) * data.accumulate
        seen.append([np.sort(step).tolist() for step in data.steps])
        for index, step in enumerate(data.steps):
            of_step = batches[index * data.accumulate : (index + 1) * data.accumulate]
            assert sorted(row for part, _ in of_step for row in part) == sorted(step)
            assert {tokens for _, tokens in of_step} == {int(rows.loss_tokens_R[step].sum())}
    assert seen[0] == seen[1] == seen[2]


def test_documents_that_are_dropped_for_length_are_in_the_stages_line(texts, tmp_path):
    (tmp_path / "rows").mkdir()
    arguments = (["qa"], None, 128, PackingSettings())
    prepare.pack(texts["documents"], texts["tokenizer"], *arguments, out=tmp_path / "rows")
    report, metrics = (
        json.loads((tmp_path / "rows" / name).read_text())
        for name in ("packing_report.json", "metrics.json")
    )
    dropped = sum(report[split]["dropped"]["documents"] for split in ("train", "dev"))
    assert metrics["num_dropped"] == dropped > 0 == metrics["num_split"]
    assert f"num_dropped {dropped}" in headline(metrics)


@pytest.mark.parametrize(
    "categories, message",
    [
        (["finance", "bussiness"], "category bussiness. Did you mean business"),
        (["金融"], "category 金融. There are: arts, business"),
        ("finance", "categories=finance: must be a list"),
    ],
    ids=["misspelt", "none of them", "a word"],
)
def test_a_category_that_no_dialogue_has_is_refused(texts, tmp_path, categories, message):
    with pytest.raises(ValueError, match=message):
        prepare.pack(
            texts["documents"],
            texts["tokenizer"],
            ["dialogue"],
            categories,
            128,
            PackingSettings(),
            out=tmp_path,
        )


def test_a_dialogue_of_several_labels_is_kept_for_any_of_them(texts, tmp_path):
    labelled = shutil.copytree(texts["documents"], tmp_path / "labelled")
    dialogues = read_jsonl(labelled / "dialogue.jsonl")
    for dialogue in dialogues:
        dialogue["category"] = ["能力", dialogue["category"]]
    write_jsonl(labelled / "dialogue.jsonl", dialogues)

    def documents_of(folder, *categories):
        (out := tmp_path / "-".join(categories) / folder.name).mkdir(parents=True)
        arguments = (["dialogue"], list(categories), 128, PackingSettings())
        prepare.pack(folder, texts["tokenizer"], *arguments, out=out)
        report = json.loads((out / "packing_report.json").read_text())
        return sum(report[split]["documents"] for split in ("train", "dev"))

    finance = documents_of(texts["documents"], "finance")
    assert documents_of(labelled, "finance") == finance
    assert documents_of(labelled, "finance", "能力") == len(dialogues) > finance


def test_a_source_without_documents_is_refused_beside_others_too(texts, tmp_path):
    bare = shutil.copytree(texts["documents"], tmp_path / "bare")
    (bare / "dialogue.jsonl").write_text("")
    arguments = (["dialogue", "qa"], None, 128, PackingSettings())
    with pytest.raises(ValueError, match="bare has no dialogue; leave it out, as chain@target="):
        prepare.pack(bare, texts["tokenizer"], *arguments, out=tmp_path)
