"""Packed rows in our training loop compared with padded batches in the Hugging Face Trainer.

Both sides train the same documents from the same weights, in the same precision, with the same
optimizer. A rate counts real tokens a second, without padding, after the first WARM_UP steps, so
that neither side's start-up counts. Knows models and rows.

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
from soaes.model import attention
from soaes.model.causal_lm import CausalLM
from soaes.model.settings import ConstantSchedule

WARM_UP = 2  # steps
LR, BETAS, WEIGHT_DECAY, GRAD_CLIP = 3e-4, (0.9, 0.95), 0.1, 1.0
OURS = "packed rows"
PADDED = "padded batches of Trainer"
GROUPED = "padded batches of Trainer by length"
SAMPLING = {PADDED: "random", GROUPED: "group_by_length"}  # transformers' train_sampling_strategy
MAX_DIFFERENCE = 1e-6  # relative, of two mean losses: float32 rounds by 6e-8
COMPARED_ROWS = 8
TARGET_SHARE = 0.95  # of the speedup that the absence of padding alone would give


class Padding:
    """Trains one model on the documents of some rows, by our loop and by the Trainer.

    Args:
        model: the initial weights.
        tokenizer: its tokenizer's folder.
        rows: the packed rows.
        step: rows of an optimizer step of ours; the Trainer's steps have as many documents.
        steps: optimizer steps of a turn.

    Attributes:
        filled: by contender, the real tokens over all positions of its last turn's batches.
    """

    def __init__(self, model: Any, tokenizer: Path, rows: Rows, step: int, steps: int):
        self.model, self.rows = model, rows
        self.step, self.steps = step, steps
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        self.documents_R = [documents(*arrays) for arrays in zip(*rows)]
        self.lengths: list[int] = []  # of the documents
        tokens_R = []
        for row_documents in self.documents_R:
            lengths = [len(document["input_ids"]) for document in row_documents]
            self.lengths.extend(lengths)
            tokens_R.append(sum(lengths))
        self.tokens_R = np.array(tokens_R)
        self.filled: dict[str, float] = {}
        padded = {name: partial(self._trainer_rate, name) for name in SAMPLING}
        self.turns = Turns({OURS: self._packed_rate, **padded})

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every contender."""
        self.turns.run(number, counted)

    def results(self, setting: str) -> Iterator[dict]:
        """Yield the difference of the losses, the speedups and our rate.

        Args:
            setting: words that name the model and its step.

        Raises:
            ValueError: if both sides do not compute the same loss.
        """
        rates = self.turns.values[OURS]
        same = f"mean loss of the same documents, packed and padded, apart by, {setting}"
        differences = [self.loss_difference()] * len(rates)
        yield row(same, "relative", differences, MAX_DIFFERENCE, "lower")
        for name in SAMPLING:
            limit = 1 / self.filled[name]
            ratios = self.turns.ratios(OURS, name)
            target = TARGET_SHARE * limit
            yield row(f"{OURS} / {name}, {setting}", "ratio", ratios, target, limit=limit)
        yield row(f"{OURS}, {setting}", "real tokens/s", rates)

    @torch.no_grad()
    def loss_difference(self) -> float:
        """Return the largest relative difference of both mean losses of a row's documents.

        In float32, before training.

        Raises:
            ValueError: above MAX_DIFFERENCE.
        """
        lit = self._lit_module()
        trainer, _, collator = self._trainer("sequential")
        differences = []
        for index, row_documents in enumerate(self.documents_R[:COMPARED_ROWS]):
            loss_sum = lit.loss_sum(tensors(self.rows, index)).item()
            ours = loss_sum / int(self.rows.loss_tokens_R[index])
            theirs = float(trainer.compute_loss(trainer.model, collator(row_documents)))
            differences.append(abs(ours / theirs - 1))
        difference = max(differences)
        if difference > MAX_DIFFERENCE:
            raise ValueError(
                f"packed and padded, the mean losses of the same documents differ by "
                f"{difference:.1e}, more than {MAX_DIFFERENCE}: no rate counts"
            )
        return difference

    def _packed_rate(self) -> float:
        context = self.rows.ids_RT.shape[1]
        data = PackedDataModule(
            self.rows,
            self.rows,
            global_batch_size=self.step,
            micro_batch_size=self.step,
            epochs=1,
            seed=0,
            max_tokens=self.steps * self.step * context,
        )
        clock = _LightningClock()
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            precision="32-true",
            max_epochs=1,
            max_steps=self.steps,
            limit_val_batches=0,
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(self._lit_module(), data)
        tokens = [int(self.tokens_R[step].sum()) for step in data.steps]
        return _rate(tokens, clock.times)

    def _lit_module(self) -> CausalLM:
        model = copy.deepcopy(self.model)
        attention.set_attention(model, "documents")
        schedule = ConstantSchedule(warmup=0)
        return CausalLM(model.train(), LR, schedule, BETAS, WEIGHT_DECAY, self.steps, GRAD_CLIP)

    def _trainer_rate(self, name: str) -> float:
        trainer, clock, collator = self._trainer(SAMPLING[name])
        trainer.train()
        self.filled[name] = sum(collator.tokens) / sum(collator.positions)
        return _rate(collator.tokens, clock.times)

    def _trainer(self, sampling: str) -> tuple[Trainer, "_TrainerClock", "_CountingCollator"]:
        dataset = [document for row_documents in self.documents_R for document in row_documents]
        documents_per_row = len(dataset) / len(self.documents_R)
        clock, collator = _TrainerClock(), _CountingCollator(self.tokenizer)
        with tempfile.TemporaryDirectory() as unused:
            arguments = TrainingArguments(
                unused,
                per_device_train_batch_size=round(self.step * documents_per_row),
                max_steps=self.steps,
                use_cpu=True,
                train_sampling_strategy=sampling,
                learning_rate=LR,
                weight_decay=WEIGHT_DECAY,
                adam_beta1=BETAS[0],
                adam_beta2=BETAS[1],
                max_grad_norm=GRAD_CLIP,
                lr_scheduler_type="constant",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            model = copy.deepcopy(self.model)
            trainer = Trainer(model, arguments, collator, train_dataset=dataset, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        return trainer, clock, collator


def documents(
    ids_T: np.ndarray, labels_T: np.ndarray, positions_T: np.ndarray
) -> list[dict[str, list[int]]]:
    """Return the documents of a row in the form that transformers' collators take.

    Padding (a run of tokens at position 0 without loss) is left out.
    """
    starts = [*np.flatnonzero(positions_T == 0), len(ids_T)]
    features = []
    for start, stop in zip(starts, starts[1:]):
        ids, labels = ids_T[start:stop], labels_T[start:stop]
        if (labels != IGNORE).any():
            features.append({"input_ids": ids.tolist(), "labels": labels.tolist()})
    return features


def tensors(rows: Rows, index: int) -> dict[str, torch.Tensor]:
    """Return one row as the batch of a Lightning module."""
    names = ("ids_BT", "labels_BT", "positions_BT")
    arrays = [array[[index]].astype(np.int64) for array in rows]
    return {name: torch.from_numpy(array) for name, array in zip(names, arrays)}


class _CountingCollator(DataCollatorForSeq2Seq):
    """Pads to the longest document and counts tokens and positions of every batch.

    transformers reads one batch ahead, in order.
    """

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer)
        self.tokens: list[int] = []
        self.positions: list[int] = []

    def __call__(self, features: list[dict]) -> Any:
        batch = super().__call__(features)
        self.tokens.append(int(batch["attention_mask"].sum()))
        self.positions.append(batch["input_ids"].numel())
        return batch


class _LightningClock(pl.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.times.append(time.perf_counter())


class _TrainerClock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


def _rate(tokens: list[int], times: list[float]) -> float:
    """Tokens a second after the warm-up steps."""
    return sum(tokens[WARM_UP : len(times)]) / (times[-1] - times[WARM_UP - 1])
