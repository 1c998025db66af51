"""Store the soft targets of a teacher for every token that a student will learn from.

The path of the data: packed rows (data.token_store) -> the teacher's final hidden states, row by
row -> what a format keeps of each token (model.soft_targets) -> shards (data.teacher_store).
`teach` runs the teacher in one process of transformers, `teach_vllm` over several devices in vLLM.
The student is trained elsewhere.

# N loss tokens, T tokens of a row, D the teacher's width, V its vocabulary, K kept ids
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from soaes.data import teacher_store, token_store
from soaes.data.chat import tokenizer_digest
from soaes.decode.backends import vllm_environment, vllm_prompts
from soaes.metrics.schema import write_metrics
from soaes.model import attention, checkpoint, self_check, train_state
from soaes.model import soft_targets as formats
from soaes.model.fidelity import Fidelity, measure_fidelity
from soaes.model.output_head import OutputHead
from soaes.model.settings import ProbeSettings, SoftTargets, check_vllm_supports
from soaes.model.soft_targets import TopK, bits
from soaes.pipeline.runtime import Execution
from soaes.pipeline.validation import DTYPES, check_one_of

IN_METRICS = ("bytes_per_token", "tokens", "packed_rows", "fidelity")


def teach(
    model: Path,
    rows: Path,
    soft_targets: SoftTargets,
    execution: Execution = Execution(),
    seed: int = 0,
    probe: ProbeSettings = ProbeSettings(),
    *,
    out: Path,
) -> None:
    """Store the soft targets of a teacher over the training rows.

    A row's soft targets are a function of teacher, row and (seed, row index), and a killed writer
    resumes at the first shard that is not whole: the store is the same to the byte. metrics.json
    has its size and how near the format comes to the exact loss.

    Args:
        model: folder of the teacher.
        rows: folder of packed rows.
        soft_targets: the format's settings (conf/soft_targets).
        execution: device of the teacher.
        seed: of what a format draws.
        probe: the sample on which the format's loss of information is measured.
        out: folder for the store.

    Raises:
        ValueError: if the rows are of another tokenizer, the teacher's logits are not those of its
            own forward pass, or the format cannot hold its head.
    """
    device = execution.device
    train = token_store.load(rows / "train", tokenizer_digest(model))
    teacher = checkpoint.load(model).to(device).eval()
    attention.set_attention(teacher, execution.attention)
    _check_head(teacher, soft_targets)
    self_check.check(teacher, partial(_packed_logits, teacher), train.ids_RT.shape[1], 1)
    encoder = formats.from_settings(soft_targets)
    contract = teacher_store.write(
        out,
        encoder,
        _head(teacher).weight_VD,
        train.loss_tokens_R,
        partial(_fields, teacher, train, encoder, device, seed),
        partial(_fidelity, teacher, train, encoder, device, seed, probe),
        **_provenance(model, rows, train, seed),
    )
    _write_metrics(out, contract)


def _head(teacher: PreTrainedModel) -> OutputHead:
    return OutputHead.of(teacher).detached()


def _check_head(teacher: PreTrainedModel, soft_targets: SoftTargets) -> None:
    """Check that a format of hidden states has a teacher whose logits are a product with them."""
    extras = _head(teacher).extras
    if soft_targets.name == "hidden" and extras:
        raise ValueError(
            f"soft_targets=hidden stores hidden states and one matrix, and the output of "
            f"{teacher.config.model_type} also has {' and '.join(extras)}; "
            "set soft_targets=topk, sampled or full"
        )


@torch.no_grad()
def _packed_logits(
    teacher: PreTrainedModel, ids_BT: torch.Tensor, positions_BT: torch.Tensor
) -> torch.Tensor:
    """Compute the logits of packed rows as the store does."""
    hidden_BTD = attention.final_hidden(teacher, ids_BT, positions_BT)
    logits_NV = formats.logits_of(hidden_BTD.flatten(0, 1), _head(teacher))
    return logits_NV.view(*ids_BT.shape, -1)


def _provenance(
    teacher: Path, rows: Path, train: token_store.Rows, seed: int
) -> dict[str, str | int]:
    """Return what a store is a function of, beside its format.

    Shards written under other provenance are not resumed.
    """
    return {
        "teacher": teacher.name,
        "tokenizer": tokenizer_digest(teacher),
        "rows": rows.name,
        "context": train.ids_RT.shape[1],
        "seed": seed,
        "code": train_state.code_digest(),
    }


def _write_metrics(out: Path, contract: dict[str, Any]) -> None:
    write_metrics(out, {name: contract[name] for name in IN_METRICS})


def _fields(
    teacher: PreTrainedModel,
    train: token_store.Rows,
    soft_targets: Any,
    device: str,
    seed: int,
    rows: range,
) -> Iterator[teacher_store.Fields]:
    """Encode the soft targets of each row."""
    head = _head(teacher)
    for row in rows:
        hidden_ND = _hidden(teacher, train, row, device)
        yield soft_targets.encode(hidden_ND, head, _generator(seed, row, device))


@torch.no_grad()
def _hidden(
    teacher: PreTrainedModel, train: token_store.Rows, row: int, device: str
) -> torch.Tensor:
    """Compute hidden_ND: final hidden states where the next token bears loss.

    They are those of `CausalLM.loss_positions`. One row at a time: the last bits of a
    state depend on what is computed beside it, and a row of a few hundred tokens is as fast alone.
    """
    arrays = [array[row : row + 1].astype(np.int64) for array in train]
    ids_1T, labels_1T, positions_1T = (torch.from_numpy(array).to(device) for array in arrays)
    bears_loss_1T = token_store.loss_mask(labels_1T, positions_1T)
    hidden_1TD = attention.final_hidden(teacher, ids_1T, positions_1T)
    return hidden_1TD[:, :-1][bears_loss_1T[:, 1:]]


def _fidelity(
    teacher: PreTrainedModel,
    train: token_store.Rows,
    soft_targets: Any,
    device: str,
    seed: int,
    probe: ProbeSettings,
) -> list[Fidelity]:
    """Measure what the format loses on a sample of tokens; one entry a temperature."""
    num_rows = len(train.ids_RT)
    hidden = [_hidden(teacher, train, row, device) for row in _spread(num_rows, probe.rows)]
    hidden_ND = torch.cat(hidden)
    hidden_ND = hidden_ND[_spread(len(hidden_ND), probe.tokens)]
    head = _head(teacher)
    student_logits_NV = formats.logits_of(hidden_ND, head) / probe.student_temperature
    every_tau = tuple(float(tau) for tau in probe.taus)
    taus = getattr(soft_targets, "taus", every_tau)
    generator = _generator(seed, num_rows, device)  # the stream after those of the rows
    return measure_fidelity(
        soft_targets, hidden_ND, head, student_logits_NV, taus, probe.repeats, generator
    )


def _spread(count: int, most: int) -> np.ndarray:
    """Choose at most `most` of `count` indices, spread evenly, the first and the last included."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def _generator(seed: int, row: int, device: str) -> torch.Generator:
    """Make the generator of a row: a function of (seed, row), whatever was drawn before."""
    state = np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


