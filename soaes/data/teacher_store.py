"""The teacher's signal over the loss tokens of packed rows, in a format of model.signals. Row i is row i of the token store.

Only tokens whose next token bears loss are kept, since no student reads another. Knows formats, and whom a store is for; its files
and their checksums are `shards`'s.

# R rows, N loss tokens, D the teacher's width, V its vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soaes.data import shards
from soaes.model import soft_targets as formats

FOLDER, HEAD = "soft_targets", "head_VD.npy"
Fields = dict[str, torch.Tensor]  # each [N, *shape]


class TeacherStore:
    """What the teacher says of any rows, as its format keeps it. Memory-mapped; each shard is checked at its first read."""

    def __init__(
        self, folder: Path, contract: dict[str, Any], max_gradient_bias: float = 0.05
    ) -> None:
        self.max_gradient_bias = max_gradient_bias
        settings = dict(contract["soft_targets"])
        if settings.get("vocab", 0) is None:
            settings["vocab"] = contract["vocabulary"]
        self.folder, self.contract, self.soft_targets = (
            folder,
            contract,
            formats.FORMATS[settings.pop("name")](**settings),
        )
        self.shards = shards.Shards(folder / FOLDER, contract)

    def rows(self, which: np.ndarray) -> Fields:
        """The fields of the loss tokens of rows `which`, row after row: what CausalLM.predicting's mask selects of these rows."""
        records = self.shards.read(which)
        return {
            name: torch.from_numpy(np.ascontiguousarray(records[name]))
            for name in records.dtype.names
        }

    @property
    def head_VD(self) -> torch.Tensor | None:
        """The teacher's output matrix, where the format needs it; read, and checked, whenever it is asked for."""
        return (
            torch.from_numpy(np.array(self.shards.array(HEAD)))
            if HEAD in self.contract["files"]
            else None
        )

    def fidelity_at(self, tau: float) -> dict[str, float | None]:
        """The line of signals.fidelity at tau: the teacher's entropy, and what the format misses. Empty where it was tried at other temperatures.

        gradient_bias of what is drawn: as far as its interval is sure of it."""
        line = next((told for told in self.contract["fidelity"] if told["tau"] == tau), {})
        drawn = line.get("low") is not None
        return line | ({"gradient_bias": max(0.0, line["low"], -line["high"])} if drawn else {})

    def check_supports(self, tau: float, kind: str, vocabulary: int) -> None:
        """ValueError for a temperature or a divergence that the format cannot give, or that it missed by more than max_gradient_bias when it was
        tried, and for a student with fewer logits than the ids that were kept."""
        self.soft_targets.check_supports(tau, kind)
        told = self.fidelity_at(tau)
        if (bias := told.get("gradient_bias", 0.0)) > self.max_gradient_bias:
            larger = (
                f", or a larger soft_targets.k: {told['smallest_k']:,} comes within 1 %"
                if "smallest_k" in told
                else ""
            )
            raise ValueError(
                f"{self.folder}: at tau={tau:g} the gradient of soft_targets={self.soft_targets.name} is off by {bias:.1%} of the exact one, "
                f"the limit is {self.max_gradient_bias:.0%}; set soft_targets=hidden, which is exact{larger}"
            )
        if vocabulary < (ids := getattr(self.soft_targets, "vocab", 0)):
            raise ValueError(
                f"{self.folder} has ids of a vocabulary of {ids:,}, the student has {vocabulary:,}; set soft_targets.vocab={vocabulary}"
            )


def load(
    folder: Path, rows_name: str, tokenizer: str, max_gradient_bias: float = 0.05
) -> TeacherStore:
    """ValueError if the store was written over other rows, or for another tokenizer, than the reader's, or is not as it was written."""
    contract = shards.contract(folder / FOLDER)
    if "fidelity" not in contract:  # it is sealed with that
        raise ValueError(
            f"{folder} is still being written, or its writer was killed; run it again, it goes on where it was"
        )
    if contract["tokenizer"] != tokenizer:
        raise ValueError(
            f"{folder} was written with tokenizer {contract['tokenizer']}, the student has {tokenizer}; "
            "teacher and student must share one tokenizer"
        )
    if contract["rows"] != rows_name:
        raise ValueError(
            f"{folder} holds the signal over {contract['rows']}, the student reads {rows_name}; "
            "build the teacher over the student's rows"
        )
    return TeacherStore(folder, contract, max_gradient_bias)


def write(
    out: Path,
    soft_targets: Any,
    head_VD: torch.Tensor,
    tokens_R: np.ndarray,
    fields_of: Callable[[range], Iterator[Fields]],
    fidelity: Callable[[], list[dict[str, Any]]],
    **facts: Any,
) -> dict[str, Any]:
    """Shard after shard into out/signal, and `fidelity` last, without which it is not read; what a killed writer of the same facts left is kept.

    tokens_R: loss tokens of each row. fields_of: of consecutive rows, the fields of each. fidelity: signals.fidelity on a sample,
    asked for at the end. facts: teacher, tokenizer, rows and whatever else the signal is a function of. Returns the contract.
    ValueError if the disk cannot hold what is still to be written, OSError if a write fails."""
    (vocabulary, width), kept = head_VD.shape, record(soft_targets, *reversed(head_VD.shape))
    each = shards.rows_per_shard(len(tokens_R), int(tokens_R.sum()), kept.itemsize)
    shape = {
        "vocabulary": vocabulary,
        "width": width,
        "packed_rows": len(tokens_R),
        "tokens": int(tokens_R.sum()),
        "bytes_per_token": kept.itemsize,
        "rows_per_shard": each,
    }
    writer = shards.Writer(
        out / FOLDER,
        {**facts, "soft_targets": {"name": soft_targets.name, **asdict(soft_targets)}, **shape},
    )
    pieces = {
        shards.name(at): range(len(tokens_R))[at * each : (at + 1) * each]
        for at in range(-(-len(tokens_R) // each))
    }
    head = (
        {HEAD: 4 * vocabulary * width} if "hidden" in kept.names else {}
    )  # of which logits are made with it
    writer.check_room(
        head | {name: kept.itemsize * int(tokens_R[piece].sum()) for name, piece in pieces.items()},
        "set a format that keeps less: soft_targets=topk or soft_targets=sampled",
    )
    writer.put(shards.OFFSETS, lambda: np.concatenate([[0], np.cumsum(tokens_R)]))
    if head:
        writer.put(HEAD, lambda: head_VD.float().cpu().numpy())
    for name, piece in pieces.items():
        writer.put(name, partial(_records, kept, fields_of, piece))
    writer.seal(fidelity=fidelity())
    return writer.contract


def _records(
    kept: np.dtype, fields_of: Callable[[range], Iterator[Fields]], rows: range
) -> np.ndarray:
    parts = list(fields_of(rows))
    fields = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in kept.names}
    records = np.empty(len(fields[kept.names[0]]), kept)
    for name, field in fields.items():
        records[name] = field
    return records


def record(soft_targets: Any, width: int, vocabulary: int) -> np.dtype:
    """One token's fields side by side, so that a row is one piece of the file."""
    return np.dtype(
        [
            (name, dtype, shape)
            for name, (shape, dtype) in soft_targets.fields(width, vocabulary).items()
        ]
    )
