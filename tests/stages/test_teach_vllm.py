"""Laws of the teacher store that vLLM writes.

Rows become documents and come back in row order, and a log-probability is a log-probability.
"""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from soaes.data import chat, teacher_store, token_store
from soaes.decode.backends import vllm_environment, vllm_process
from soaes.model import soft_targets as formats
from soaes.pipeline import sweep
from soaes.stages import teach
from tests.helpers.soft_target_stores import contents, teacher_and_rows
from tests.helpers.toys import toy
from tests.helpers.vllm_stand_in import stand_in

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


def flat(logs_TV, ids, k):
    """Lay out log-probabilities as vLLM does.

    There is nothing for the first token; for each other there is itself, then the k most likely.
    """
    answer = SimpleNamespace(token_ids=[], logprobs=[])
    for logs_V, token in zip(logs_TV, ids[1:]):
        best = logs_V.topk(k)
        answer.token_ids += [token, *best.indices.tolist()]
        answer.logprobs += [logs_V[token].item(), *best.values.tolist()]
    return answer


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_vllms_answer_gives_the_fields_that_the_logits_give(dtype):
    hidden_TD, head_VD, ids = (
        torch.randn(6, 5, generator=torch.manual_seed(0)),
        torch.randn(30, 5),
        [7, 3, 3, 9, 29, 0, 1],
    )
    soft_targets, indices = formats.TopK(8, (1.0,), dtype), [1, 2, 5, 6]
    answer = flat((hidden_TD @ head_VD.T).log_softmax(-1), ids, 8)
    likeliest = [
        vllm_process.likeliest(values, len(ids), indices)
        for values in (answer.token_ids, answer.logprobs)
    ]
    got = teach.topk_fields(
        soft_targets, likeliest[0].astype(np.int32), likeliest[1].astype(np.float32)
    )
    wanted = soft_targets.encode(hidden_TD[[index - 1 for index in indices]], head_VD)
    assert torch.equal(got["ids"], wanted["ids"].long())
    logits = [formats.from_bits(fields["logits"], dtype).float() for fields in (got, wanted)]
    assert torch.allclose(
        *logits, atol=1e-5, rtol={"float32": 1e-5, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    )
    assert torch.allclose(got["tail"], wanted["tail"], atol=1e-5)
    if dtype == "float32":
        assert soft_targets.log_shares(got, 1.0)[:, :-1].numpy() == pytest.approx(
            likeliest[1], abs=1e-5
        ), "log p of a kept id comes back"


def test_a_teacher_that_is_sure_has_a_tail_of_one_epsilon():
    got = teach.topk_fields(
        formats.TopK(2, (1.0,)), np.array([[4, 1]]), np.array([[1e-7, -30.0]], np.float32)
    )
    assert got["tail"].item() == pytest.approx(np.log(2.0**-23))


@pytest.mark.parametrize(
    ("soft_targets", "message"),
    [
        (
            formats.Hidden(),
            "soft_targets=hidden: .*set soft_targets=topk 'soft_targets.taus=.1.', "
            "or teacher_logits=transformers",
        ),
        (formats.Sampled(8, (1.0,)), "soft_targets=sampled"),
        (
            formats.TopK(4, (1.0, 2.0)),
            r"soft_targets.taus=\[1, 2\]: .*temperature 1 alone; set 'soft_targets.taus=.1.', "
            "or teacher_logits=transformers",
        ),
        (
            formats.TopK(4, (1.0,), vocab=60),
            "soft_targets.vocab=60: .*all 64 ids.*soft_targets.vocab=null",
        ),
        (formats.TopK(4, (1.0,)), "`make vllm` installs it, or set SOAES_VLLM_PYTHON"),
    ],
)
def test_what_vllm_does_not_tell_is_refused(tmp_path, monkeypatch, soft_targets, message):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    teacher_and_rows(tmp_path)
    with pytest.raises(ValueError, match=message):
        teach.teach_vllm(tmp_path / "target", tmp_path / "rows", soft_targets, out=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "soft_targets=hidden",
        "soft_targets=full",
        "soft_targets=sampled distill.tau=1",
        "soft_targets=topk soft_targets.taus=[1,2]",
    ],
)
def test_what_vllm_does_not_tell_is_refused_before_anything_is_built(tmp_path, monkeypatch, words):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path))
    for goal in ("teacher_logits", "distill"):
        with pytest.raises(ValueError, match="vLLM .* alone; .*or teacher_logits=transformers"):
            sweep.jobs([f"goal={goal}", "teacher_logits=vllm", *words.split()])


