"""The training side of the GPU report: losses, packed rows, the rate of a step, memory of the loss.

# B rows of T tokens, N loss tokens, V vocabulary, D width of the teacher
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from benchmarks import train_memory
from benchmarks.gpu_setting import GIGA, VOCABULARY, Row, Setting
from benchmarks.rounds import row
from soaes.bill.formulas import training_flops
from soaes.data.settings import PackingSettings
from soaes.model import attention, checkpoint, self_check
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.settings import ConstantSchedule, OptimizerSettings, ValidationSettings
from soaes.pipeline.runtime import Execution
from soaes.pipeline.tracking import Tracker
from soaes.stages import prepare, teach, train

# The largest difference of a step's loss, in nats, between the devices. Rounding alone differs in
# float32; between bfloat16 and float32 the loss of one process moves by 1e-3.
LOSS_LIMITS = {"32-true": 1e-4, "bf16-mixed": 5e-2}
STEPS = 12
ALPHA, TAU = 0.5, 2.0

FLASH = "flash_attention_2"
SIZES = ("0.5B", "1.5B")
DOCUMENTS = 8  # of a row of 8,192 tokens
CONTEXT = 8192
TEACHER_WIDTH = 3584  # of Qwen2.5-7B
UTILISATION = 0.45  # that is asked of a step
# The teacher's logits are a product in float32, which is exact and slow; in TF32 it has ten bits.
KINDS = {"CE": "highest", "KD": "highest", "KD in TF32": "high"}

MEMORY_RATIO = 10.0  # that is asked of the loss all at once over ours
STUDENT_WIDTH = 1536  # of Qwen2.5-1.5B


# ---------------------------------------------------------------- losses


def losses(setting: Setting) -> Iterator[Row]:
    """Train by the stages on the CPU and on the device, and compare every step's loss."""
    with tempfile.TemporaryDirectory() as root:
        toy = _toy(Path(root))
        for kind in ("sft",) if setting.dry else ("sft", "distill"):
            on_cpu = _curve(toy, kind, "cpu", "sdpa", "32-true")
            for name, precision in _loss_contenders(setting):
                on_device = _curve(toy, kind, setting.device, name, precision)
                pairs = zip(on_cpu, on_device, strict=True)
                largest = max(abs(left - right) for left, right in pairs)
                label = f"loss of {kind}, largest difference from the CPU's in {len(on_cpu)} steps"
                limit = LOSS_LIMITS[precision]
                yield row(f"{label}, {name}, {precision}", "nats", [largest], limit, "lower")


def _loss_contenders(setting: Setting) -> list[tuple[str, str]]:
    """Attention and precision of each training that is compared with the CPU's."""
    if setting.dry:
        return [("documents", "32-true")]
    contenders = [("sdpa", "32-true"), ("documents", "32-true"), ("documents", "bf16-mixed")]
    if is_flash_attn_2_available():
        contenders.append((FLASH, "bf16-mixed"))
    return contenders


def _toy(root: Path) -> dict[str, Path]:
    """Write a small world, its tokenizer and rows, a teacher, a student and soft targets."""
    names = ("documents", "tokenizer", "rows", "teacher", "student", "soft_targets")
    folders = {name: root / name for name in names}
    for folder in folders.values():
        folder.mkdir()
    sizes = (12, 4, 8, 4, 4, 2, 0, 40, 0, 100, 20)  # of the world, from entities to exam questions
    prepare.world(0, *sizes, out=folders["documents"])
    prepare.tokenizer(folders["documents"], 600, out=folders["tokenizer"])
    pack = partial(prepare.pack, folders["documents"], folders["tokenizer"])
    pack(["qa"], None, 128, PackingSettings(), out=folders["rows"])
    for seed, name in enumerate(("teacher", "student")):
        model = checkpoint.create(folders["tokenizer"], 2, 64, 2, 1, 128, seed)
        checkpoint.save(model, folders[name], folders["tokenizer"])
    soft_targets = formats.Hidden()
    teach.teach(folders["teacher"], folders["rows"], soft_targets, out=folders["soft_targets"])
    return folders