# ------------------------------------------------------------------------------------- with vLLM


def teach_vllm(
    model: Path,
    rows: Path,
    soft_targets: SoftTargets,
    dtype: str = "float32",
    execution: Execution = Execution(),
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """Store the soft targets of a teacher that vLLM reads: the format `topk` at tau 1 alone.

    vLLM reads a row at a time, so a row's soft targets are a function of teacher and row; a killed
    writer resumes at the first shard that is not whole. How near the format comes to the exact
    loss is not measured, since vLLM does not return hidden states: the store's fidelity is empty,
    and no temperature is refused because of it.

    Args:
        dtype: of the teacher's weights and arithmetic in vLLM.
        seed: enters the store's provenance; nothing is drawn.

    The other arguments are those of `teach`.

    Raises:
        ValueError: for any other format, and where vLLM's environment is missing.
    """
    check_one_of("dtype", dtype, DTYPES)
    config = json.loads((model / "config.json").read_text("utf-8"))
    vocabulary, width = config["vocab_size"], config["hidden_size"]
    check_vllm_supports(soft_targets, vocabulary)
    encoder = formats.TopK(**vars(soft_targets))
    train = token_store.load(rows / "train", tokenizer_digest(model))
    head_VD = torch.empty(vocabulary, width, device="meta")  # only its shape is used
    provenance = {
        **_provenance(model, rows, train, seed),
        "library": vllm_environment.library("vllm"),
        "dtype": dtype,
    }
    with vllm_prompts.open_vllm_reader(
        model,
        min(encoder.k, vocabulary),
        train.ids_RT.shape[1],
        dtype=dtype,
        device=execution.device,
        devices=execution.devices,
        threads=execution.threads,
    ) as read:
        contract = teacher_store.write(
            out,
            encoder,
            head_VD,
            train.loss_tokens_R,
            partial(_vllm_fields, read, train, encoder),
            list,  # no fidelity
            **provenance,
        )
    _write_metrics(out, contract)


def _vllm_fields(
    read: vllm_prompts.Read, train: token_store.Rows, soft_targets: TopK, rows: range
) -> Iterator[teacher_store.Fields]:
    """Read the soft targets of each row."""
    for row in rows:
        ids_T, labels_T, positions_T = (array[row] for array in train)
        ids_NK, logprobs_NK = read(loss_texts(ids_T, labels_T, positions_T))
        yield topk_fields(soft_targets, ids_NK, logprobs_NK)


def loss_texts(
    ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray
) -> vllm_prompts.Texts:
    """Split a row into its documents that bear loss.

    Args:
        ids_T, labels_T, positions_T: one row of a token store.

    Returns:
        (token ids, places of the loss tokens) of each document, cut behind its last loss token;
        read in this order the loss tokens are the row's own. For positions [0 1 2 0 1] and loss
        on the tokens 2, 3 and 4: ([a, b, c], [2]) and ([d, e], [1]), since a document's first
        token is predicted from nothing.
    """
    starts = np.flatnonzero(positions_T == 0)[1:]
    bears_loss_T = token_store.loss_mask(labels_T, positions_T)
    texts = []
    for ids, bears_loss in zip(
        np.split(ids_T, starts), np.split(bears_loss_T, starts), strict=True
    ):
        places = np.flatnonzero(bears_loss).tolist()
        if places:
            texts.append((ids[: places[-1] + 1].tolist(), places))
    return texts


def topk_fields(
    soft_targets: TopK, ids_NK: np.ndarray, logprobs_NK: np.ndarray
) -> teacher_store.Fields:
    """Convert log-probabilities to the arrays of TopK at tau 1.

    The tail's mass is 1 less that of the kept ids, known to some 3e-6, and at least float32's
    epsilon. The forward KL weighs its log by this mass; the reverse KL by the student's, so that
    the reverse KL of a student far from its teacher is the less sure (0.1 % of a random one's).

    Args:
        soft_targets: the format.
        ids_NK: the most likely ids of each token, the most likely first.
        logprobs_NK: their log-probabilities in nats.
    """
    logprobs = torch.from_numpy(logprobs_NK.astype(np.float64))
    epsilon = torch.finfo(torch.float32).eps
    tail_mass_N1 = (1 - logprobs.exp().sum(1, keepdim=True)).clamp_min(epsilon)
    return {
        "logits": bits(logprobs - logprobs[:, :1], soft_targets.dtype),
        "ids": torch.from_numpy(ids_NK.astype(np.int64)),
        "tail": bits(tail_mass_N1.log(), "float32"),
    }
