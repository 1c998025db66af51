"""Store what the teacher says about every token that the student will learn from. The student is trained elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soaes.data import teacher_store, token_store
from soaes.data.chat import tokenizer_digest
from soaes.decode.backends import vllm_environment, vllm_prompts
from soaes.model import attention, checkpoint, train_state
from soaes.model import soft_targets as formats
from soaes.model.soft_targets import TopK, bits
from soaes.pipeline import validation
from soaes.pipeline.runtime import Execution

TAUS = (
    1.0,
    2.0,
    3.0,
    5.0,
)  # at which a format is tried that serves every temperature: the paper's sweep
TRIED_ROWS, TRIED, REPEATS = (
    8,
    200,
    8,
)  # rows and tokens that a format is tried on; encodings of each, where it draws
FLATTER = 1.5  # the student's temperature: as the teacher, and less sure


def teach(
    model: Path,
    rows: Path,
    soft_targets: Any,
    execution: Execution = Execution(),
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """The soft targets of `model` over the training rows in `format`, one of model.signals. seed: of what a format draws.

    A row's signal is a function of teacher, row and (seed, row index), and a killed writer goes on at the first shard that is not whole:
    the store is the same to the byte. metrics.json has its size and how near the format comes to the exact loss."""
    torch.set_num_threads(execution.threads)
    device = execution.device
    network, train = checkpoint.load(model).to(device).eval(), token_store.load(rows / "train")
    attention.set_attention(network, execution.attention)
    contract = teacher_store.write(
        out,
        soft_targets,
        network.lm_head.weight.detach(),
        train.loss_tokens_R,
        partial(_fields, network, train, soft_targets, device, seed),
        partial(_fidelity, network, train, soft_targets, device, seed),
        **facts(model, rows, train, seed),
    )
    tell(out, contract)


def facts(teacher: Path, rows: Path, train: token_store.Rows, seed: int) -> dict[str, Any]:
    """What a store is a function of, beside its format: shards of other facts are not gone on with."""
    return {
        "teacher": teacher.name,
        "tokenizer": tokenizer_digest(teacher),
        "rows": rows.name,
        "context": train.ids_RT.shape[1],
        "seed": seed,
        "code": train_state.code_digest(),
    }


def tell(out: Path, contract: dict[str, Any]) -> None:
    """metrics.json of a store."""
    told = {
        name: contract[name] for name in ("bytes_per_token", "tokens", "packed_rows", "fidelity")
    }
    (out / "metrics.json").write_text(json.dumps(told, indent=1))


def _fields(
    model: Any, train: token_store.Rows, soft_targets: Any, device: str, seed: int, rows: range
) -> Iterator[teacher_store.Fields]:
    """Of each row."""
    for row in rows:
        yield soft_targets.encode(
            _hidden(model, train, row, device),
            model.lm_head.weight.detach(),
            _generator(seed, row, device),
        )


@torch.no_grad()
def _hidden(model: Any, train: token_store.Rows, row: int, device: str) -> torch.Tensor:
    """hidden_ND: final hidden states where the next token bears loss, as CausalLM.predicting selects them.

    One row at a time: the last bits of a state depend on what is computed beside it, and a row of a few hundred tokens is as fast alone."""
    ids_1T, labels_1T, positions_1T = (
        torch.from_numpy(array[row : row + 1].astype(np.int64)).to(device) for array in train
    )
    bears_1T = token_store.loss_mask(labels_1T, positions_1T)
    states_1TD = model.model(ids_1T, position_ids=positions_1T, use_cache=False).last_hidden_state
    return states_1TD[:, :-1][bears_1T[:, 1:]]


def _fidelity(
    model: Any, train: token_store.Rows, soft_targets: Any, device: str, seed: int
) -> list[dict[str, Any]]:
    """What the format loses, on tokens spread evenly over some rows, for a student that is the teacher itself but flatter."""
    rows = np.unique(np.linspace(0, len(train.ids_RT) - 1, TRIED_ROWS).astype(int))
    hidden_ND = torch.cat([_hidden(model, train, row, device) for row in rows])
    hidden_ND, head_VD = (
        hidden_ND[np.unique(np.linspace(0, len(hidden_ND) - 1, TRIED).astype(int))],
        model.lm_head.weight.detach(),
    )
    taus, generator = (
        getattr(soft_targets, "taus", TAUS),
        _generator(seed, len(train.ids_RT), device),
    )
    return formats.fidelity(
        soft_targets, hidden_ND, head_VD, hidden_ND @ head_VD.T / FLATTER, taus, REPEATS, generator
    )


def _generator(seed: int, row: int, device: str) -> torch.Generator:
    """What a row draws is a function of (seed, row), whatever was drawn before."""
    return torch.Generator(device).manual_seed(
        int(np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0])
    )


def teach_vllm(
    model: Path,
    rows: Path,
    soft_targets: Any,
    dtype: str = "float32",
    execution: Execution = Execution(),
    seed: int = 0,
    *,
    out: Path,
) -> None:
    """The soft targets of `model` over the training rows in `format`: topk at tau 1. dtype: of the teacher in vLLM. Nothing is drawn by `seed`.

    vLLM reads a row at a time, so that a row's signal is a function of teacher and row; a killed writer goes on at the first shard that
    is not whole. How near the format comes to the exact loss is not measured, since no hidden states are had: the store's fidelity is
    empty, and it refuses no temperature on account of it. ValueError for any other format, and where vLLM's environment is missing."""
    validation.check(dtype=dtype)
    shape, train = json.loads((model / "config.json").read_text()), token_store.load(rows / "train")
    validation.check_vllm_supports(soft_targets.name, vars(soft_targets), shape["vocab_size"])
    head_VD = torch.empty(
        shape["vocab_size"], shape["hidden_size"], device="meta"
    )  # its shape alone is asked for
    known = {
        **facts(model, rows, train, seed),
        "library": vllm_environment.library("vllm"),
        "dtype": dtype,
    }
    with vllm_prompts.open_vllm_reader(
        model,
        min(soft_targets.k, shape["vocab_size"]),
        train.ids_RT.shape[1],
        dtype=dtype,
        device=execution.device,
        devices=execution.devices,
        threads=execution.threads,
    ) as read:
        contract = teacher_store.write(
            out,
            soft_targets,
            head_VD,
            train.loss_tokens_R,
            partial(_vllm_fields, read, train, soft_targets),
            list,
            **known,
        )
    tell(out, contract)


