"""Store the soft targets of a teacher for every token that a student will learn from.

The path of the data: packed rows (data.token_store) -> the teacher's final hidden states, row by
row -> what a format keeps of each token (model.soft_targets) -> shards (data.teacher_store).
`teach` runs the teacher in one process of transformers; `teach_vllm` gets the hidden states from
vLLM, which cuts the teacher over several devices. The student is trained elsewhere.

# N loss tokens, T tokens of a row, D the teacher's width, V its vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from soaes.data import teacher_store, token_store
from soaes.data.chat import tokenizer_digest
from soaes.decode.backends import vllm_environment, vllm_hidden
from soaes.metrics.schema import write_metrics
from soaes.model import attention, checkpoint, self_check, train_state
from soaes.model import soft_targets as formats
from soaes.model.fidelity import Fidelity, measure_fidelity
from soaes.model.folder import text_config
from soaes.model.output_head import OutputHead
from soaes.model.settings import ProbeSettings, SoftTargets
from soaes.pipeline.runtime import Execution
from soaes.pipeline.validation import DTYPES, check_one_of

IN_METRICS = ("bytes_per_token", "tokens", "packed_rows", "fidelity")


class Teacher(NamedTuple):
    """What soft targets are computed from."""

    hidden_of_row: Callable[[int], torch.Tensor]
    """Index of a row -> hidden_ND, the final hidden states where the next token bears loss."""

    head: OutputHead
    """What turns hidden states into logits, on the device where they are encoded."""


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
    network = checkpoint.load(model).to(device).eval()
    attention.set_attention(network, _attention(execution, network.dtype))
    head = OutputHead.of(network).detached()
    _check_head(model, head, soft_targets)
    packed_logits = partial(_packed_logits, network, head)
    self_check.check(network, packed_logits, train.ids_RT.shape[1], 1, device)
    teacher = Teacher(partial(_hidden, network, train, device), head)
    provenance = _provenance(model, rows, train, seed)
    _write_store(out, teacher, train, soft_targets, seed, probe, provenance)


def _attention(execution: Execution, dtype: torch.dtype) -> str:
    """Name the attention of a teacher: flash attention knows 16 bits alone, and ours has more."""
    is_flash = execution.attention in attention.ONE_ROW
    return "sdpa" if is_flash and dtype not in self_check.HALF else execution.attention


def _check_head(model: Path, head: OutputHead, soft_targets: SoftTargets) -> None:
    """Check that a format of hidden states has a teacher whose logits are a product with them."""
    if soft_targets.name == "hidden" and head.extras:
        raise ValueError(
            f"soft_targets=hidden stores hidden states and one matrix, and the output of "
            f"{text_config(model)['model_type']} also has {' and '.join(head.extras)}; "
            "set soft_targets=topk, sampled or full"
        )


@torch.no_grad()
def _packed_logits(
    network: PreTrainedModel, head: OutputHead, ids_BT: torch.Tensor, positions_BT: torch.Tensor
) -> torch.Tensor:
    """Compute the logits of packed rows as the store does."""
    hidden_BTD = attention.final_hidden(network, ids_BT, positions_BT)
    logits_NV = formats.logits_of(hidden_BTD.flatten(0, 1), head)
    return logits_NV.view(*ids_BT.shape, -1)


@torch.no_grad()
def _hidden(
    network: PreTrainedModel, train: token_store.Rows, device: str, row: int
) -> torch.Tensor:
    """Compute hidden_ND: final hidden states where the next token bears loss.

    They are those of `CausalLM.loss_positions`. One row at a time: the last bits of a
    state depend on what is computed beside it, and a row of a few hundred tokens is as fast alone.
    """
    arrays = [array[row : row + 1].astype(np.int64) for array in train]
    ids_1T, labels_1T, positions_1T = (torch.from_numpy(array).to(device) for array in arrays)
    bears_loss_1T = token_store.loss_mask(labels_1T, positions_1T)
    hidden_1TD = attention.final_hidden(network, ids_1T, positions_1T)
    return hidden_1TD[:, :-1][bears_loss_1T[:, 1:]]


# -------------------------------------------------------------------------- from states to a store


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


def _write_store(
    out: Path,
    teacher: Teacher,
    train: token_store.Rows,
    soft_targets: SoftTargets,
    seed: int,
    probe: ProbeSettings,
    provenance: dict[str, str | int],
) -> None:
    """Write the soft targets of all rows, what their format loses, and metrics.json."""
    encoder = formats.from_settings(soft_targets)
    contract = teacher_store.write(
        out,
        encoder,
        teacher.head.weight_VD,
        train.loss_tokens_R,
        partial(_fields, teacher, encoder, seed),
        partial(_fidelity, teacher, encoder, len(train.ids_RT), seed, probe),
        **provenance,
    )
    write_metrics(out, {name: contract[name] for name in IN_METRICS})


def _fields(
    teacher: Teacher, soft_targets: Any, seed: int, rows: range
) -> Iterator[teacher_store.Fields]:
    """Encode the soft targets of each row."""
    device = teacher.head.weight_VD.device
    for row in rows:
        hidden_ND = teacher.hidden_of_row(row)
        yield soft_targets.encode(hidden_ND, teacher.head, _generator(seed, row, device))


def _fidelity(
    teacher: Teacher, soft_targets: Any, num_rows: int, seed: int, probe: ProbeSettings
) -> list[Fidelity]:
    """Measure what the format loses on a sample of tokens; one entry a temperature."""
    hidden_ND = torch.cat([teacher.hidden_of_row(row) for row in _spread(num_rows, probe.rows)])
    hidden_ND = hidden_ND[_spread(len(hidden_ND), probe.tokens)]
    head = teacher.head
    student_logits_NV = formats.logits_of(hidden_ND, head) / probe.student_temperature
    every_tau = tuple(float(tau) for tau in probe.taus)
    taus = getattr(soft_targets, "taus", every_tau)
    # the stream after those of the rows
    generator = _generator(seed, num_rows, head.weight_VD.device)
    return measure_fidelity(
        soft_targets, hidden_ND, head, student_logits_NV, taus, probe.repeats, generator
    )


def _spread(count: int, most: int) -> np.ndarray:
    """Choose at most `most` of `count` indices, spread evenly, the first and the last included."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))


