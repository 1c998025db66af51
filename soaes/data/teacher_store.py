"""The teacher's soft targets over the loss tokens of packed rows.

Row i is row i of the token store. Only tokens that bear loss are kept, since the student reads no
others. This module knows the formats (soaes.model.soft_targets) and which rows and tokenizer a
store belongs to; its files and their checksums are handled by soaes.data.shards.

# R rows, N loss tokens, D the teacher's width, V its vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soaes.data import shards
from soaes.model import soft_targets as formats

FOLDER = "soft_targets"
HEAD = "head_VD.npy"

Fields = dict[str, torch.Tensor]  # each [N, *shape]


class TeacherStore:
    """The teacher's soft targets of any rows. Memory-mapped; shards are checked when first read.

    Args:
        folder: the output of stage `teach` or `teach_vllm`.
        contract: its contract, checked.
        max_gradient_bias: the largest error of the gradient, relative to the exact gradient's
            length, at a temperature that is trained at.
    """

    def __init__(
        self, folder: Path, contract: shards.Contract, max_gradient_bias: float = 0.05
    ) -> None:
        self.max_gradient_bias = max_gradient_bias
        settings = dict(contract["soft_targets"])
        format_class = formats.FORMATS[settings.pop("name")]
        if settings.get("vocab", 0) is None:
            settings["vocab"] = contract["vocabulary"]
        self.folder = folder
        self.contract = contract
        self.soft_targets = format_class(**settings)
        self.shards = shards.Shards(folder / FOLDER, contract)

    def rows(self, row_indices: np.ndarray) -> Fields:
        """Return the fields of the loss tokens of the given rows, row after row.

        These are the tokens that `token_store.loss_mask` selects of these rows.
        """
        records = self.shards.read(row_indices)
        return {
            name: torch.from_numpy(np.ascontiguousarray(records[name]))
            for name in records.dtype.names or ()
        }

    @property
    def head_VD(self) -> torch.Tensor | None:
        """The teacher's output matrix where the format needs it; read, and checked, on access."""
        if HEAD not in self.contract["files"]:
            return None
        return torch.from_numpy(np.array(self.shards.array(HEAD)))

    def fidelity_at(self, tau: float) -> dict[str, float | None]:
        """Return what the format loses at a temperature.

        Returns:
            The entry of `soft_targets.fidelity` at tau: the teacher's entropy and the errors of the
            format. Empty where the format was tested at other temperatures only. For sampled
            formats, `gradient_bias` is the part of the error that exceeds its confidence interval.
        """
        entries = [entry for entry in self.contract["fidelity"] if entry["tau"] == tau]
        entry = entries[0] if entries else {}
        if entry.get("low") is None:
            return entry
        return entry | {"gradient_bias": max(0.0, entry["low"], -entry["high"])}

    def check_supports(self, tau: float, kind: str, vocabulary: int) -> None:
        """Check that a student can be trained on this store.

        Args:
            tau: temperature of the distillation.
            kind: divergence of the distillation.
            vocabulary: number of the student's logits.

        Raises:
            ValueError: for a temperature or a divergence that the format does not support, for a
                temperature at which its gradient was off by more than `max_gradient_bias`, and
                for a student with fewer logits than the stored ids need.
        """
        self.soft_targets.check_supports(tau, kind)
        fidelity = self.fidelity_at(tau)
        bias = fidelity.get("gradient_bias") or 0.0
        if bias > self.max_gradient_bias:
            way_out = "set soft_targets=hidden, which is exact"
            if "smallest_k" in fidelity:
                way_out += (
                    f", or a larger soft_targets.k: {fidelity['smallest_k']:,} comes within 1 %"
                )
            raise ValueError(
                f"{self.folder}: at tau={tau:g} the gradient of "
                f"soft_targets={self.soft_targets.name} is off by {bias:.1%} of the exact one, "
                f"the limit is {self.max_gradient_bias:.0%}; {way_out}"
            )
        num_ids = getattr(self.soft_targets, "vocab", 0)
        if vocabulary < num_ids:
            raise ValueError(
                f"{self.folder} has ids of a vocabulary of {num_ids:,}, "
                f"the student has {vocabulary:,}; set soft_targets.vocab={vocabulary}"
            )


