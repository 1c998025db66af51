"""Optimizer steps without the loop around them: of distillation against plain SFT by format of the signal, and of CPT against its own
matrix products. Untrained models: what a step costs depends on shapes. Knows models and rows, no files.

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
from benchmarks.train_padded import BETAS, CLIP, LR, WEIGHT_DECAY, tensors
from benchmarks.train_turns import Turns
from soaes.data.token_store import IGNORE, Rows
from soaes.model import attention, schedules
from soaes.model import soft_targets as formats
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM

TAUS = (1.0, 2.0, 3.0, 5.0)
FORMATS = (
    formats.Hidden(),
    formats.TopK(256, TAUS),
    formats.Sampled(64, TAUS),
)  # conf/soft_targets
ALPHA, TAU = 0.5, 2.0
MORE = 1.10  # of a step of plain SFT; for `hidden`, of its limit
SFT, STEPS, PRODUCTS, SQUARE = (
    "sft",
    "cpt steps",
    "matrix products of a cpt step",
    "square matrix products",
)
SIDE = 1024  # of the square products


class Distilling:
    """Steps of one row: a student's by plain SFT, and the same with a teacher's signal beside it. teacher_VD: the teacher's output matrix."""

    def __init__(self, model: Any, rows: Rows, steps: int, teacher_VD: torch.Tensor):
        self.model, self.teacher_VD = model, teacher_VD
        self.batches = [
            tensors(rows, at) | {"step_tokens": max(1, int(rows.loss_tokens_R[at]))}
            for at in range(steps)
        ]
        contenders = {SFT: _stepping(_causal(model), self.batches)}
        for soft_targets in FORMATS:
            contenders[soft_targets.name] = _stepping(
                _distilled(model, soft_targets, teacher_VD), self._signalled(soft_targets)
            )
        self.turns = Turns(contenders, times=steps)

    def run(self, number: int, counted: bool) -> None:
        self.turns.run(number, counted)

    def results(self, of: str) -> Iterator[dict]:
        for soft_targets in FORMATS:
            limit = self._limit() if soft_targets.name == "hidden" else 1.0
            name = f"a step with {soft_targets.name} / a step of plain SFT, {of}"
            yield row(
                name,
                "ratio",
                self.turns.ratios(SFT, soft_targets.name),
                MORE * limit,
                "lower",
                limit,
            )

    def _limit(self) -> float:
        """1 + d_T V N / (3 P): what the teacher's logits add to the 6 operations a weight and token of a step; the student's own head, too,
        is multiplied with the N tokens that bear loss alone."""
        bearing = sum(batch["step_tokens"] for batch in self.batches)
        head = self.model.lm_head.weight.numel()
        tokens = sum(batch["ids_BT"].numel() for batch in self.batches)
        return 1 + self.teacher_VD.numel() * bearing / (
            3 * ((_matrices(self.model) - head) * tokens + head * bearing)
        )

    def _signalled(self, soft_targets: Any) -> list[dict]:
        generator = torch.Generator().manual_seed(0)
        hidden = [
            torch.randn(batch["step_tokens"], self.teacher_VD.shape[1], generator=generator)
            for batch in self.batches
        ]
        return [
            batch | {"soft_targets": soft_targets.encode(one, self.teacher_VD, generator)}
            for batch, one in zip(self.batches, hidden)
        ]


