"""Laws of the teacher store that vLLM writes.

Rows become documents and come back in row order, and every format is what transformers makes of it.
"""

import contextlib
import sys

import numpy as np
import pytest
import torch

from soaes.data import chat, teacher_store, token_store
from soaes.decode.backends import vllm_environment, vllm_hidden
from soaes.model import soft_targets as formats
from soaes.pipeline import sweep
from soaes.pipeline.runtime import Execution
from soaes.stages import teach
from tests.helpers.soft_target_stores import contents, teacher_and_rows
from tests.helpers.toys import toy
from tests.helpers.vllm_stand_in import stand_in

TAUS = (1.0, 2.0, 5.0)
FORMATS = [
    formats.Hidden(),
    formats.Full("float32"),
    formats.TopK(8, TAUS, "float32"),
    formats.Sampled(16, TAUS),
]

ROW = (
    dict(  # documents [10 11 12] [13 14] [15] [16 17] and padding; the last real one bears no loss
        ids_T=np.array([10, 11, 12, 13, 14, 15, 16, 17, 0, 0]),
        labels_T=np.array([10, -100, 12, 13, 14, 15, -100, -100, -100, -100]),
        positions_T=np.array([0, 1, 2, 0, 1, 0, 0, 1, 0, 0]),
    )
)


def test_a_row_is_its_documents_that_bear_loss_cut_behind_it():
    assert teach.loss_texts(**ROW) == [([10, 11, 12], [2]), ([13, 14], [1])]
    shorter = {**ROW, "labels_T": np.array([10, 11, -100, *ROW["labels_T"][3:]])}
    assert teach.loss_texts(**shorter)[0] == ([10, 11], [1])


def test_documents_give_the_loss_tokens_in_row_order(tmp_path):
    teacher_and_rows(tmp_path)
    train = token_store.load(
        tmp_path / "rows" / "train", chat.tokenizer_digest(tmp_path / "target")
    )
    for ids_T, labels_T, positions_T in zip(*train):
        tokens = [
            text[index]
            for text, indices in teach.loss_texts(ids_T, labels_T, positions_T)
            for index in indices
        ]
        assert tokens == ids_T[(labels_T != token_store.IGNORE) & (positions_T > 0)].tolist()
    assert (
        sum(len(indices) for row in zip(*train) for _, indices in teach.loss_texts(*row))
        == train.loss_tokens_R.sum()
        > 50
    )


@pytest.mark.parametrize("soft_targets", FORMATS, ids=lambda soft_targets: soft_targets.name)
def test_a_missing_vllm_is_refused_with_the_way_to_do_without(tmp_path, monkeypatch, soft_targets):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    teacher_and_rows(tmp_path)
    with pytest.raises(
        ValueError, match="`make vllm` installs it.* or teacher_logits=transformers"
    ):
        teach.teach_vllm(tmp_path / "target", tmp_path / "rows", soft_targets, out=tmp_path)


@pytest.mark.parametrize("words", ["hidden", "full", "sampled distill.tau=3", "topk distill.tau=5"])
def test_every_format_and_temperature_is_composed(tmp_path, monkeypatch, words):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path))
    (job,) = sweep.jobs(["goal=distill", "teacher_logits=vllm", *f"soft_targets={words}".split()])
    assert job.recipe.arguments["teacher_logits"].stage == "teach_vllm"


def test_vllm_and_transformers_are_given_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path))
    recipes = [
        sweep.jobs(["goal=teacher_logits", f"teacher_logits={option}"])[0].recipe.written
        for option in ("vllm", "transformers")
    ]
    by_vllm, by_transformers = recipes
    assert by_vllm.pop("dtype") == "float32"
    assert by_vllm.pop("_target_") == "soaes.stages.teach.teach_vllm"
    assert by_transformers.pop("_target_") == "soaes.stages.teach.teach"
    assert by_vllm == by_transformers


# speaks the protocol of vllm_process.py for a teacher whose hidden states are the token before, in
# every place; exits at the row ENDS_AT
CHILD = """#!{python}
import json, os, struct, sys
assert json.loads(sys.stdin.readline())["engine"]["tensor_parallel_size"] == 2
out = sys.stdout.buffer
out.write(json.dumps(dict(ready=True)).encode() + bytes([10])); out.flush()
for asked, line in enumerate(sys.stdin):
    if asked == int(os.environ.get("ENDS_AT", -1)):
        out.write(json.dumps(dict(shape=[9, 32])).encode() + bytes([10]) + bytes(100))
        sys.exit(3)
    request = json.loads(line)
    texts = zip(request["documents"], request["wanted"])
    tokens = [ids[at - 1] for ids, places in texts for at in places]
    states = b"".join(struct.pack("f", token) * 32 for token in tokens)
    out.write(json.dumps(dict(shape=[len(tokens), 32])).encode() + bytes([10]) + states)
    out.flush()
"""


