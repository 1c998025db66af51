"""Packed rows in our loop beside padded batches in transformers' Trainer: the same documents, first weights, precision and optimizer.

A rate is real tokens a second, padding left out, from the end of step WARM on, so that neither side's start counts. Knows models and rows.

# R rows, T tokens of a row"""

import copy
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from transformers import (
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.rounds import row
from benchmarks.train_turns import Turns
from soaes.data.datamodule import PackedDataModule
from soaes.data.token_store import IGNORE, Rows
from soaes.model import attention, schedules
from soaes.model.causal_lm import CausalLM

WARM = 2  # steps at the start that are not counted
LR, BETAS, WEIGHT_DECAY, CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0
OURS, PADDED, GROUPED = (
    "packed rows",
    "padded batches of Trainer",
    "padded batches of Trainer by length",
)
ORDERS = {PADDED: "random", GROUPED: "group_by_length"}  # of transformers' samplers
EQUAL = 1e-6  # how far two mean losses may lie apart, relative: float32 rounds by 6e-8
COMPARED = 8  # rows whose losses are
SHARE = 0.95  # of what leaving padding out alone would give


class Padding:
    """One model over the documents of some rows, by our loop and by Trainer. step: rows of an optimizer step, or as many documents.

    filled: by contender, real tokens over places of its batches, as of its last turn."""

    def __init__(
        self,
        model: Any,
        tokenizer: Path,
        rows: Rows,
        step: int,
        steps: int,
        precision: str = "bf16-mixed",
    ):
        self.model, self.rows, self.step, self.steps, self.precision = (
            model,
            rows,
            step,
            steps,
            precision,
        )
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.documents_R = [documents(*parts) for parts in zip(*rows)]
        self.tokens_R = np.array(
            [sum(len(one["input_ids"]) for one in of_row) for of_row in self.documents_R]
        )
        self.lengths = [len(one["input_ids"]) for of_row in self.documents_R for one in of_row]
        self.filled: dict[str, float] = {}
        self.turns = Turns(
            {OURS: self._ours, **{name: partial(self._theirs, name) for name in ORDERS}}
        )

    def run(self, number: int, counted: bool) -> None:
        self.turns.run(number, counted)

    def results(self, of: str) -> Iterator[dict]:
        """of: words that name the model and its step. ValueError where the two sides have not one loss."""
        rounds = len(self.turns.taken[OURS])
        yield row(
            f"mean loss of the same documents, packed and padded, apart by, {of}",
            "relative",
            [self.apart()] * rounds,
            EQUAL,
            "lower",
        )
        for name in ORDERS:
            limit = 1 / self.filled[name]
            yield row(
                f"{OURS} / {name}, {of}",
                "ratio",
                self.turns.ratios(OURS, name),
                SHARE * limit,
                limit=limit,
            )
        yield row(f"{OURS}, {of}", "real tokens/s", self.turns.taken[OURS])

    @torch.no_grad()
    def apart(self) -> float:
        """The greatest relative difference of the two mean losses of a row's documents, float32, before training. ValueError above EQUAL."""
        lit, (trainer, _, batches) = self._module(), self._trainer("sequential", bf16=False)
        ours = [
            lit.loss_sum(tensors(self.rows, at)).item() / int(self.rows.loss_tokens_R[at])
            for at in range(COMPARED)
        ]
        theirs = [
            float(trainer.compute_loss(trainer.model, batches(of_row)))
            for of_row in self.documents_R[:COMPARED]
        ]
        found = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
        if found > EQUAL:
            raise ValueError(
                f"packed and padded, the same documents have mean losses {found:.1e} apart, more than {EQUAL}: no rate counts"
            )
        return found

    def _ours(self) -> float:
        data = PackedDataModule(self.rows, self.rows, global_batch_size=self.step, micro_batch_size=self.step, epochs=1, seed=0,
                                max_tokens=self.steps * self.step * self.rows.ids_RT.shape[1])  # fmt: skip
        clock = _Clock()
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = pl.Trainer(accelerator="cpu", devices=1, precision=self.precision, max_epochs=1, max_steps=self.steps, gradient_clip_val=CLIP,
                             limit_val_batches=0, callbacks=[clock], **quiet)  # fmt: skip
        trainer.fit(self._module(), data)
        return _rate([int(self.tokens_R[step].sum()) for step in data.steps], clock.ends)

    def _module(self) -> CausalLM:
        model = copy.deepcopy(self.model)
        attention.set_attention(model, "documents")
        return CausalLM(
            model.train(),
            LR,
            partial(schedules.constant, warmup=0),
            BETAS,
            WEIGHT_DECAY,
            self.steps,
        )

    def _theirs(self, name: str) -> float:
        trainer, clock, batches = self._trainer(ORDERS[name], bf16=self.precision == "bf16-mixed")
        trainer.train()
        self.filled[name] = sum(batches.tokens) / sum(batches.places)
        return _rate(batches.tokens, clock.ends)

    def _trainer(self, order: str, bf16: bool) -> tuple[Trainer, "_TheirClock", "_Padded"]:
        found = [document for of_row in self.documents_R for document in of_row]
        with tempfile.TemporaryDirectory() as unused:
            asked = TrainingArguments(
                unused, per_device_train_batch_size=round(self.step * len(found) / len(self.documents_R)), max_steps=self.steps, bf16=bf16,
                use_cpu=True, train_sampling_strategy=order, learning_rate=LR, weight_decay=WEIGHT_DECAY, adam_beta1=BETAS[0], adam_beta2=BETAS[1],
                max_grad_norm=CLIP, lr_scheduler_type="constant", save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
                dataloader_pin_memory=False)  # fmt: skip
            clock, batches = _TheirClock(), _Padded(self.tokenizer)
            trainer = Trainer(
                copy.deepcopy(self.model), asked, batches, train_dataset=found, callbacks=[clock]
            )
        trainer.remove_callback(PrinterCallback)
        return trainer, clock, batches


def documents(
    ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray
) -> list[dict[str, list[int]]]:
    """The documents of a row, as transformers' collators take them; padding, a run of tokens at position 0 without loss, is none."""
    starts = [*np.flatnonzero(positions_T == 0), len(ids_T)]
    found = [slice(*bounds) for bounds in zip(starts, starts[1:])]
    return [
        {"input_ids": ids_T[one].tolist(), "labels": labels_T[one].tolist()}
        for one in found
        if (labels_T[one] != IGNORE).any()
    ]


def tensors(rows: Rows, at: int) -> dict[str, torch.Tensor]:
    """One row as the batch of a Lightning module."""
    return {
        name: torch.from_numpy(array[[at]].astype(np.int64))
        for name, array in zip(("ids_BT", "labels_BT", "positions_BT"), rows)
    }


class _Padded(DataCollatorForSeq2Seq):
    """Fills up to the longest document of a batch, and notes what it made. transformers reads one batch ahead, in order."""

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        self.tokens: list[int] = []
        self.places: list[int] = []

    def __call__(self, features: list[dict]) -> Any:
        batch = super().__call__(features)
        self.tokens.append(int(batch["attention_mask"].sum()))
        self.places.append(batch["input_ids"].numel())
        return batch


class _Clock(pl.Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []  # of the steps

    def on_train_batch_end(self, *of_step: Any) -> None:
        self.ends.append(time.perf_counter())


class _TheirClock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *of_step: Any, **others: Any) -> None:
        self.ends.append(time.perf_counter())


def _rate(tokens: list[int], ends: list[float]) -> float:
    """Tokens a second from the end of step WARM on."""
    return sum(tokens[WARM : len(ends)]) / (ends[-1] - ends[WARM - 1])
