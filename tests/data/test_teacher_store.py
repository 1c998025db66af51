"""Reading the teacher store: what is read is what was written, and nothing damaged is read."""

import json
import pickle
import random
import shutil
from dataclasses import asdict

import numpy as np
import pytest
import torch

from soaes.data import chat, shards, teacher_store, token_store
from soaes.model import attention, checkpoint
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.pipeline import store
from soaes.pipeline.runtime import Execution
from soaes.pipeline.store import Store
from soaes.stages import teach
from tests.helpers import soft_target_stores
from tests.helpers.soft_target_stores import (
    FORMATS,
    TOKENS_R,
    VOCABULARY,
    build,
    by_format,
    contents,
    encoded_row,
    flipped,
    load,
    read,
    write,
)

small_shards, toy = soft_target_stores.small_shards, soft_target_stores.toy  # fixtures


@by_format
def test_any_rows_are_read_as_they_were_written(tmp_path, soft_targets):
    write(tmp_path, soft_targets)
    store = load(tmp_path)
    settled = (
        {"vocab": VOCABULARY} if hasattr(soft_targets, "vocab") else {}
    )  # the teacher's, unless the user said less
    assert asdict(store.soft_targets) == asdict(soft_targets) | settled and (
        store.head_VD is not None
    ) == (soft_targets.name == "hidden")
    assert len(list((tmp_path / "soft_targets").glob("shard-*"))) >= 2
    for which in ([0], [1], [2, 3, 9], [0, 11], list(range(12)), []):
        parts = [encoded_row(soft_targets, row)[0] for row in which] or [
            encoded_row(soft_targets, 1)[0]
        ]
        fields = store.rows(np.array(which, int))
        assert fields.keys() == parts[0].keys()
        for name, field in fields.items():
            assert torch.equal(field, torch.cat([part[name] for part in parts])), name


@by_format
def test_a_store_is_as_large_as_its_format_says(tmp_path, soft_targets):
    contract = write(tmp_path, soft_targets)
    each = sum(
        int(np.prod(shape)) * np.dtype(dtype).itemsize
        for shape, dtype in soft_targets.fields(6, 20).values()
    )
    assert contract["bytes_per_token"] == each
    payload = sum(len(np.load(path)) for path in (tmp_path / "soft_targets").glob("shard-*")) * each
    assert payload == TOKENS_R.sum() * each


PAPER = {
    "full": 304128,
    "hidden": 16384,
    "sampled": 260,
    "topk": 1540,
}  # bytes a token of float16, 64 draws, 256 logits


@pytest.mark.parametrize(
    "soft_targets",
    [
        formats.Full("float16"),
        formats.Hidden("float16"),
        formats.Sampled(64, [2.0]),
        formats.TopK(256, [2.0]),
    ],
    ids=lambda soft_targets: soft_targets.name,
)
def test_a_shard_at_the_papers_shape_is_as_large_as_computed(tmp_path, monkeypatch, soft_targets):
    """Five tokens at width 8,192 and 152,064 ids.

    A head of that many rows would be 5 GB; hidden states do not depend on it.
    """
    monkeypatch.setattr(shards, "SHARD_BYTES", 1 << 20)
    vocabulary = 8 if soft_targets.name == "hidden" else 152064
    zeros = {
        name: torch.from_numpy(np.zeros((5, *shape), dtype))
        for name, (shape, dtype) in soft_targets.fields(8192, vocabulary).items()
    }
    teacher_store.write(
        tmp_path,
        soft_targets,
        torch.zeros(1, 1).expand(vocabulary, 8192),
        np.array([5]),
        lambda rows: iter([zeros]),
        lambda: [],
    )
    shard = np.load(tmp_path / "soft_targets" / shards.shard_name(0))
    assert (
        shard.nbytes
        == 5 * formats.bytes_per_token(soft_targets, 8192, vocabulary)
        == 5 * PAPER[soft_targets.name]
    )


def test_a_pickled_store_carries_no_shard_and_reads_the_same(tmp_path):
    write(tmp_path)
    store = load(tmp_path)
    everything = store.rows(np.arange(12))["hidden"]
    copy = pickle.loads(pickle.dumps(store))
    assert not copy.shards.opened and torch.equal(copy.rows(np.arange(12))["hidden"], everything)