def _curve(
    toy: dict[str, Path], kind: str, device: str, attention_name: str, precision: str
) -> list[float]:
    """Train the student on a device; the loss of every step."""
    out = Path(tempfile.mkdtemp(dir=toy["student"].parent))
    arguments = {
        "optim": OptimizerSettings(
            lr=2e-3,
            global_batch_size=4,
            schedule=ConstantSchedule(warmup=0),
            max_tokens=STEPS * 4 * 128,
            precision=precision,
        ),
        "seed": 0,
        "validation": ValidationSettings(per_run=1, rows=2, max_new_tokens=1),
        "execution": Execution(device=device, micro_batch_size=2, attention=attention_name),
        "tracker": Tracker(out / "curves.jsonl"),
        "out": out,
    }
    if kind == "sft":
        train.sft(toy["student"], toy["rows"], CausalLM, **arguments)
    else:
        folders = (toy["student"], toy["rows"], toy["soft_targets"])
        train.distill(*folders, ALPHA, TAU, DistilledLM, **arguments)
    points = [json.loads(line) for line in (out / "curves.jsonl").read_text().splitlines()]
    return [point["train/loss"] for point in points if "train/loss" in point]


# ---------------------------------------------------------------- packed rows


def packed(setting: Setting) -> Iterator[Row]:
    """Compare documents of packed rows with each of them alone, by attention."""
    lengths = [20, 9, 12, 7] if setting.dry else [1024, 512, 384, 128]
    names = {"documents": torch.float32, "sdpa": torch.float32}
    if setting.device == "cuda" and is_flash_attn_2_available():
        names[FLASH] = torch.bfloat16
    for name, dtype in names.items():
        model = setting.model("0.5B", dtype, num_hidden_layers=2).eval()
        attention.set_attention(model, name)
        batch = setting.packed_batch(lengths, rows=2)
        error = packed_error(model, batch["ids_BT"], batch["positions_BT"], lengths)
        is_half = dtype == torch.bfloat16
        limit = self_check.LIMIT_HALF if is_half else self_check.LIMIT_FLOAT32
        label = f"documents in packed rows - alone, largest relative error, {name}"
        kind = str(dtype).removeprefix("torch.")
        yield row(f"{label}, {kind}", "ratio", [error], limit, "lower")


@torch.no_grad()
def packed_error(
    model: Any, ids_BT: torch.Tensor, positions_BT: torch.Tensor, lengths: list[int]
) -> float:
    """Return the largest relative error of a token's final hidden state in a packed row.

    Args:
        model: The model, with the attention that is examined.
        ids_BT: Packed rows.
        positions_BT: Their positions.
        lengths: Tokens of each row's documents.
    """
    together_BTD = attention.final_hidden(model, ids_BT, positions_BT)
    largest = 0.0
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        of_document = slice(start, stop)
        positions = torch.arange(length, device=ids_BT.device)[None]
        for ids_T, together_TD in zip(ids_BT[:, of_document], together_BTD[:, of_document]):
            alone_TD = attention.final_hidden(model, ids_T[None], positions)[0].float()
            error_T = (together_TD.float() - alone_TD).norm(dim=-1) / alone_TD.norm(dim=-1)
            largest = max(largest, float(error_T.max()))
    return largest


# ---------------------------------------------------------------- the rate of a step


def steps(setting: Setting) -> Iterator[Row]:
    """Time steps of CE and KD over a packed row: the share of the device's peak."""
    peak = setting.peak_flops()
    names = ["documents"] if setting.dry else ["documents", "sdpa"]
    if setting.device == "cuda" and is_flash_attn_2_available():
        names.append(FLASH)
    for size in SIZES[:1] if setting.dry else SIZES:
        for kind in KINDS:
            for name in names:
                yield from _timed_step(setting, size, kind, name, peak)
    torch.set_float32_matmul_precision(KINDS["CE"])