def load(
    folder: Path, rows_name: str, tokenizer: str, max_gradient_bias: float = 0.05
) -> TeacherStore:
    """Open a teacher store for reading.

    Args:
        folder: the output of stage `teach` or `teach_vllm`.
        rows_name: folder name of the packed rows that the student reads.
        tokenizer: digest of the student's tokenizer.
        max_gradient_bias: see `TeacherStore`.

    Raises:
        ValueError: if the store was written over other rows or with another tokenizer, is
            unfinished, or is damaged.
    """
    contract = shards.read_contract(folder / FOLDER)
    if "fidelity" not in contract:  # the last entry that a writer adds
        raise ValueError(
            f"{folder} is still being written, or its writer was killed; "
            "run it again, it resumes where it stopped"
        )
    if contract["tokenizer"] != tokenizer:
        raise ValueError(
            f"{folder} was written with tokenizer {contract['tokenizer']}, "
            f"the student has {tokenizer}; teacher and student must share one tokenizer"
        )
    if contract["rows"] != rows_name:
        raise ValueError(
            f"{folder} holds the soft targets of {contract['rows']}, "
            f"the student reads {rows_name}; "
            "build the teacher store over the student's rows"
        )
    return TeacherStore(folder, contract, max_gradient_bias)


def write(
    out: Path,
    soft_targets: Any,
    head_VD: torch.Tensor,
    tokens_R: np.ndarray,
    fields_of: Callable[[range], Iterator[Fields]],
    fidelity: Callable[[], Sequence[Mapping[str, Any]]],
    **facts: Any,
) -> shards.Contract:
    """Write a teacher store to `out`/soft_targets, shard by shard.

    What a killed writer of the same settings left is kept. The fidelity is written last, and a
    store without it is not read.

    Args:
        out: the stage's output folder.
        soft_targets: a format of soaes.model.soft_targets.
        head_VD: the teacher's output matrix.
        tokens_R: loss tokens of each row.
        fields_of: returns the fields of each of some consecutive rows.
        fidelity: measures what the format loses; called at the end.
        **facts: teacher, tokenizer, rows, and everything else that determines the soft targets.

    Returns:
        The contract of the store.

    Raises:
        ValueError: if the disk cannot hold what is still to be written.
        OSError: if a write fails.
    """
    vocabulary, width = head_VD.shape
    dtype = record(soft_targets, width, vocabulary)
    num_rows = len(tokens_R)
    num_tokens = int(tokens_R.sum())
    per_shard = shards.rows_per_shard(num_rows, num_tokens, dtype.itemsize)
    settings = {
        **facts,
        "soft_targets": {"name": soft_targets.name, **asdict(soft_targets)},
        "vocabulary": vocabulary,
        "width": width,
        "packed_rows": num_rows,
        "tokens": num_tokens,
        "bytes_per_token": dtype.itemsize,
        "rows_per_shard": per_shard,
    }
    writer = shards.Writer(out / FOLDER, settings)

    starts = range(0, num_rows, per_shard)
    shard_rows = {
        shards.shard_name(index): range(start, min(start + per_shard, num_rows))
        for index, start in enumerate(starts)
    }
    sizes: dict[str, int] = {}
    for name, rows in shard_rows.items():
        sizes[name] = dtype.itemsize * int(tokens_R[rows].sum())
    needs_head = "hidden" in (dtype.names or ())  # logits are computed from hidden states with it
    if needs_head:
        sizes[HEAD] = 4 * vocabulary * width  # float32
    writer.check_room(
        sizes, "set a format that keeps less: soft_targets=topk or soft_targets=sampled"
    )

    writer.put(shards.OFFSETS, lambda: np.concatenate([[0], np.cumsum(tokens_R)]))
    if needs_head:
        writer.put(HEAD, lambda: head_VD.float().cpu().numpy())
    for name, rows in shard_rows.items():
        writer.put(name, partial(_records, dtype, fields_of, rows))
    writer.seal(fidelity=fidelity())
    return writer.contract


def _records(
    dtype: np.dtype, fields_of: Callable[[range], Iterator[Fields]], rows: range
) -> np.ndarray:
    """Return the records of the tokens of some rows."""
    parts = list(fields_of(rows))
    names = dtype.names or ()
    num_tokens = sum(len(part[names[0]]) for part in parts)
    records = np.empty(num_tokens, dtype)
    for name in names:
        records[name] = torch.cat([part[name] for part in parts]).cpu().numpy()
    return records


def record(soft_targets: Any, width: int, vocabulary: int) -> np.dtype:
    """Return the dtype of one token's fields, side by side, so that a row is contiguous on disk."""
    fields = soft_targets.fields(width, vocabulary)
    return np.dtype([(name, dtype, shape) for name, (shape, dtype) in fields.items()])
