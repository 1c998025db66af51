"""A model that answers prompts greedily and tells how likely given texts are.

What `evaluate` and `benchmark` ask of a model, whichever library runs it. A backend of theirs is a
context manager of (model, execution); this one is transformers', vllm_model.py vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from soaes.data.chat import load_tokenizer
from soaes.metrics.exams import Judge, ModelJudge
from soaes.model import checkpoint
from soaes.model.generate import generate_tokens
from soaes.model.output_head import OutputHead
from soaes.model.reference_loss import reference_nats
from soaes.pipeline.runtime import Execution


class LanguageModel(Protocol):
    """A model of one library."""

    positions: int
    """Tokens that a prompt and its answer may have together."""

    judge: Judge
    """Tells how likely the options of an exam question are."""

    library: str | None
    """Another library's name and version, for metrics.json."""

    def write(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Return the new tokens of each prompt, see `soaes.model.generate.generate_tokens`."""
        ...

    def reference_nats(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> list[float]:
        """Return the nats of given answers, see `soaes.model.reference_loss.reference_nats`."""
        ...


ModelBackend = Callable[[Path, Execution], AbstractContextManager[LanguageModel]]


class TransformersModel:
    """A model of transformers, whole on one device and in float32.

    Args:
        folder: Its folder.
        execution: The device, and exam questions at once.
    """

    library: str | None = None

    def __init__(self, folder: Path, execution: Execution) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.network = checkpoint.load(folder).to(execution.device).eval()
        self.positions: int = self.network.config.max_position_embeddings
        logits = OutputHead.of(self.network).logits
        self.judge: Judge = ModelJudge(self.network, logits, execution.micro_batch_size)

    def write(self, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """See LanguageModel."""
        return generate_tokens(self.network, self.tokenizer, prompts, max_new_tokens)

    def reference_nats(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> list[float]:
        """See LanguageModel."""
        return reference_nats(self.network, prompts, answers)


@contextmanager
def open_transformers(model: Path, execution: Execution) -> Iterator[LanguageModel]:
    """Load a model by transformers.

    Args:
        model: Folder of the model.
        execution: The device, and exam questions at once.
    """
    yield TransformersModel(model, execution)