def _timed_step(
    setting: Setting, size: str, kind: str, attention_name: str, peak: float
) -> Iterator[Row]:
    """Time one kind of step; where activations do not fit, with gradient checkpointing."""
    for checkpointing in (False, True):
        setting.free_memory()
        label = f"{kind} step, {size}, {attention_name}"
        if checkpointing:
            label += ", gradient checkpointing"
        try:
            yield from _step_rows(setting, size, kind, attention_name, checkpointing, peak, label)
            return
        except torch.OutOfMemoryError:
            if checkpointing:
                raise


def _step_rows(
    setting: Setting,
    size: str,
    kind: str,
    attention_name: str,
    checkpointing: bool,
    peak: float,
    label: str,
) -> Iterator[Row]:
    """Time a step: its share of the peak, tokens a second, peak memory."""
    context = 64 if setting.dry else CONTEXT
    document = context // DOCUMENTS
    model = setting.model(size, torch.float32).train()
    attention.set_attention(model, attention_name)
    if checkpointing:
        model.gradient_checkpointing_enable()
    batch = setting.packed_batch([document] * DOCUMENTS)
    lit: CausalLM = CausalLM(**_module_settings(model))
    # only what the step needs is counted: nothing that is computed anew, no masked attention
    work = training_flops(setting.shape(size), document) * context
    torch.set_float32_matmul_precision(KINDS[kind])
    if kind != "CE":
        lit, batch = _distilled(setting, model, batch)
        head_VD = lit.teacher_head_VD
        work += 2 * head_VD.numel() * batch["step_tokens"]  # the teacher's logits
    seconds = setting.repeat(stepper(lit, batch, setting.device))
    shares = [work / each / peak for each in seconds]
    yield row(f"{label}, share of peak", "ratio", shares, setting.goal(UTILISATION), limit=1.0)
    yield row(label, "tokens/s", [context / each for each in seconds])
    if setting.device == "cuda":
        used = torch.cuda.max_memory_allocated() / GIGA
        yield row(f"{label}, peak memory", "GB", [used], better="lower")


def stepper(lit: CausalLM, batch: dict[str, Any], device: str) -> Callable[[], None]:
    """Return a callable that makes one optimizer step in bf16-mixed, as the trainer does."""
    optimizer = lit.configure_optimizers()["optimizer"]

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = lit.loss_sum(batch) / batch["step_tokens"]
        loss.backward()
        float(torch.nn.utils.clip_grad_norm_(lit.parameters(), lit.grad_clip))
        optimizer.step()
        optimizer.zero_grad()

    return step


def _module_settings(model: Any) -> dict[str, Any]:
    return {
        "model": model,
        "lr": 1e-5,
        "schedule": ConstantSchedule(warmup=0),
        "betas": (0.9, 0.95),
        "weight_decay": 0.1,
        "steps": 1,
        "grad_clip": 1.0,
    }


def _distilled(
    setting: Setting, model: Any, batch: dict[str, Any]
) -> tuple[DistilledLM, dict[str, Any]]:
    """A module whose batch brings its soft targets: of a store it needs format and head."""
    width = 64 if setting.dry else TEACHER_WIDTH
    soft_targets = formats.Hidden()
    head_VD = torch.randn(model.config.vocab_size, width, device=setting.device) * width**-0.5
    hidden_ND = torch.randn(batch["step_tokens"], width, device=setting.device)
    store = SimpleNamespace(
        soft_targets=soft_targets,
        head_VD=head_VD,
        check_supports=lambda *args: None,
        fidelity_at=lambda tau: {},
    )
    settings = _module_settings(model)
    lit = DistilledLM(**settings, teacher_store=store, alpha=ALPHA, tau=TAU)
    return lit, batch | {"soft_targets": soft_targets.encode(hidden_ND, head_VD)}


# ---------------------------------------------------------------- memory of the loss


def memory(setting: Setting) -> Iterator[Row]:
    """Compare the peak memory of the KD loss, all at once and ours."""
    if setting.dry:
        return train_memory.results(1, tokens=512, vocabulary=2000, target=None)
    return train_memory.results(
        1,
        vocabulary=VOCABULARY,
        width=STUDENT_WIDTH,
        fewer=(1024, 2048),
        device=setting.device,
        target=MEMORY_RATIO,
    )