def _generator(seed: int, row: int, device: torch.device) -> torch.Generator:
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
    probe: ProbeSettings = ProbeSettings(),
    *,
    out: Path,
) -> None:
    """Store the soft targets of a teacher that vLLM cuts over several devices, in any format.

    vLLM returns the final hidden states (its token embeddings); what a format keeps of them is
    computed here, with the output matrix alone, on the first device. As in `teach`, a row's soft
    targets are a function of teacher, row and (seed, row index), and a killed writer resumes at
    the first shard that is not whole.

    Args:
        dtype: of the teacher's weights and arithmetic in vLLM; logits are float32 in any case.

    The other arguments are those of `teach`; `execution.tensor_parallel` says over how many
    devices the teacher is cut.

    Raises:
        ValueError: if vLLM's environment is missing, it cannot cut the teacher so, the rows are of
            another tokenizer, or the format cannot hold the teacher's head.
    """
    check_one_of("dtype", dtype, DTYPES)
    train = token_store.load(rows / "train", tokenizer_digest(model))
    head = checkpoint.load_head(model).to(execution.device)
    _check_head(model, head, soft_targets)
    provenance = {
        **_provenance(model, rows, train, seed),
        "library": vllm_environment.library("vllm"),
        "dtype": dtype,
    }
    longest = train.ids_RT.shape[1]
    with vllm_hidden.open_vllm_reader(model, longest, dtype, execution) as read:
        teacher = Teacher(partial(_hidden_by_vllm, read, train, head), head)
        _write_store(out, teacher, train, soft_targets, seed, probe, provenance)


def _hidden_by_vllm(
    read: vllm_hidden.Read, train: token_store.Rows, head: OutputHead, row: int
) -> torch.Tensor:
    """The same as `_hidden`; documents of a row are read together, and apart from other rows."""
    texts = loss_texts(*(array[row] for array in train))
    if not texts:
        return head.weight_VD.new_empty(0, head.weight_VD.shape[1])
    return read(texts).to(head.weight_VD.device)


def loss_texts(
    ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray
) -> vllm_hidden.Texts:
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
