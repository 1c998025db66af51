"""Store what a teacher says that is too large for one process: vLLM reads it, cut over several devices. Other teachers are teach.py's.

vLLM tells of each token of a prompt the k likeliest and their log-probabilities at temperature 1. So the k logits less the largest and
the tail's mass at tau 1 are had exactly, and nothing at another temperature, whose normaliser needs every logit.

# T tokens of a row, N loss tokens of it, K ids kept of a token, V the teacher's vocabulary, D its width"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soaes import limits
from soaes.backends import environment, vllm_prompts
from soaes.data import teacher_store, token_store
from soaes.execution import Execution
from soaes.model.signals import TopK, bits
from soaes.stages.teach import facts, tell


def teach(teacher: Path, rows: Path, format: Any, dtype: str = "float32", execution: Execution = Execution(), seed: int = 0, *, out: Path) -> None:
    """The signal of `teacher` over the training rows in `format`: topk at tau 1. dtype: of the teacher in vLLM. Nothing is drawn by `seed`.

    vLLM reads a row at a time, so that a row's signal is a function of teacher and row; a killed writer goes on at the first shard that
    is not whole. How near the format comes to the exact loss is not measured, since no hidden states are had: the store's fidelity is
    empty, and it refuses no temperature on account of it. ValueError for any other format, and where vLLM's environment is missing."""
    limits.check(dtype=dtype)
    shape, train = json.loads((teacher / "config.json").read_text()), token_store.load(rows / "train")
    limits.vllm_tells(format.name, vars(format), shape["vocab_size"])
    head_VD = torch.empty(shape["vocab_size"], shape["hidden_size"], device="meta")  # its shape alone is asked for
    known = {**facts(teacher, rows, train, seed), "library": environment.library("vllm"), "dtype": dtype}
    with vllm_prompts.open(teacher, min(format.k, shape["vocab_size"]), train.ids_RT.shape[1], dtype=dtype, device=execution.device,
                           devices=execution.devices, threads=execution.threads) as read:
        contract = teacher_store.write(out, format, head_VD, train.loss_tokens_R, partial(_fields, read, train, format), list, **known)
    tell(out, contract)


def _fields(read: vllm_prompts.Read, train: token_store.Rows, format: TopK, rows: range) -> Iterator[teacher_store.Fields]:
    """Of each row."""
    for row in rows:
        yield fields(format, *read(texts(*(array[row] for array in train))))


def texts(ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray) -> vllm_prompts.Texts:
    """The documents of a row that bear loss, each with the places of its loss tokens: read in this order, they are the row's own.

    A document is cut behind its last loss token, and its first token is predicted from nothing.
    # positions [0 1 2 0 1], loss on the tokens 2, 3 and 4: ([a, b, c], [2]) and ([d, e], [1])"""
    starts = np.flatnonzero(positions_T == 0)
    wanted_T = (labels_T != token_store.IGNORE) & (positions_T > 0)
    places = [np.flatnonzero(part).tolist() for part in np.split(wanted_T, starts[1:])]
    return [(ids[: at[-1] + 1].tolist(), at) for ids, at in zip(np.split(ids_T, starts[1:]), places, strict=True) if at]


def fields(format: TopK, ids_NK: np.ndarray, logs_NK: np.ndarray) -> teacher_store.Fields:
    """TopK's arrays at tau 1 of log-probabilities in nats, the likeliest first.

    The tail's mass is 1 less the others', known to some 3e-6, and at least float32's epsilon. The forward KL weighs its log by this mass;
    the reverse KL by the student's, so that of a student far from its teacher it is the less sure (.1 % of a random one's)."""
    logs = torch.from_numpy(logs_NK.astype(np.float64))
    tail_N1 = (1 - logs.exp().sum(1, keepdim=True)).clamp_min(torch.finfo(torch.float32).eps).log()
    return {"logits": bits(logs - logs[:, :1], format.dtype), "ids": torch.from_numpy(ids_NK.astype(np.int64)), "tail": tail_N1.float()}