def test_a_shard_is_checked_once_and_only_when_it_is_read(tmp_path, monkeypatch):
    write(tmp_path)
    store, checked, checksum = load(tmp_path), [], shards.checksum
    monkeypatch.setattr(
        shards, "checksum", lambda path: checked.append(path.name) or checksum(path)
    )
    for _ in range(3):
        store.rows(np.array([0]))
    assert checked == ["shard-00000.npy"]


def test_a_sealed_store_is_hashed_as_it_is_written_and_once_more_as_it_is_read(
    tmp_path, monkeypatch
):
    hashed, checksum = [], store.checksum
    for module in (store, shards):
        monkeypatch.setattr(
            module, "checksum", lambda path: hashed.append(path.name) or checksum(path)
        )
    folder = build(tmp_path)
    Store(tmp_path).verify(folder.name)
    assert sorted(hashed) == ["contract.json"] * 2 + ["recipe.yaml"] * 2
    del hashed[:]
    read(folder)
    assert sorted(hashed) == sorted(
        {path.name for path in (folder / "soft_targets").iterdir()} - {"contract.json"}
    )


@pytest.mark.parametrize("name", ["shard-00001.npy", "contract.json"])
def test_a_sealed_store_is_verified_without_its_shards_being_read(tmp_path, name):
    """A missing or shortened file and a changed contract are found before the stage begins.

    A changed bit of a shard is found when it is first read.
    """
    folder = build(tmp_path)
    path = folder / "soft_targets" / name
    flipped(path, 1000)
    with pytest.raises(ValueError, match="run again"):
        Store(tmp_path).verify(folder.name)
        read(folder)
    flipped(path, 1000)
    read(folder)
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-1]), path.unlink):
        damage()
        with pytest.raises(ValueError, match=f"{name} is not what"):
            Store(tmp_path).verify(folder.name)


@pytest.mark.parametrize("soft_targets", [FORMATS[0], FORMATS[2]], ids=["hidden", "topk"])
def test_a_flipped_bit_is_never_read(tmp_path, soft_targets):
    """Payload, headers, offsets, head and contract: 10,000 single bits in all."""
    write(tmp_path, soft_targets)
    files = sorted((tmp_path / "soft_targets").iterdir())
    bits, rng = [path.stat().st_size * 8 for path in files], random.Random(0)
    for (path,) in zip(rng.choices(files, bits, k=5000)):
        bit = rng.randrange(path.stat().st_size * 8)
        flipped(path, bit)
        with pytest.raises(ValueError, match="run again"):
            read(tmp_path)
        flipped(path, bit)
    read(tmp_path)


@pytest.mark.parametrize("name", ["shard-00001.npy", "contract.json"])
def test_a_file_cut_off_at_any_byte_is_refused_at_open(tmp_path, name):
    write(tmp_path)
    path = tmp_path / "soft_targets" / name
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(
            ValueError,
            match=f"{name} is missing or not what was written; "
            f"delete the folder {tmp_path} and run again",
        ):
            load(tmp_path)


@pytest.mark.parametrize(
    "mix",
    [
        "missing",
        "duplicated",
        "reordered",
        "another's shard",
        "another's head",
        "another's contract",
    ],
)
def test_a_mixture_of_stores_is_refused(tmp_path, mix):
    write(tmp_path / "one")
    write(tmp_path / "other", teacher="another")
    here, there = tmp_path / "one" / "soft_targets", tmp_path / "other" / "soft_targets"
    first, second = here / "shard-00000.npy", here / "shard-00001.npy"
    if mix == "missing":
        first.unlink()
    elif mix == "duplicated":
        shutil.copy(first, second)
    elif mix == "reordered":
        for path, content in ((first, second.read_bytes()), (second, first.read_bytes())):
            path.write_bytes(content)
    else:
        name = {
            "another's shard": first.name,
            "another's head": "head_VD.npy",
            "another's contract": "contract.json",
        }[mix]
        shutil.copy(there / name, here / name)
    with pytest.raises(ValueError, match="run again"):
        read(tmp_path / "one")


