"""Peak memory of the distillation loss with its backward pass, in chunks and all at once.

Counts the bytes of live tensors, on a GPU by its allocator; nothing is timed. Inputs are not
counted, gradients of inputs are, on both sides. Knows losses, not models.

# N tokens, D width, V vocabulary"""

from __future__ import annotations

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

TOKENS = 8192  # of a row at the paper's scale
VOCABULARY = 152_064  # the paper's
WIDTH = 64  # of a narrow model: the width does not matter here
FEWER = (128, 256)  # tokens for the loss all at once: at 8,192 it would take tens of gigabytes
ALPHA, TAU = 0.5, 2.0
TARGET = 8.0

Loss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor
]


def results(
    rounds: int,
    tokens: int = TOKENS,
    vocabulary: int = VOCABULARY,
    width: int = WIDTH,
    fewer: tuple[int, int] = FEWER,
    device: str = "cpu",
    target: float | None = TARGET,
) -> Iterator[dict]:
    """Yield both peaks in GB and their ratio. Counts are the same in every round."""
    chunked = peak_memory(chunked_kd_loss, tokens, vocabulary, width, device)
    few, more = fewer
    peak_few = peak_memory(plain_kd_loss, few, vocabulary, width, device)
    peak_more = peak_memory(plain_kd_loss, more, vocabulary, width, device)
    bytes_per_token = (peak_more - peak_few) / (more - few)
    plain = peak_few + bytes_per_token * (tokens - few)  # the line through both counts
    setting = f"{tokens:,} tokens, vocabulary {vocabulary:,}"
    if width != WIDTH:
        setting += f", width {width:,}"
    line = f"by the line through {few} and {more} tokens"
    loss = "peak memory of the KD loss"
    ours, theirs = [chunked / 1e9] * rounds, [plain / 1e9] * rounds
    ratios = [plain / chunked] * rounds
    yield row(f"{loss}, chunked, {setting}", "GB", ours, better="lower")
    yield row(f"{loss}, all at once, {setting}, {line}", "GB", theirs, better="lower")
    yield row(f"{loss}, all at once / chunked, {setting}", "ratio", ratios, target)


def peak_memory(
    loss: Loss, tokens: int, vocabulary: int, width: int = WIDTH, device: str = "cpu"
) -> int:
    """Return the bytes that a loss and its backward pass add at most to those of its inputs."""
    torch.manual_seed(0)
    student_ND = torch.randn(tokens, width, device=device, requires_grad=True)
    teacher_ND = torch.randn(tokens, width, device=device)
    student_VD = torch.randn(vocabulary, width, device=device, requires_grad=True)
    teacher_VD = torch.randn(vocabulary, width, device=device)
    labels_N = torch.randint(vocabulary, (tokens,), device=device)
    with LiveMemory() if device == "cpu" else AllocatedMemory() as memory:
        loss(student_ND, student_VD, teacher_ND, teacher_VD, labels_N).backward()
    return memory.peak


def chunked_kd_loss(
    student_ND: torch.Tensor,
    student_VD: torch.Tensor,
    teacher_ND: torch.Tensor,
    teacher_VD: torch.Tensor,
    labels_N: torch.Tensor,
) -> torch.Tensor:
    """Return Eq. 2 summed over the tokens, as `soaes.model.chunked_loss` computes it."""
    soft_targets = formats.Hidden()
    fields = soft_targets.encode(teacher_ND, teacher_VD)

    def chunk_loss(logits_CV: torch.Tensor, chunk: slice) -> torch.Tensor:
        targets = {name: field[chunk] for name, field in fields.items()}
        divergence = soft_targets.divergence(targets, teacher_VD, logits_CV, TAU, "forward")
        cross_entropy = losses.cross_entropy(logits_CV, labels_N[chunk])
        return ALPHA * divergence + (1 - ALPHA) * cross_entropy

    return chunked_loss.chunked_loss(student_ND, student_VD, chunk_loss)


def plain_kd_loss(
    student_ND: torch.Tensor,
    student_VD: torch.Tensor,
    teacher_ND: torch.Tensor,
    teacher_VD: torch.Tensor,
    labels_N: torch.Tensor,
) -> torch.Tensor:
    """Return Eq. 2 summed over the tokens, written as in a textbook."""
    student_NV, teacher_NV = student_ND @ student_VD.T, teacher_ND @ teacher_VD.T
    student = F.log_softmax(student_NV / TAU, dim=-1)
    teacher = F.log_softmax(teacher_NV / TAU, dim=-1)
    kl = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return ALPHA * kl + (1 - ALPHA) * F.cross_entropy(student_NV, labels_N, reduction="sum")


class AllocatedMemory:
    """The bytes that a GPU's allocator gives out inside it, within kernels too."""

    peak: int

    def __enter__(self) -> AllocatedMemory:
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error: object) -> None:
        self.peak = torch.cuda.max_memory_allocated() - self.before


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of storages that are created inside it and not yet freed.

    Memory that a kernel allocates and frees within one call is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.peak = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        inputs = {_key(tensor) for tensor in _tensors((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        for tensor in _tensors(outputs):
            if _key(tensor) not in self.known | inputs:  # views and in-place results are not new
                self._allocate(tensor.untyped_storage())
        return outputs

    def _allocate(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
