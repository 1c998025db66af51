"""The curves of a training stage: loss, learning rate, gradient norm and tokens per second of steps; perplexity and Rouge of dev.

Watches a Lightning module from outside; changes nothing of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from soaes.data.chat import prompt
from soaes.metrics import rouge
from soaes.model import checkpoint

POINTS = 100  # at most so many points a curve


class Curves(pl.Callback):
    """prompts: dev conversations whose last answer is the reference of the validation Rouge; none for plain text."""

    def __init__(self, tracker: Any, tokenizer: Path, prompts: list[dict[str, Any]], max_new_tokens: int = 48) -> None:
        self.tracker, self.tokenizer, self.prompts, self.max_new_tokens = tracker, tokenizer, prompts, max_new_tokens
        self.validations: list[dict[str, float]] = []
        self.tokens, self.loss, self.since, self.step = 0, 0.0, time.monotonic(), 0
        self.began, self.earlier = self.since, 0.0  # seconds of the attempts from which this one goes on

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: dict[str, Any], at: int) -> None:
        self.tokens += batch["ids_BT"].numel() * trainer.world_size
        # Lightning has divided the loss by the micro-batches, and the mean over ranks undoes what training_step multiplied
        self.loss += float(trainer.strategy.reduce(outputs["loss"].detach(), reduce_op="mean"))
        if trainer.global_step == self.step:
            return  # in the middle of a step
        self.step = trainer.global_step
        if self.step % max(1, module.steps // POINTS) == 0:
            passed, rate = time.monotonic() - self.since, trainer.optimizers[0].param_groups[0]["lr"]
            values = {"loss": self.loss, "learning_rate": rate, "grad_norm": module.grad_norm, "tokens_per_s": self.tokens / passed}
            self._log(values)
            self.tokens, self.since = 0, time.monotonic()
        self.loss = 0.0

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        values = {"validation_perplexity": module.perplexity}
        if self.prompts and trainer.is_global_zero and not checkpoint.sharded(module):
            values["validation_rouge1"] = self._rouge(module.model)
        self.validations.append({"step": self.step, **values})
        self._log(values)
        self.since = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """The record up to a step's end, where nothing else is under way."""
        lines, seconds = self.tracker.path.read_text() if self.tracker else "", self.earlier + time.monotonic() - self.began
        return {"step": self.step, "validations": self.validations, "lines": lines, "seconds": seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.validations, self.earlier, self.since = state["step"], state["validations"], state["seconds"], time.monotonic()
        if self.tracker is not None:
            self.tracker.take_up(state["lines"], self.earlier)

    def _log(self, values: dict[str, float]) -> None:
        if self.tracker is not None:
            self.tracker.log({**values, "seconds": round(self.earlier + time.monotonic() - self.began, 3)}, step=self.step)

    def _rouge(self, model: Any) -> float:
        """Mean Rouge-1 of greedy answers to the dev prompts."""
        from tokenizers import Tokenizer

        from soaes.model.answers import answers

        tokenizer = Tokenizer.from_file(str(self.tokenizer / "tokenizer.json"))
        said = answers(model, tokenizer, [prompt(tokenizer, item["messages"][:-1]) for item in self.prompts], self.max_new_tokens)
        scores = [rouge.score(text, item["messages"][-1]["content"])["rouge1"] for text, item in zip(said, self.prompts, strict=True)]
        return sum(scores) / len(scores)