class Share:
    """Steps of CPT, every token of which bears loss, beside the matrix products that they consist of and the machine's best."""

    def __init__(self, model: Any, rows: Rows, step: int, steps: int):
        self.model = model
        every = rows._replace(labels_RT=rows.ids_RT)
        self.batches = [
            _joined([tensors(every, at * step + one) for one in range(step)]) for at in range(steps)
        ]
        self.tokens = self.batches[0]["ids_BT"].numel()  # of a step
        products = partial(_per_second, _products(model, self.tokens))
        steppers = {
            STEPS: _stepping(_causal(model), self.batches),
            PRODUCTS: products,
            SQUARE: partial(_per_second, _square()),
        }
        self.turns = Turns(steppers, times=steps)

    def run(self, number: int, counted: bool) -> None:
        self.turns.run(number, counted)

    def results(self, of: str) -> Iterator[dict]:
        taken = self.turns.taken
        yield row(
            f"its bfloat16 matrix products alone / a step of CPT, {of}",
            "ratio",
            self.turns.ratios(STEPS, PRODUCTS),
            limit=1.0,
        )
        work = 6 * _matrices(self.model) * self.tokens
        best = [rate * 2 * SIDE**3 for rate in taken[SQUARE]]
        shares = [rate * work / one for rate, one in zip(taken[STEPS], best, strict=True)]
        yield row(
            f"6 operations a weight and token / the machine's, by bfloat16 products of {SIDE}, {of}",
            "ratio",
            shares,
            limit=1.0,
        )
        yield row(
            f"the machine's bfloat16 products of {SIDE}, one thread",
            "GFLOP/s",
            [one / 1e9 for one in best],
        )
        yield row(
            f"a step of CPT, {of}",
            "tokens/s",
            [rate * self.tokens for rate in taken[STEPS]],
            limit=median(taken[PRODUCTS]) * self.tokens,
        )


def _settings(model: Any) -> dict[str, Any]:
    model = copy.deepcopy(model).train()
    attention.set_attention(model, "documents")
    return {
        "model": model,
        "lr": LR,
        "schedule": partial(schedules.constant, warmup=0),
        "betas": BETAS,
        "weight_decay": WEIGHT_DECAY,
        "steps": 1,
    }


def _causal(model: Any) -> CausalLM:
    return CausalLM(**_settings(model))


def _distilled(model: Any, soft_targets: Any, head_VD: torch.Tensor) -> DistilledLM:
    """Its signal comes with the batches: of a store it takes the format and the head."""
    store = SimpleNamespace(
        soft_targets=soft_targets,
        head_VD=head_VD,
        check_supports=lambda *asked: None,
        fidelity_at=lambda tau: {},
    )
    return DistilledLM(**_settings(model), teacher_store=store, alpha=ALPHA, tau=TAU)


def _stepping(lit: CausalLM, batches: list[dict]) -> Callable[[], float]:
    """Makes the next optimizer step, precision bf16-mixed, and tells its rate in steps a second."""
    optimizer, waiting = lit.configure_optimizers()["optimizer"], cycle(batches)

    def step() -> None:
        batch = next(waiting)
        with torch.autocast("cpu", torch.bfloat16):
            loss = lit.loss_sum(batch) / batch["step_tokens"]
        loss.backward()
        lit.configure_gradient_clipping(optimizer, CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return partial(_per_second, step)


def _joined(rows: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    batch = {name: torch.cat([one[name] for one in rows]) for name in rows[0]}
    return batch | {
        "step_tokens": int(((batch["labels_BT"] != IGNORE) & (batch["positions_BT"] > 0)).sum())
    }


def _linears(model: Any) -> list[torch.nn.Linear]:
    return [part for part in model.modules() if isinstance(part, torch.nn.Linear)]


def _matrices(model: Any) -> int:
    """Weights that a token is multiplied with: of the embedding it reads a row."""
    return sum(linear.weight.numel() for linear in _linears(model))


def _products(model: Any, tokens: int) -> Callable[[], None]:
    """Of each matrix: forward, to its inputs, to its weights."""
    every = [
        (
            torch.ones(tokens, linear.in_features, dtype=torch.bfloat16),
            linear.weight.detach().bfloat16(),
        )
        for linear in _linears(model)
    ]

    def work() -> None:
        for given, weight in every:
            made = given @ weight.T
            made @ weight
            made.T @ given

    return work


def _square() -> Callable[[], torch.Tensor]:
    ones = torch.ones(SIDE, SIDE, dtype=torch.bfloat16)
    return partial(torch.mm, ones, ones)


def _per_second(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return 1 / (time.perf_counter() - began)
