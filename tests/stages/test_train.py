"""Laws of training, on stages called as plain functions: no Hydra, no store, no W&B."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from soaes.data import chat, teacher_store, token_store
from soaes.data.settings import PackingSettings
from soaes.model import checkpoint, schedules
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.pipeline.runtime import Execution
from soaes.pipeline.tracking import Tracker
from soaes.stages import prepare, teach, train

OPTIM = {
    "lr": 2e-3,
    "global_batch_size": 4,
    "epochs": 1,
    "max_tokens": None,
    "schedule": partial(schedules.constant, warmup=0.05),
    "betas": [0.9, 0.95],
    "weight_decay": 0.1,
    "grad_clip": 1.0,
    "precision": "32-true",
}
MODULE = partial(CausalLM)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folders of a toy world: documents, tokenizer, rows, a teacher and a student."""
    root = tmp_path_factory.mktemp("toy")
    made = {
        name: root / name
        for name in ("documents", "tokenizer", "general", "qa", "teacher", "student")
    }
    for path in made.values():
        path.mkdir()
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 120, 20, out=made["documents"])
    prepare.tokenizer(made["documents"], 600, out=made["tokenizer"])
    packing = PackingSettings()
    for name in ("general", "qa"):
        prepare.pack(
            made["documents"], made["tokenizer"], [name], None, 128, packing, out=made[name]
        )
    for name, width, seed in (("teacher", 48, 0), ("student", 32, 1)):
        train.pretrain(
            made["tokenizer"],
            made["general"],
            1,
            width,
            4,
            2,
            128,
            MODULE,
            OPTIM,
            seed,
            out=made[name],
        )
    return made


def weights(folder):
    return {name: value.clone() for name, value in checkpoint.load(folder).state_dict().items()}


def distance(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in one)


def sft(prepared, out, **changed):
    out.mkdir()
    train.sft(
        prepared["student"],
        prepared["qa"],
        MODULE,
        {**OPTIM, **changed.pop("optim", {})},
        0,
        out=out,
        **changed,
    )
    return weights(out)


def test_pre_training_lowers_the_perplexity_and_writes_a_model_that_transformers_loads(prepared):
    metrics = json.loads((prepared["student"] / "metrics.json").read_text())
    assert metrics["val/perplexity"] < metrics["val/perplexity_before"] / 2
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(prepared["student"])
    model = AutoModelForCausalLM.from_pretrained(prepared["student"])
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "你好"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    assert model(ids).logits.shape[-1] == len(tokenizer)
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(prepared["student"] / "tokenizer.json"))
    for text in (
        "国务院国资委，1958年。ABC🙂 \n\n龘  don't 3.14%",
        "A. 甲\nB. 乙\n答案： B",
        "<|im_start|>user\n你好<|im_end|>\n",
    ):
        assert tokenizer(text)["input_ids"] == raw.encode(text).ids
        assert tokenizer.decode(raw.encode(text).ids) == text


def test_neither_micro_batch_nor_accumulation_changes_what_is_learnt(prepared, tmp_path):
    whole = sft(prepared, tmp_path / "whole", execution=Execution(micro_batch_size=4))
    parts = sft(prepared, tmp_path / "parts", execution=Execution(micro_batch_size=1))
    assert distance(whole, weights(prepared["student"])) > 1e-3, "nothing was learnt"
    assert distance(whole, parts) < 1e-5


def test_neither_the_attention_nor_checkpointing_changes_what_is_learnt(prepared, tmp_path):
    masked = sft(prepared, tmp_path / "masked")
    inside = sft(prepared, tmp_path / "inside", execution=Execution(attention="documents"))
    again = sft(
        prepared,
        tmp_path / "again",
        execution=Execution(attention="documents", gradient_checkpointing=True),
    )
    assert distance(masked, inside) < 1e-5 and distance(inside, again) < 1e-5
    assert "documents" not in (tmp_path / "inside" / "config.json").read_text(), (
        "a model is not bound to how it was trained"
    )


@pytest.mark.nightly
def test_a_compiled_body_learns_the_same(prepared, tmp_path):
    assert (
        distance(
            sft(prepared, tmp_path / "eager"),
            sft(prepared, tmp_path / "compiled", execution=Execution(compile=True)),
        )
        < 1e-5
    )


def test_training_is_a_function_of_its_seed(prepared, tmp_path):
    assert distance(sft(prepared, tmp_path / "one"), sft(prepared, tmp_path / "again")) == 0


def test_a_token_budget_ends_training_early(prepared, tmp_path):
    sft(prepared, tmp_path / "short", optim={"max_tokens": 2 * 4 * 128})
    assert json.loads((tmp_path / "short" / "metrics.json").read_text())["steps"] == 2