def _vllm_fields(
    read: vllm_prompts.Read, train: token_store.Rows, soft_targets: TopK, rows: range
) -> Iterator[teacher_store.Fields]:
    """Of each row."""
    for row in rows:
        yield topk_fields(soft_targets, *read(loss_texts(*(array[row] for array in train))))


def loss_texts(
    ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray
) -> vllm_prompts.Texts:
    """The documents of a row that bear loss, each with the places of its loss tokens: read in this order, they are the row's own.

    A document is cut behind its last loss token, and its first token is predicted from nothing.
    # positions [0 1 2 0 1], loss on the tokens 2, 3 and 4: ([a, b, c], [2]) and ([d, e], [1])"""
    starts = np.flatnonzero(positions_T == 0)
    wanted_T = token_store.loss_mask(labels_T, positions_T)
    places = [np.flatnonzero(part).tolist() for part in np.split(wanted_T, starts[1:])]
    return [
        (ids[: at[-1] + 1].tolist(), at)
        for ids, at in zip(np.split(ids_T, starts[1:]), places, strict=True)
        if at
    ]


def topk_fields(
    soft_targets: TopK, ids_NK: np.ndarray, logs_NK: np.ndarray
) -> teacher_store.Fields:
    """TopK's arrays at tau 1 of log-probabilities in nats, the likeliest first.

    The tail's mass is 1 less the others', known to some 3e-6, and at least float32's epsilon. The forward KL weighs its log by this mass;
    the reverse KL by the student's, so that of a student far from its teacher it is the less sure (.1 % of a random one's)."""
    logs = torch.from_numpy(logs_NK.astype(np.float64))
    tail_N1 = (1 - logs.exp().sum(1, keepdim=True)).clamp_min(torch.finfo(torch.float32).eps).log()
    return {
        "logits": bits(logs - logs[:, :1], soft_targets.dtype),
        "ids": torch.from_numpy(ids_NK.astype(np.int64)),
        "tail": tail_N1.float(),
    }
