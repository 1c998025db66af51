"""Optimizer steps without the training loop around them.

Times a step of distillation against one of plain SFT, by soft-target format, and a step of CPT
against its own matrix products. The models are untrained: the cost of a step depends on shapes
alone. Knows models and rows, no files.

# N tokens that bear loss, D width, V vocabulary, T tokens of a row"""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.rounds import row
from benchmarks.train_padded import BETAS, GRAD_CLIP, LR, WEIGHT_DECAY, tensors
from benchmarks.train_turns import Turns
from soaes.data.token_store import IGNORE, Rows
from soaes.model import attention
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.settings import ConstantSchedule

TAUS = (1.0, 2.0, 3.0, 5.0)
FORMATS = (formats.Hidden(), formats.TopK(256, TAUS), formats.Sampled(64, TAUS))  # as in conf
ALPHA, TAU = 0.5, 2.0
TARGET_RATIO = 1.10  # to a step of plain SFT; for `hidden`, to its limit
SFT = "sft"
STEPS, PRODUCTS, SQUARE = "cpt steps", "matrix products of a cpt step", "square matrix products"
SIDE = 1024  # rows and columns of the square products


class Distilling:
    """Times steps of one row each: plain SFT, and distillation by each soft-target format.

    Args:
        model: the student.
        rows: the packed rows.
        steps: number of batches, and turns of a round.
        teacher_VD: the teacher's output matrix.
    """

    def __init__(self, model: Any, rows: Rows, steps: int, teacher_VD: torch.Tensor):
        self.model, self.teacher_VD = model, teacher_VD
        self.batches = []
        for index in range(steps):
            step_tokens = max(1, int(rows.loss_tokens_R[index]))
            self.batches.append(tensors(rows, index) | {"step_tokens": step_tokens})
        contenders = {SFT: _stepper(_causal_lm(model), self.batches)}
        for soft_targets in FORMATS:
            lit = _distilled_lm(model, soft_targets, teacher_VD)
            contenders[soft_targets.name] = _stepper(lit, self._with_targets(soft_targets))
        self.turns = Turns(contenders, times=steps)

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every contender."""
        self.turns.run(number, counted)

    def results(self, setting: str) -> Iterator[dict]:
        """Yield the time of each format's step over that of plain SFT."""
        for soft_targets in FORMATS:
            limit = self._limit() if soft_targets.name == "hidden" else 1.0
            name = f"a step with {soft_targets.name} / a step of plain SFT, {setting}"
            ratios = self.turns.ratios(SFT, soft_targets.name)
            yield row(name, "ratio", ratios, TARGET_RATIO * limit, "lower", limit)

    def _limit(self) -> float:
        """1 + d_T V N / (3 P), with P the weights times tokens of the student's own step.

        The teacher's logits add one product to the student's three (forward, to the inputs, to the
        weights). The student's head is multiplied only with the N tokens that bear loss.
        """
        loss_tokens = sum(batch["step_tokens"] for batch in self.batches)
        tokens = sum(batch["ids_BT"].numel() for batch in self.batches)
        head = self.model.lm_head.weight.numel()
        student = (_matrix_weights(self.model) - head) * tokens + head * loss_tokens
        return 1 + self.teacher_VD.numel() * loss_tokens / (3 * student)

    def _with_targets(self, soft_targets: Any) -> list[dict]:
        """The batches with random soft targets."""
        generator = torch.Generator().manual_seed(0)
        width = self.teacher_VD.shape[1]
        hidden = []
        for batch in self.batches:
            hidden.append(torch.randn(batch["step_tokens"], width, generator=generator))
        batches = []
        for batch, hidden_ND in zip(self.batches, hidden):
            encoded = soft_targets.encode(hidden_ND, self.teacher_VD, generator)
            batches.append(batch | {"soft_targets": encoded})
        return batches