def distilled(prepared, out, alpha):
    signal, out = out / "teacher", out / f"alpha_{alpha}"
    if not signal.exists():
        signal.mkdir(parents=True)
        teach.teach(prepared["teacher"], prepared["qa"], formats.Hidden(), out=signal)
    out.mkdir()
    train.distill(
        prepared["student"],
        prepared["qa"],
        signal,
        alpha,
        2.0,
        partial(DistilledLM),
        OPTIM,
        0,
        out=out,
    )
    return weights(out)


def test_alpha_zero_is_plain_sft_to_the_bit(prepared, tmp_path):
    assert distance(distilled(prepared, tmp_path, 0.0), sft(prepared, tmp_path / "sft")) == 0
    assert distance(distilled(prepared, tmp_path, 1.0), weights(tmp_path / "sft")) > 1e-3
    at_tau_2 = [
        json.loads((tmp_path / f"alpha_{alpha}" / "metrics.json").read_text())["teacher_entropy"]
        for alpha in (0.0, 1.0)
    ]
    assert at_tau_2[0] == at_tau_2[1] > 0  # the teacher's own, whatever is made of it


def test_the_teacher_store_holds_the_teachers_logits_token_for_token(prepared, tmp_path):
    teach.teach(prepared["teacher"], prepared["qa"], formats.Hidden(), out=tmp_path)
    digest = chat.tokenizer_digest(prepared["teacher"])
    store, rows = (
        teacher_store.load(tmp_path, "qa", digest),
        token_store.load(prepared["qa"] / "train"),
    )
    model = checkpoint.load(prepared["teacher"])
    with torch.inference_mode():
        ids, labels, positions = (torch.from_numpy(array[-2:].astype("int64")) for array in rows)
        direct = model(ids, position_ids=positions, use_cache=False).logits
    bears = (labels != token_store.IGNORE) & (positions > 0)
    stored = store.rows(np.arange(len(rows.ids_RT))[-2:])["hidden"] @ store.head_VD.T
    assert torch.allclose(stored, direct[:, :-1][bears[:, 1:]], atol=1e-5)


def assert_same(given, stored):
    assert given is stored is None or (given.dtype == stored.dtype and torch.equal(given, stored))


@pytest.mark.parametrize(
    "soft_targets",
    [formats.Hidden(), formats.TopK(599, [2.0], "float32")],
    ids=lambda soft_targets: soft_targets.name,
)
def test_half_precision_weights_leave_the_teacher_as_it_was_stored(
    prepared, tmp_path, soft_targets
):
    heard = []

    class Listening(DistilledLM):
        def loss_sum(self, batch):
            heard.append(
                (batch["soft_targets"], self.teacher_head_VD, self.model.lm_head.weight.dtype)
            )
            return super().loss_sum(batch)

    for path in (signal := tmp_path / "soft_targets", out := tmp_path / "out"):
        path.mkdir()
    teach.teach(prepared["teacher"], prepared["qa"], soft_targets, out=signal)
    store = teacher_store.load(
        signal, prepared["qa"].name, chat.tokenizer_digest(prepared["student"])
    )
    rows = store.contract["packed_rows"]
    optim, execution = (
        {**OPTIM, "global_batch_size": rows, "precision": "bf16-true"},
        Execution(micro_batch_size=rows // 2, num_workers=1),
    )
    train.distill(
        prepared["student"],
        prepared["qa"],
        signal,
        0.5,
        2.0,
        Listening,
        optim,
        0,
        execution,
        out=out,
    )  # one step of all rows, in order
    assert len(heard) >= 2 and {dtype for *_, dtype in heard} == {torch.bfloat16}
    for name, field in store.rows(np.arange(rows)).items():
        assert_same(torch.cat([said[name] for said, *_ in heard]), field)
    for _, head_VD, _ in heard:
        assert_same(head_VD, store.head_VD)


def test_curves_are_written_to_our_own_file(prepared, tmp_path):
    tracker = Tracker(tmp_path / "curves.jsonl")
    sft(prepared, tmp_path / "sft", tracker=tracker)
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    keys = {key for line in lines for key in line}
    assert keys == {
        "step",
        "train/loss",
        "train/lr",
        "train/grad_norm",
        "train/tokens_per_s",
        "seconds",
        "val/perplexity",
        "val/rouge1",
    }
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]


def test_only_answers_bear_loss(prepared):
    from tokenizers import Tokenizer

    from soaes.data import chat

    tokenizer = Tokenizer.from_file(str(prepared["tokenizer"] / "tokenizer.json"))
    messages = [
        {"role": "user", "content": "谁？"},
        {"role": "assistant", "content": "张三。"},
        {"role": "user", "content": "何时？"},
        {"role": "assistant", "content": "1999年。"},
    ]
    ids, bears = chat.encode(tokenizer, messages)
    said = tokenizer.decode(ids[bears].tolist(), skip_special_tokens=False)
    assert said == "张三。<|im_end|>1999年。<|im_end|>"
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(prepared["tokenizer"]).apply_chat_template(
        messages[:3], add_generation_prompt=True
    )["input_ids"]
    assert chat.prompt(tokenizer, messages[:3]) == template, "what is trained on is what is asked"
