"""Laws of training, on stages called as plain functions: no Hydra, no store, no W&B."""

import json
import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment

from soaes.data import chat, teacher_store, token_store
from soaes.data.settings import PackingSettings
from soaes.model import checkpoint, settings
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.parallel import Parallel
from soaes.model.settings import (
    PRECISIONS,
    ConstantSchedule,
    OptimizerSettings,
    ProbeSettings,
    Schedule,
    ValidationSettings,
)
from soaes.pipeline.runtime import Execution
from soaes.pipeline.tracking import Tracker
from soaes.stages import prepare, teach, train

OPTIM = OptimizerSettings(
    lr=2e-3,
    global_batch_size=4,
    schedule=ConstantSchedule(warmup=0.05),
    precision="32-true",
)
MODULE = partial(CausalLM)
# Of two models that learn the same: a twentieth of a step, which AdamW may make of the rounding of
# a gradient that is nearly zero. What differs otherwise differs by steps.
SAME = 1e-4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folders of a toy world: documents, tokenizer, rows, a teacher and a student."""
    root = tmp_path_factory.mktemp("toy")
    names = ("documents", "tokenizer", "general", "qa", "teacher", "student")
    folders = {name: root / name for name in names}
    for path in folders.values():
        path.mkdir()
    documents, tokenizer = folders["documents"], folders["tokenizer"]
    prepare.world(0, 12, 4, 8, 4, 4, 2, 0, 40, 0, 120, 20, out=documents)
    prepare.tokenizer(documents, 600, out=tokenizer)
    for name in ("general", "qa"):
        out = folders[name]
        prepare.pack(documents, tokenizer, [name], None, 128, PackingSettings(), out=out)
    for name, width, seed in (("teacher", 48, 0), ("student", 32, 1)):
        shape = {"layers": 1, "width": width, "heads": 4, "kv_heads": 2, "context": 128}
        rows, out = folders["general"], folders[name]
        train.pretrain(tokenizer, rows, **shape, module=MODULE, optim=OPTIM, seed=seed, out=out)
    return folders


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def weights(folder):
    return {name: value.clone() for name, value in checkpoint.load(folder).state_dict().items()}


def distance(weights, others):
    """The largest difference of two models in any weight."""
    return max((weights[name] - others[name]).abs().max().item() for name in weights)


def sft(prepared, out, optim=OPTIM, **changed):
    """Fine-tune the student into `out`, and return its weights."""
    out.mkdir()
    train.sft(prepared["student"], prepared["qa"], MODULE, optim, 0, out=out, **changed)
    return weights(out)


def test_pre_training_lowers_the_perplexity_and_writes_a_model_that_transformers_loads(prepared):
    student = metrics(prepared["student"])
    assert student["val/perplexity"] < student["val/perplexity_before"] / 2
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
    assert distance(whole, parts) < SAME


def test_neither_the_attention_nor_checkpointing_changes_what_is_learnt(prepared, tmp_path):
    masked = sft(prepared, tmp_path / "masked")
    inside = sft(prepared, tmp_path / "inside", execution=Execution(attention="documents"))
    again = sft(
        prepared,
        tmp_path / "again",
        execution=Execution(attention="documents", gradient_checkpointing=True),
    )
    assert distance(masked, inside) < SAME and distance(inside, again) < SAME
    assert "documents" not in (tmp_path / "inside" / "config.json").read_text(), (
        "a model is not bound to how it was trained"
    )


@pytest.mark.nightly
def test_a_compiled_body_learns_the_same(prepared, tmp_path):
    eager = sft(prepared, tmp_path / "eager")
    compiled = sft(prepared, tmp_path / "compiled", execution=Execution(compile=True))
    assert distance(eager, compiled) < SAME


def test_training_is_a_function_of_its_seed(prepared, tmp_path):
    assert distance(sft(prepared, tmp_path / "one"), sft(prepared, tmp_path / "again")) == 0


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "16-mixed"])
def test_a_small_rate_moves_the_weights_by_its_steps_in_every_precision(
    prepared, tmp_path, precision
):
    """Rounding to fewer bits would leave a weight where it is, or move it much further."""
    optim = replace(OPTIM, lr=1e-5, precision=precision)
    after = sft(prepared, tmp_path / "out", optim)
    furthest = 2 * optim.lr * metrics(tmp_path / "out")["steps"]  # a step is about the rate
    before = weights(prepared["student"])
    changes = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    assert ((changes > 0) & (changes < furthest)).float().mean() > 0.9


def test_a_last_update_that_ruins_the_model_is_not_kept(prepared, tmp_path):
    class LastStepAlone(Schedule):
        def __call__(self, step, steps):
            return float(step == steps - 1)

    optim = replace(OPTIM, lr=1e30, schedule=LastStepAlone())
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"loss is nan after step \d+; .* lower optim.<phase>.lr"):
        sft(prepared, out, optim)
    assert not out.joinpath("metrics.json").exists() and not list(out.glob("*.safetensors"))


def test_ranks_that_nobody_started_are_refused_before_they_are_waited_for(prepared, tmp_path):
    with pytest.raises(ValueError, match="devices=2: .* started by torchrun, here are 1"):
        sft(prepared, tmp_path / "out", execution=Execution(devices=2))


def test_a_token_budget_ends_training_early(prepared, tmp_path):
    sft(prepared, tmp_path / "short", optim=replace(OPTIM, max_tokens=2 * 4 * 128))
    assert metrics(tmp_path / "short")["steps"] == 2


def test_validation_is_as_often_and_on_as_many_rows_as_asked_for(prepared, tmp_path):
    curves = {}
    for name, validation in (
        ("default", ValidationSettings()),
        ("often", ValidationSettings(per_run=7)),
        ("little", ValidationSettings(rows=1)),
    ):
        tracker = Tracker(tmp_path / f"{name}.jsonl")
        sft(prepared, tmp_path / name, tracker=tracker, validation=validation)
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        points = [json.loads(line) for line in lines]
        curves[name] = {
            point["step"]: point["val/perplexity"] for point in points if "val/perplexity" in point
        }
        steps = metrics(tmp_path / name)["steps"]
        every = math.ceil(steps / validation.per_run)
        assert list(curves[name]) == [*range(0, steps, every), steps]
    assert len(curves["often"]) > len(curves["default"])
    assert curves["often"][steps] == curves["default"][steps] != curves["little"][steps]


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        (OPTIM, {"lr": 0}, "lr=0: must be positive"),
        (OPTIM, {"global_batch_size": 0}, "global_batch_size=0: must be a whole number"),
        (OPTIM, {"epochs": float("nan")}, "epochs=nan: must be positive"),
        (OPTIM, {"max_tokens": 1.5}, "max_tokens=1.5: must be a whole number"),
        (OPTIM, {"betas": [0.9]}, r"betas=\[0.9\]: must be two numbers"),
        (OPTIM, {"betas": [0.9, 1.0]}, "betas=1.0: must lie in"),
        (OPTIM, {"weight_decay": -1}, "weight_decay=-1: must be a number of at least 0"),
        (OPTIM, {"grad_clip": 0}, "grad_clip=0: must be positive"),
        (OPTIM, {"precision": "bf16"}, "precision=bf16: must be one of"),
        (OPTIM, {"precision": "bf16-true"}, "weights stay float32: bf16-mixed, not bf16-true"),
        (ValidationSettings(), {"per_run": 0}, "per_run=0: must be a whole number"),
        (ValidationSettings(), {"rows": 0}, "rows=0: must be a whole number"),
        (ValidationSettings(), {"max_new_tokens": 0}, "max_new_tokens=0: must be a whole"),
        (ProbeSettings(), {"taus": []}, "taus=.*as in .1, 2, 3, 5"),
        (ProbeSettings(), {"taus": [0]}, "taus=0: must be positive"),
        (ProbeSettings(), {"student_temperature": 0}, "student_temperature=0: must be"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_out_of_range_are_refused(settings, changed, message):
    with pytest.raises(ValueError, match=message):
        replace(settings, **changed)


def test_the_initial_model_has_the_shape_and_the_scale_asked_for(prepared):
    shape = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "context": 64, "seed": 0}
    plain = checkpoint.create(prepared["tokenizer"], **shape)
    assert plain.config.intermediate_size == 3 * 32
    assert plain.config.max_position_embeddings == 4 * 64
    assert plain.model.embed_tokens.weight.std().item() == pytest.approx(1.0, rel=0.05)
    assert plain.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    changes = {"mlp_ratio": 2, "position_factor": 8, "embedding_std": 0.5, "head_std": 0.1}
    changed = checkpoint.create(prepared["tokenizer"], **shape, **changes)
    assert changed.config.intermediate_size == 2 * 32
    assert changed.config.max_position_embeddings == 8 * 64
    assert changed.model.embed_tokens.weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert changed.lm_head.weight.std().item() == pytest.approx(0.1, rel=0.05)


def distilled(prepared, root, alpha):
    """Distill the teacher into the student with weight alpha, and return its weights."""
    soft_targets, out = root / "teacher", root / f"alpha_{alpha}"
    if not soft_targets.exists():
        soft_targets.mkdir(parents=True)
        teach.teach(prepared["teacher"], prepared["qa"], formats.Hidden(), out=soft_targets)
    out.mkdir()
    student, rows, module = prepared["student"], prepared["qa"], partial(DistilledLM)
    train.distill(student, rows, soft_targets, alpha, 2.0, module, OPTIM, 0, out=out)
    return weights(out)


def test_alpha_zero_is_plain_sft_to_the_bit(prepared, tmp_path):
    assert distance(distilled(prepared, tmp_path, 0.0), sft(prepared, tmp_path / "sft")) == 0
    assert distance(distilled(prepared, tmp_path, 1.0), weights(tmp_path / "sft")) > 1e-3
    entropies = [metrics(tmp_path / f"alpha_{alpha}")["teacher_entropy"] for alpha in (0.0, 1.0)]
    assert entropies[0] == entropies[1] > 0  # the teacher's own, whatever is made of it


def test_the_teacher_store_holds_the_teachers_logits_token_for_token(prepared, tmp_path):
    teach.teach(prepared["teacher"], prepared["qa"], formats.Hidden(), out=tmp_path)
    digest = chat.tokenizer_digest(prepared["teacher"])
    store, rows = (
        teacher_store.load(tmp_path, "qa", digest),
        token_store.load(prepared["qa"] / "train", digest),
    )
    model = checkpoint.load(prepared["teacher"])
    with torch.inference_mode():
        ids, labels, positions = (torch.from_numpy(array[-2:].astype("int64")) for array in rows)
        direct = model(ids, position_ids=positions, use_cache=False).logits
    bears = (labels != token_store.IGNORE) & (positions > 0)
    stored = store.rows(np.arange(len(rows.ids_RT))[-2:])["hidden"] @ store.head_VD.T
    assert torch.allclose(stored, direct[:, :-1][bears[:, 1:]], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "dtype", "used"),
    [
        ("flash_attention_2", torch.float32, "sdpa"),
        ("flash_attention_2", torch.bfloat16, "flash_attention_2"),
        ("documents", torch.float32, "documents"),
    ],
)
def test_a_teacher_in_float32_is_not_asked_for_flash_attention(name, dtype, used):
    assert teach._attention(Execution(attention=name), dtype) == used


def assert_same(given, stored):
    assert given is stored is None or (given.dtype == stored.dtype and torch.equal(given, stored))


@pytest.mark.parametrize(
    "soft_targets",
    [formats.Hidden(), formats.TopK(599, [2.0], "float32")],
    ids=lambda soft_targets: soft_targets.name,
)
def test_half_precision_weights_leave_the_teacher_as_it_was_stored(
    prepared, tmp_path, monkeypatch, soft_targets
):
    # refused by its name; under DeepSpeed bf16-mixed casts batches, and the weights' copies, alike
    monkeypatch.setattr(settings, "PRECISIONS", ("bf16-true",))
    micro_batches = []

    class Listening(DistilledLM):
        def loss_sum(self, batch):
            micro_batches.append(
                (batch["soft_targets"], self.teacher_head_VD, self.model.lm_head.weight.dtype)
            )
            return super().loss_sum(batch)

    for path in (folder := tmp_path / "soft_targets", out := tmp_path / "out"):
        path.mkdir()
    teach.teach(prepared["teacher"], prepared["qa"], soft_targets, out=folder)
    store = teacher_store.load(
        folder, prepared["qa"].name, chat.tokenizer_digest(prepared["student"])
    )
    rows = store.contract["packed_rows"]
    optim = replace(OPTIM, global_batch_size=rows, precision="bf16-true")
    execution = Execution(micro_batch_size=rows // 2, num_workers=1)
    train.distill(
        prepared["student"],
        prepared["qa"],
        folder,
        0.5,
        2.0,
        Listening,
        optim,
        0,
        execution=execution,
        out=out,
    )  # one step of all rows, in order
    assert len(micro_batches) >= 2 and {dtype for *_, dtype in micro_batches} == {torch.bfloat16}
    for name, field in store.rows(np.arange(rows)).items():
        assert_same(torch.cat([fields[name] for fields, *_ in micro_batches]), field)
    for _, head_VD, _ in micro_batches:
        assert_same(head_VD, store.head_VD)


def test_curves_are_written_to_our_own_file(prepared, tmp_path):
    tracker = Tracker(tmp_path / "curves.jsonl")
    optim = replace(OPTIM, schedule=ConstantSchedule(warmup=0.5))
    sft(prepared, tmp_path / "sft", optim, tracker=tracker)
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
    steps = metrics(tmp_path / "sft")["steps"]
    rates = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    for step, rate in rates.items():  # of the update that the step made
        assert rate == pytest.approx(OPTIM.lr * optim.schedule(step - 1, steps), rel=1e-12)
    assert len(set(rates.values())) > 2


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
    ids, bears_loss = chat.encode(tokenizer, messages)
    text = tokenizer.decode(ids[bears_loss].tolist(), skip_special_tokens=False)
    assert text == "张三。<|im_end|>1999年。<|im_end|>"
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(prepared["tokenizer"]).apply_chat_template(
        messages[:3], add_generation_prompt=True
    )["input_ids"]
    assert chat.prompt(tokenizer, messages[:3]) == template, "what is trained on is what is asked"


@pytest.mark.parametrize(
    ("how", "accelerator", "devices"),
    [
        ({}, "cpu", 1),
        ({"device": "cuda"}, "gpu", 1),
        ({"device": "cuda:3"}, "gpu", [3]),
        ({"device": "cuda", "devices": 8, "nodes": 2, "strategy": "ddp"}, "gpu", 4),
    ],
    ids=["cpu", "one", "one-by-number", "several"],
)
def test_lightning_is_told_the_devices(monkeypatch, how, accelerator, devices):
    """One process stands alone whatever SLURM says of the job that it is in."""
    told = {}
    monkeypatch.setattr(train.pl, "Trainer", lambda **given: told.update(given))
    data = SimpleNamespace(steps=[[0]], accumulate=1)
    parallel = Parallel(Execution(**how), "32-true")
    train._trainer(data, OPTIM, ValidationSettings(), parallel, [])
    assert (told["accelerator"], told["devices"]) == (accelerator, devices)
    assert told["inference_mode"] is False, "what it gathers first has to be trained"
    (environment,) = told["plugins"]
    assert isinstance(environment, LightningEnvironment)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")  # as torchrun starts ranks
    train._trainer(data, OPTIM, ValidationSettings(), parallel, [])
    assert told["plugins"] is None