def test_a_reader_that_ended_goes_on_at_its_shard(tmp_path, monkeypatch):
    teacher_and_rows(tmp_path)
    stand_in(monkeypatch, tmp_path / "vllm", CHILD.format(python=sys.executable))
    monkeypatch.setattr("soaes.data.shards.SHARD_BYTES", 2000)
    store, out = tmp_path / "store", tmp_path / "out"

    def run(folder):
        folder.mkdir(exist_ok=True)
        teach.teach_vllm(
            tmp_path / "target",
            tmp_path / "rows",
            formats.Hidden(),
            execution=Execution(devices=3),  # of the toy's four heads two devices have as many
            out=folder,
        )

    run(store)
    monkeypatch.setenv("ENDS_AT", "11")
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        run(out)
    monkeypatch.setenv("ENDS_AT", "21")  # all 20 rows and 8 of the probe would be too many
    run(out)
    assert contents(out) == contents(store)
    digest = chat.tokenizer_digest(tmp_path / "target")
    read = teacher_store.load(store, "rows", digest)
    train = token_store.load(tmp_path / "rows" / "train", digest)
    bears_loss_RT = token_store.loss_mask(train.labels_RT, train.positions_RT)
    before = np.roll(train.ids_RT, 1, axis=1)[bears_loss_RT]
    hidden_ND = read.rows(np.arange(20))["hidden"]
    assert hidden_ND[:, 5].tolist() == before.tolist()
    head_VD = torch.nn.Parameter(toy(1).lm_head.weight)
    assert torch.equal(read.head_VD, head_VD) and read.fidelity_at(1.0)["gradient_bias"] == 0


def test_a_teacher_that_cannot_be_cut_so_is_refused(tmp_path, monkeypatch):
    teacher_and_rows(tmp_path)
    stand_in(monkeypatch, tmp_path / "vllm")
    execution = Execution(devices=3, tensor_parallel=3)
    with pytest.raises(ValueError, match="tensor_parallel=3: .*4 query and 2 key heads.*over 1, 2"):
        teach.teach_vllm(
            tmp_path / "target",
            tmp_path / "rows",
            formats.Hidden(),
            execution=execution,
            out=tmp_path,
        )


# ---------------------------------------------------------------- vLLM itself


@pytest.fixture(scope="module")
def by_transformers(tmp_path_factory):
    """A folder with a teacher whose heads vLLM reads, rows, and the store of its hidden states."""
    root = tmp_path_factory.mktemp("vllm")
    teacher_and_rows(root)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    toy(1, **sizes).save_pretrained(root / "target")
    for soft_targets in FORMATS:
        written(teach.teach, root, soft_targets)
    return root


def written(stage, root, soft_targets, **options):
    """The store that a stage writes of a format."""
    out = root / f"{stage.__name__}-{soft_targets.name}"
    out.mkdir(exist_ok=True)
    stage(root / "target", root / "rows", soft_targets, **options, out=out)
    return out


def loaded(root, stage, soft_targets):
    out = root / f"{stage}-{soft_targets.name}"
    return teacher_store.load(out, "rows", chat.tokenizer_digest(root / "target"))


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
@pytest.mark.parametrize("devices", [1, 2])
def test_vllm_writes_the_stores_that_transformers_writes(by_transformers, monkeypatch, devices):
    """In every format, at every temperature, from one start of vLLM."""
    root, execution = by_transformers, Execution(devices=devices)
    longest = token_store.load(
        root / "rows" / "train", chat.tokenizer_digest(root / "target")
    ).ids_RT.shape[1]
    with vllm_hidden.open_vllm_reader(root / "target", longest, "float32", execution) as read:
        monkeypatch.setattr(
            vllm_hidden, "open_vllm_reader", lambda *others: contextlib.nullcontext(read)
        )
        for soft_targets in FORMATS:
            written(teach.teach_vllm, root, soft_targets, execution=execution)
    rows = np.arange(20)
    hidden_ND = loaded(root, "teach_vllm", formats.Hidden()).rows(rows)["hidden"]
    wanted_ND = loaded(root, "teach", formats.Hidden()).rows(rows)["hidden"]
    difference = (hidden_ND - wanted_ND).abs().max().item()
    print(f"hidden states differ by {difference:.2g} of {wanted_ND.abs().max().item():.3g}")
    assert difference < 1e-5
    for soft_targets in FORMATS:
        both = [loaded(root, stage, soft_targets) for stage in ("teach_vllm", "teach")]
        for tau in TAUS:
            shares = [
                store.soft_targets.probabilities(store.rows(rows), store.head_VD, 64, tau)
                for store in both
            ]
            difference = (shares[0] - shares[1]).abs().max().item()
            print(f"{soft_targets.name} at tau {tau:g}: shares differ by {difference:.2g}")
            # a draw at the edge between two ids may fall on the other
            limit = 1 / soft_targets.draws if soft_targets.name == "sampled" else 1e-5
            assert difference <= limit


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
def test_a_vllm_that_is_killed_goes_on_at_its_shard(by_transformers, tmp_path, monkeypatch):
    root = by_transformers
    monkeypatch.setattr("soaes.data.shards.SHARD_BYTES", 4000)
    for name in ("target", "rows"):
        (tmp_path / name).symlink_to(root / name)
    whole = contents(written(teach.teach_vllm, tmp_path, formats.Hidden()))
    (tmp_path / "teach_vllm-hidden").rename(tmp_path / "whole")
    rows_read = []

    def killed(process, texts):
        rows_read.append(len(texts))
        if len(rows_read) == 11:
            process.process.kill()
        return read_by_vllm(process, texts)

    read_by_vllm = vllm_hidden._read
    monkeypatch.setattr(vllm_hidden, "_read", killed)
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        written(teach.teach_vllm, tmp_path, formats.Hidden())
    monkeypatch.setattr(vllm_hidden, "_read", read_by_vllm)
    assert 0 < len(list((tmp_path / "teach_vllm-hidden" / "soft_targets").iterdir())) < len(whole)
    assert contents(written(teach.teach_vllm, tmp_path, formats.Hidden())) == whole
