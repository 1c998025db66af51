"""Peak memory of the distillation loss, forward and backward, chunk by chunk and all at once: bytes of tensors alive, counted and not timed.

What was there before, and the gradients of inputs, are in both. Knows losses, not models.

# N tokens, D width, V vocabulary"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.rounds import row
from soaes.model import chunked_loss, losses
from soaes.model import soft_targets as formats

TOKENS, VOCABULARY, WIDTH = (
    8192,
    152_064,
    64,
)  # a row of the paper's and its vocabulary; a narrow model, since its width is not the point
FEWER = (128, 256)  # tokens at which the whole is counted: at 8,192 it would take tens of gigabytes
ALPHA, TAU = 0.5, 2.0
TARGET = 8.0


def results(rounds: int, tokens: int = TOKENS, vocabulary: int = VOCABULARY) -> Iterator[dict]:
    """Counts are the same in every round."""
    ours = peak_of(_chunked, tokens, vocabulary)
    few, more = (peak_of(_whole, fewer, vocabulary) for fewer in FEWER)
    whole = few + (more - few) * (tokens - FEWER[0]) / (FEWER[1] - FEWER[0])
    at = f"{tokens:,} tokens, vocabulary {vocabulary:,}"
    yield row(
        f"peak memory of the KD loss, chunked, {at}", "GB", [ours / 1e9] * rounds, better="lower"
    )
    yield row(f"peak memory of the KD loss, all at once, {at}, by the line through {FEWER[0]} and {FEWER[1]} tokens", "GB",
              [whole / 1e9] * rounds, better="lower")  # fmt: skip
    yield row(
        f"peak memory of the KD loss, all at once / chunked, {at}",
        "ratio",
        [whole / ours] * rounds,
        TARGET,
    )


def peak_of(loss: Callable[..., torch.Tensor], tokens: int, vocabulary: int) -> int:
    """Bytes that a loss and its backward add at most to its inputs'."""
    torch.manual_seed(0)
    student_ND, teacher_ND = (
        torch.randn(tokens, WIDTH, requires_grad=True),
        torch.randn(tokens, WIDTH),
    )
    student_VD, teacher_VD = (
        torch.randn(vocabulary, WIDTH, requires_grad=True),
        torch.randn(vocabulary, WIDTH),
    )
    labels_N = torch.randint(vocabulary, (tokens,))
    with Alive() as counted:
        loss(student_ND, student_VD, teacher_ND, teacher_VD, labels_N).backward()
    return counted.peak


def _chunked(student_ND, student_VD, teacher_ND, teacher_VD, labels_N) -> torch.Tensor:
    soft_targets = formats.Hidden()
    fields = soft_targets.encode(teacher_ND, teacher_VD)

    def of_chunk(logits_CV: torch.Tensor, where: slice) -> torch.Tensor:
        kept = {name: field[where] for name, field in fields.items()}
        divergence = soft_targets.divergence(kept, teacher_VD, logits_CV, TAU, "forward")
        return ALPHA * divergence + (1 - ALPHA) * losses.cross_entropy(logits_CV, labels_N[where])

    return chunked_loss.chunked_loss(student_ND, student_VD, of_chunk)


def _whole(student_ND, student_VD, teacher_ND, teacher_VD, labels_N) -> torch.Tensor:
    """Eq. 2 as one writes it down."""
    student_NV, teacher_NV = student_ND @ student_VD.T, teacher_ND @ teacher_VD.T
    student, teacher = (F.log_softmax(logits / TAU, dim=-1) for logits in (student_NV, teacher_NV))
    kl = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return ALPHA * kl + (1 - ALPHA) * F.cross_entropy(student_NV, labels_N, reduction="sum")


class Alive(TorchDispatchMode):
    """Counts the bytes of storages made under it and not yet freed. What a kernel takes and gives back within one call is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        inputs = {
            _key(part) for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if (
                isinstance(part, torch.Tensor) and _key(part) not in self.known | inputs
            ):  # views and in-place results are not new
                self._born(part.untyped_storage())
        return made

    def _born(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._died, key, size)

    def _died(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