def test_one_word_chooses_vllm_and_brings_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path))
    (row,), (plain,) = (
        sweep.jobs(["goal=distill", "teacher_logits=vllm", "soft_targets.k=64"]),
        sweep.jobs(["goal=distill"]),
    )
    by_vllm, by_default = (job.recipe.arguments["teacher_logits"].written for job in (row, plain))
    assert row.recipe.arguments["tau"] == 1 and (
        by_vllm["soft_targets"]["k"],
        by_vllm["soft_targets"]["taus"],
    ) == (64, [1])
    assert (
        by_vllm["_target_"] == "soaes.stages.teach.teach_vllm"
        and by_default["_target_"] == "soaes.stages.teach.teach"
    )
    assert (by_vllm["model"], by_vllm["rows"]) == (by_default["model"], by_default["rows"])


# speaks the child's protocol for a teacher that is uniform over 64 ids; exits at the row ENDS_AT
CHILD = """#!{python}
import base64, json, math, os, struct, sys
k = json.loads(sys.stdin.readline())["sampling"]["prompt_logprobs"]
print(json.dumps(dict(ready=True)), flush=True)
for asked, line in enumerate(sys.stdin):
    if asked == int(os.environ.get("ENDS_AT", -1)):
        sys.exit(3)
    request = json.loads(line)
    texts = zip(request["documents"], request["wanted"])
    tokens = [(ids, at) for ids, places in texts for at in places]
    ids = b"".join(struct.pack("i", ids[at - 1] % 60 + i) for ids, at in tokens for i in range(k))
    logs = struct.pack("f", -math.log(64)) * (k * len(tokens))
    encoded = dict(ids=base64.b64encode(ids).decode(), logs=base64.b64encode(logs).decode())
    print(json.dumps(encoded), flush=True)
"""


def test_a_reader_that_ended_goes_on_at_its_shard(tmp_path, monkeypatch):
    teacher_and_rows(tmp_path)
    stand_in(monkeypatch, tmp_path / "vllm", CHILD.format(python=sys.executable))
    monkeypatch.setattr("soaes.data.shards.SHARD_BYTES", 300)
    store, out, soft_targets = tmp_path / "store", tmp_path / "out", formats.TopK(4, (1.0,))
    for folder in (store, out):
        folder.mkdir()
    teach.teach_vllm(tmp_path / "target", tmp_path / "rows", soft_targets, out=store)
    monkeypatch.setenv("ENDS_AT", "11")
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        teach.teach_vllm(tmp_path / "target", tmp_path / "rows", soft_targets, out=out)
    teach.teach_vllm(
        tmp_path / "target", tmp_path / "rows", soft_targets, out=out
    )  # asks for fewer rows than that, or it would end again
    assert contents(out) == contents(store)
    read = teacher_store.load(store, "rows", chat.tokenizer_digest(tmp_path / "target"))
    train = token_store.load(
        tmp_path / "rows" / "train", chat.tokenizer_digest(tmp_path / "target")
    )
    before = np.roll(train.ids_RT, 1, axis=1)[
        (train.labels_RT != token_store.IGNORE) & (train.positions_RT > 0)
    ]
    fields = read.rows(np.arange(20))
    assert fields["ids"][:, 0].tolist() == (before % 60).tolist(), (
        "a token's soft targets are those that the token before it was asked for"
    )
    assert read.fidelity_at(1.0) == {} and read.check_supports(1.0, "forward", 64) is None
    assert fields["tail"].exp() == pytest.approx(np.full((len(before), 1), 60 / 64))


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
def test_vllm_writes_the_store_that_transformers_writes(tmp_path):
    teacher_and_rows(tmp_path)
    toy(1, hidden_size=64, num_attention_heads=2, num_key_value_heads=1).save_pretrained(
        tmp_path / "target"
    )  # vLLM reads heads from 32 on
    soft_targets, stores = formats.TopK(8, (1.0,), "float32"), []
    for stage in (teach.teach, teach.teach_vllm):
        out = tmp_path / stage.__name__
        out.mkdir()
        stage(tmp_path / "target", tmp_path / "rows", soft_targets, out=out)
        stores.append(
            teacher_store.load(out, "rows", chat.tokenizer_digest(tmp_path / "target")).rows(
                np.arange(20)
            )
        )
    shares = [soft_targets.log_shares(fields, 1.0) for fields in stores]
    assert torch.allclose(*shares, atol=1e-4)
    apart = shares[0][:, :-1].diff(dim=1).abs() > 1e-4
    sure = torch.cat(
        [apart[:, :1], apart[:, 1:] & apart[:, :-1]], dim=1
    )  # of the last nothing is known: the next is not kept
    assert (
        torch.equal(*(fields["ids"].long()[:, :-1][sure] for fields in stores))
        and sure.float().mean() > 0.9
    )