def test_a_store_that_is_still_being_written_is_not_read(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, die_at=11)
    with pytest.raises(ValueError, match="still being written.*run it again"):
        load(tmp_path)


def test_a_store_is_for_its_rows_and_its_tokenizer(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="one tokenizer"):
        teacher_store.load(tmp_path, "pack-1", "another")
    with pytest.raises(ValueError, match="the student's rows"):
        teacher_store.load(tmp_path, "other rows", "words")


def test_a_format_that_errs_too_much_at_a_temperature_refuses_it(tmp_path):
    write(tmp_path, FORMATS[2])
    store, near = load(tmp_path), {"gradient_bias": 0.01, "low": None, "high": None}
    store.contract["fidelity"] = [{"tau": 1.0, **near}, {"tau": 2.0, **near, "gradient_bias": 0.3}]
    store.check_supports(1.0, "forward", VOCABULARY)
    with pytest.raises(
        ValueError,
        match="at tau=2 the gradient of soft_targets=topk is off by 30.0% of the exact one, "
        "the limit is 5%; set soft_targets=hidden",
    ):
        store.check_supports(2.0, "forward", VOCABULARY)
    with pytest.raises(ValueError, match="soft_targets.taus"):
        store.check_supports(3.0, "forward", VOCABULARY)


def test_drawn_soft_targets_are_judged_by_what_chance_leaves_sure(tmp_path):
    write(tmp_path, FORMATS[3])
    store, drawn = load(tmp_path), {"gradient_bias": 0.2}
    store.contract["fidelity"] = [
        {"tau": 1.0, **drawn, "low": -0.1, "high": 0.2},
        {"tau": 2.0, **drawn, "low": -0.2, "high": -0.1},
    ]
    store.check_supports(1.0, "forward", VOCABULARY)
    with pytest.raises(ValueError, match="off by 10.0%"):
        store.check_supports(2.0, "forward", VOCABULARY)


@pytest.mark.parametrize("soft_targets", FORMATS[2:], ids=lambda soft_targets: soft_targets.name)
def test_a_student_may_be_padded_further_but_not_less(tmp_path, soft_targets):
    write(tmp_path, soft_targets)
    store = load(tmp_path)
    store.check_supports(1.0, "forward", VOCABULARY + 128)
    with pytest.raises(ValueError, match=f"set soft_targets.vocab={VOCABULARY - 1}"):
        store.check_supports(1.0, "forward", VOCABULARY - 1)


@by_format
@pytest.mark.parametrize("name", ["sdpa", "documents"])
def test_the_stage_stores_what_training_predicts_from(toy, tmp_path, soft_targets, name):
    """The tokens are those that the student's mask selects; the micro-batch changes no byte."""
    stores = []
    for size in (1, 3, 8):
        out = tmp_path / f"{size}"
        out.mkdir()
        teach.teach(
            toy / "target",
            toy / "rows",
            soft_targets,
            Execution(micro_batch_size=size, attention=name),
            seed=3,
            out=out,
        )
        stores.append(contents(out))
    assert stores[0] == stores[1] == stores[2]
    store, rows = (
        teacher_store.load(out, "rows", chat.tokenizer_digest(toy / "target")),
        token_store.load(toy / "rows" / "train", chat.tokenizer_digest(toy / "target")),
    )
    model = checkpoint.load(toy / "target").eval()
    attention.set_attention(model, name)
    lit = CausalLM(model, 1e-3, None, (0.9, 0.95), 0.1, 1, 1.0)
    which = np.array([1, 4, 5, 19])
    batch = {
        f"{field}_BT": torch.from_numpy(array[which].astype(np.int64))
        for field, array in zip(("ids", "labels", "positions"), rows)
    }
    with torch.no_grad():
        hidden_ND, labels_N = lit.loss_positions(batch)[:2]
    fields = store.rows(which)
    assert all(
        len(field) == len(labels_N) == rows.loss_tokens_R[which].sum() for field in fields.values()
    )
    if soft_targets.name == "hidden":
        assert torch.allclose(fields["hidden"], hidden_ND, atol=1e-5) and torch.equal(
            store.head_VD, model.lm_head.weight
        )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["tokens"] == rows.loss_tokens_R.sum() and [
        line["tau"] for line in metrics["fidelity"]
    ]