class Share:
    """Times CPT steps, their matrix products alone, and the machine's best matrix product.

    Every token bears loss.

    Args:
        model: the model to train.
        rows: the packed rows.
        step: rows of an optimizer step.
        steps: number of batches, and turns of a round.
    """

    def __init__(self, model: Any, rows: Rows, step: int, steps: int):
        self.model = model
        all_tokens = rows._replace(labels_RT=rows.ids_RT)
        self.batches = []
        for index in range(steps):
            first = index * step
            batch = [tensors(all_tokens, number) for number in range(first, first + step)]
            self.batches.append(_joined(batch))
        self.tokens = self.batches[0]["ids_BT"].numel()  # of a step
        contenders: dict[str, Callable[[], float]] = {
            STEPS: _stepper(_causal_lm(model), self.batches),
            PRODUCTS: partial(_per_second, _products(model, self.tokens)),
            SQUARE: partial(_per_second, _square_product()),
        }
        self.turns = Turns(contenders, times=steps)

    def run(self, number: int, counted: bool) -> None:
        """Run one round of every contender."""
        self.turns.run(number, counted)

    def results(self, setting: str) -> Iterator[dict]:
        """Yield how close a CPT step comes to its products and to the machine's best rate."""
        rates = self.turns.values
        work = 6 * _matrix_weights(self.model) * self.tokens  # operations of a step
        machine = [rate * 2 * SIDE**3 for rate in rates[SQUARE]]  # operations a second
        shares = [rate * work / best for rate, best in zip(rates[STEPS], machine, strict=True)]
        tokens_per_second = [rate * self.tokens for rate in rates[STEPS]]
        products = f"its matrix products alone / a step of CPT, {setting}"
        against = f"the machine's, by products of {SIDE}, {setting}"
        yield row(products, "ratio", self.turns.ratios(STEPS, PRODUCTS), limit=1.0)
        yield row(f"6 operations a weight and token / {against}", "ratio", shares, limit=1.0)
        yield row(
            f"the machine's float32 products of {SIDE}, one thread",
            "GFLOP/s",
            [best / 1e9 for best in machine],
        )
        limit = median(rates[PRODUCTS]) * self.tokens
        yield row(f"a step of CPT, {setting}", "tokens/s", tokens_per_second, limit=limit)


def _settings(model: Any) -> dict[str, Any]:
    model = copy.deepcopy(model).train()
    attention.set_attention(model, "documents")
    return {
        "model": model,
        "lr": LR,
        "schedule": ConstantSchedule(warmup=0),
        "betas": BETAS,
        "weight_decay": WEIGHT_DECAY,
        "steps": 1,
        "grad_clip": GRAD_CLIP,
    }


def _causal_lm(model: Any) -> CausalLM:
    return CausalLM(**_settings(model))


def _distilled_lm(model: Any, soft_targets: Any, head_VD: torch.Tensor) -> DistilledLM:
    """A module whose batches bring their soft targets: of a store it needs format and head."""
    store = SimpleNamespace(
        soft_targets=soft_targets,
        head_VD=head_VD,
        check_supports=lambda *args: None,
        fidelity_at=lambda tau: {},
    )
    return DistilledLM(**_settings(model), teacher_store=store, alpha=ALPHA, tau=TAU)


def _stepper(lit: CausalLM, batches: list[dict]) -> Callable[[], float]:
    """A callable that makes one optimizer step and returns its steps a second."""
    optimizer = lit.configure_optimizers()["optimizer"]
    batch_cycle = cycle(batches)

    def step() -> None:
        batch = next(batch_cycle)
        loss = lit.loss_sum(batch) / batch["step_tokens"]
        loss.backward()
        float(torch.nn.utils.clip_grad_norm_(lit.parameters(), GRAD_CLIP))
        optimizer.step()
        optimizer.zero_grad()

    return partial(_per_second, step)


def _joined(rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """One batch of several rows."""
    batch = {}
    for name in rows[0]:
        batch[name] = torch.cat([single[name] for single in rows])
    loss_tokens = (batch["labels_BT"] != IGNORE) & (batch["positions_BT"] > 0)
    return batch | {"step_tokens": int(loss_tokens.sum())}


def _linears(model: Any) -> list[torch.nn.Linear]:
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def _matrix_weights(model: Any) -> int:
    """Weights that each token is multiplied with; of the embedding a token only reads a row."""
    return sum(linear.weight.numel() for linear in _linears(model))


def _products(model: Any, tokens: int) -> Callable[[], None]:
    """The three products of every matrix: forward, to its inputs, to its weights."""
    operands = []
    for linear in _linears(model):
        inputs = torch.ones(tokens, linear.in_features)
        operands.append((inputs, linear.weight.detach()))

    def multiply() -> None:
        for inputs, weight in operands:
            outputs = inputs @ weight.T
            outputs @ weight
            outputs.T @ inputs

    return multiply


def _square_product() -> Callable[[], torch.Tensor]:
    ones = torch.ones(SIDE, SIDE)
    return partial(torch.mm, ones, ones)


def _per_second(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1 / (time.perf_counter() - start)
