"""What training and running a language model costs: bytes by part, FLOPs, seconds.

Pure functions of a shape and of how it is run. Every result is in bytes, FLOPs or seconds. Bytes a
parameter or a unit that no definition gives were fitted to training steps of real Qwen2.5 shapes
at few layers, run under FakeTensorMode with torch's own memory trackers; the nightly test
tests/bill/test_fake_steps.py repeats such steps. Imports no torch.

# P parameters, L layers, D width, F width of the feed-forward layers, V vocabulary
# T tokens that a device computes at once, W devices
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from soaes.bill.shape import ModelShape

FLOAT32 = 4  # bytes
BFLOAT16 = 2
MOMENTS = 2 * FLOAT32  # of AdamW, bytes a parameter

# The output head's loss is computed for so many tokens at once (soaes.model.chunked_loss.CHUNK).
LOSS_CHUNK = 256

# Arrays of logits' size, in float32, that a chunk of the loss holds at once: the logits, their
# softmax and its gradient; in distillation the teacher's as well.
CE_ARRAYS = 3
KD_ARRAYS = 6

# Where weights lie in shares: bytes that a layer's backward pass holds for each parameter of the
# layer and of an embedding matrix, which are gathered weights and gradients under way. Fitted,
# with LAYER_SHARDED, to six steps of 7B and 72B under FSDP2 in bfloat16, within .1 %; steps of 3B,
# to which they were not fitted, are within 3 %.
GATHERED_LAYER = 6.72
GATHERED_MATRIX = 5.03


class PerToken(NamedTuple):
    """Bytes a token for each unit of the width, and for each of the feed-forward width."""

    width: float
    mlp: float

    def bytes(self, shape: ModelShape) -> float:
        """Return the bytes a token of one layer of a shape."""
        return self.width * shape.width + self.mlp * shape.mlp_width


# What the backward pass of one layer holds beside what is kept of the others.
LAYER_SHARDED = PerToken(15.05, 16.43)  # in bfloat16, sdpa with its mask
LAYER_WHOLE = {BFLOAT16: PerToken(33, 16.43), FLOAT32: PerToken(18, 16)}  # autocast; float32

# What a layer keeps for its backward pass without gradient checkpointing. Under autocast the
# residual stream and the norms are float32.
KEPT = {BFLOAT16: PerToken(33, 8), FLOAT32: PerToken(40, 16)}

# Arrays of float32 of all tokens and the width that the loss holds: final hidden states, their
# norm, and their gradients.
LOSS_STATES = 4.5


@dataclass(frozen=True)
class Sharding:
    """How the states of training lie on devices."""

    kind: Literal["whole", "ddp", "zero3", "fsdp2"] = "whole"
    """Whole on one device or on each (ddp), or in shares (DeepSpeed's ZeRO-3, torch's FSDP2)."""

    devices: int = 1
    """Devices of a stage, W."""

    offload_optimizer: bool = False
    """AdamW's state and its float32 weights lie in the memory of the host."""

    @property
    def cuts_weights(self) -> bool:
        """Whether a device holds only its share of the weights."""
        return self.kind in ("zero3", "fsdp2")


@dataclass(frozen=True)
class States:
    """Bytes of a training's states: those of one device, and those of the host."""

    weights: float
    gradients: float
    optimizer: float
    host: float = 0.0

    @property
    def on_device(self) -> float:
        """Bytes on each device."""
        return self.weights + self.gradients + self.optimizer


def training_states(
    parameters: int, sharding: Sharding, adapters: int = 0, bytes_per_value: int = BFLOAT16
) -> States:
    """Return the bytes of weights, gradients and AdamW's state.

    Weights, gradients and both moments are float32: 16 bytes a parameter. DistributedDataParallel
    reduces gradients in buckets, a second copy of them. ZeRO-3 holds the weights that compute
    beside those that learn; in bfloat16 that makes 18 bytes a parameter, as DeepSpeed's own
    estimators count (deepspeed.runtime.zero.stage3, without their factor for host buffers).

    With ZeRO-3's offload the host holds 20 bytes a parameter, of which its estimators count 16:
    DeepSpeed 0.19.8 also keeps there the buffer in which gradients of micro-batches are added up
    (`grad_partitions_flat_buffer` of its stage3.py), which is float32 here.

    Args:
        parameters: P.
        sharding: How they lie on devices.
        adapters: Parameters of LoRA, which alone are trained then; 0: all are.
        bytes_per_value: Of the arithmetic.
    """
    share = parameters / sharding.devices
    if sharding.kind == "zero3":
        weights = bytes_per_value * share
        if sharding.offload_optimizer:  # weights, gradients, and gradients that are added up
            return States(weights, 0, 0, host=(3 * FLOAT32 + MOMENTS) * parameters)
        return States(weights, FLOAT32 * share, (FLOAT32 + MOMENTS) * share)
    if sharding.kind == "fsdp2":
        if sharding.offload_optimizer:
            return States(0, 0, 0, host=(2 * FLOAT32 + MOMENTS) * parameters)
        return States(FLOAT32 * share, FLOAT32 * share, MOMENTS * share)
    trained = adapters or parameters
    gradients = float(FLOAT32 * trained)
    if sharding.kind == "ddp":
        gradients *= 2
    return States(FLOAT32 * (parameters + adapters), gradients, MOMENTS * trained)


@dataclass(frozen=True)
class Step:
    """A training step as one device computes it."""

    tokens: int
    """Of a micro-batch, T."""

    context: int
    """Tokens of a row."""

    micro_batches: int = 1
    """Micro-batches of a step; the gradients of earlier ones wait while a later one runs."""

    bytes_per_value: int = BFLOAT16
    """Of the arithmetic: 2 under bf16-mixed and 16-mixed, 4 under 32-true."""

    checkpointing: bool = True
    """Activations are recomputed in the backward pass."""

    attention: str = "sdpa"
    """As in runtime.execution.attention."""

    teacher_width: int | None = None
    """In distillation from hidden states the teacher's width, whose output matrix is held."""

    distils: bool = False
    """The loss compares with a teacher's soft targets."""

    adapters: int = 0
    """Parameters of LoRA, which alone are trained then; 0: all are."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one device at its peak, by part, and those of the host."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    kv_cache: float = 0.0
    host: float = 0.0

    @property
    def device(self) -> float:
        """Bytes of one device in all."""
        states = self.weights + self.gradients + self.optimizer
        return states + self.activations + self.logits + self.kv_cache

    def __add__(self, other: Memory) -> Memory:
        """Return the bytes of both on one device, part by part."""
        parts = {name: part + getattr(other, name) for name, part in vars(self).items()}
        return Memory(**parts)


def training_memory(shape: ModelShape, sharding: Sharding, step: Step) -> Memory:
    """Return the peak of a training step.

    It is reached at the loss, whose chunk holds arrays of logits' size, or in the backward pass of
    a layer. At the last layer every layer's kept activations are still there, at the first all
    gradients are; from the second micro-batch on both come together.

    Args:
        shape: The model.
        sharding: How its states lie on devices.
        step: What a device computes.
    """
    states = training_states(shape.parameters, sharding, step.adapters, step.bytes_per_value)
    activations = kept_activations(shape, sharding, step)
    logits = float(FLOAT32 * shape.matrix_parameters)  # the head's gradient, held until it is added
    if sharding.cuts_weights:
        logits = GATHERED_MATRIX * shape.matrix_parameters
    if step.micro_batches == 1:  # no gradients of an earlier one
        activations = max(0.0, activations - states.gradients)
        if not sharding.cuts_weights:  # it is the gradient
            logits = 0.0
    if step.adapters:  # the head is frozen
        logits = 0.0
    at_loss = loss_peak(shape, sharding, step)
    in_layer = layer_peak(shape, sharding, step)
    if at_loss > in_layer:
        logits += at_loss
    else:
        activations += in_layer
    if step.teacher_width:
        logits += FLOAT32 * shape.vocabulary * step.teacher_width
    return Memory(
        weights=states.weights,
        gradients=states.gradients,
        optimizer=states.optimizer,
        activations=activations,
        logits=logits,
        host=states.host,
    )


def kept_activations(shape: ModelShape, sharding: Sharding, step: Step) -> float:
    """Return the bytes that the forward pass keeps for the backward pass, over all layers.

    Under gradient checkpointing each layer keeps its input alone, which autocast leaves in float32.
    """
    if step.checkpointing:
        value = step.bytes_per_value if sharding.cuts_weights else FLOAT32
        layer = float(shape.width * value)
    else:
        layer = KEPT[step.bytes_per_value].bytes(shape) + _scores(shape, step)
    kept = shape.layers * step.tokens * layer
    if step.adapters and not step.checkpointing:
        kept += shape.layers * _cast_layer(shape, step)
    return kept


def _cast_layer(shape: ModelShape, step: Step) -> float:
    """Return the bytes of a layer's frozen weights in the type of the arithmetic.

    Autocast casts them at each use, and the backward pass needs what was cast.
    """
    return float(BFLOAT16 * shape.layer_parameters) if step.bytes_per_value == BFLOAT16 else 0.0


def _scores(shape: ModelShape, step: Step) -> float:
    """Return the bytes a token of what one layer's attention keeps of a row's other tokens.

    `documents` keeps the weights of earlier tokens of the document, at most half a row; `eager`
    keeps those of all of a row, before and after the softmax; `sdpa` keeps its mask as a number for
    each pair of tokens. Flash attention keeps nothing.
    """
    mask = float(step.context * step.bytes_per_value)
    weights = shape.heads * mask
    return {"documents": weights / 2, "eager": 2 * weights, "sdpa": mask}.get(step.attention, 0.0)


def layer_peak(shape: ModelShape, sharding: Sharding, step: Step) -> float:
    """Return the bytes of one layer's backward pass, beside states and kept activations."""
    token = LAYER_WHOLE[step.bytes_per_value].bytes(shape)
    gathered = 0.0
    if sharding.cuts_weights:
        token = LAYER_SHARDED.bytes(shape) * step.bytes_per_value / BFLOAT16
        gathered = GATHERED_LAYER * shape.layer_parameters
    if step.checkpointing:
        token += _scores(shape, step)
        gathered += _cast_layer(shape, step) if step.adapters else 0.0
    else:  # what the layer itself has kept is counted among the kept activations
        token = max(0.0, token - KEPT[step.bytes_per_value].bytes(shape))
    return step.tokens * token + gathered


def loss_peak(shape: ModelShape, sharding: Sharding, step: Step) -> float:
    """Return the bytes of the loss beside the head's gradient, states and kept activations.

    They are arrays of logits; in bfloat16 also a copy of the output matrix, and a product of its
    size that is added to the gradient. Autocast holds copies of all trained weights of the layers
    until the forward pass is over.
    """
    arrays = KD_ARRAYS if step.distils else CE_ARRAYS
    tokens = min(LOSS_CHUNK, step.tokens)
    peak = float(FLOAT32 * arrays * tokens * shape.vocabulary)
    if step.bytes_per_value == BFLOAT16:
        matrix = BFLOAT16 * shape.matrix_parameters
        if step.adapters:
            peak += matrix
        else:
            peak = matrix + max(peak, matrix + BFLOAT16 * tokens * shape.vocabulary)
        if not step.adapters and not sharding.cuts_weights:
            peak += BFLOAT16 * shape.layers * shape.layer_parameters
    return peak + LOSS_STATES * FLOAT32 * step.tokens * shape.width


# ------------------------------------------------------------------------- reading, not training


def cached_token(shape: ModelShape, bytes_per_value: int) -> int:
    """Return the bytes of one token in the KV cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * bytes_per_value


def inference_memory(
    shape: ModelShape, bytes_per_value: int, tokens: int, cached_tokens: int, logits: int = 0
) -> Memory:
    """Return the bytes of a model that reads or writes text, whole on one device.

    Args:
        shape: The model.
        bytes_per_value: Of its weights, activations and cache.
        tokens: Tokens of a forward pass at once.
        cached_tokens: Tokens in the KV cache.
        logits: Tokens whose logits are held at once, in float32.
    """
    activations = tokens * (4 * shape.width + 3 * shape.mlp_width) * bytes_per_value
    return Memory(
        weights=bytes_per_value * shape.parameters,
        activations=activations,
        logits=2 * FLOAT32 * logits * shape.vocabulary,
        kv_cache=cached_tokens * cached_token(shape, bytes_per_value),
    )


# -------------------------------------------------------------------------------- FLOPs and time


def forward_flops(shape: ModelShape, context: int) -> float:
    """Return the FLOPs of one token's forward pass.

    Two for each parameter in a matrix (embeddings are looked up), and the attention's two products
    with half a context of earlier tokens (Kaplan et al. 2020, table 1).
    """
    matrices = shape.layers * shape.layer_parameters + shape.matrix_parameters
    attention = shape.layers * shape.heads * shape.head_width * context / 2
    return 2 * matrices + 4 * attention


def training_flops(shape: ModelShape, context: int, adapters: int = 0) -> float:
    """Return the FLOPs of one token, forward and backward, without what is recomputed.

    Args:
        shape: The model.
        context: Tokens of a row.
        adapters: Parameters of LoRA, beside which frozen weights have no gradient; 0: none.
    """
    flops = 3 * forward_flops(shape, context)
    if adapters:
        matrices = shape.layers * shape.layer_parameters + shape.matrix_parameters
        flops += 6 * adapters - 2 * matrices
    return flops


def seconds(flops: float, devices: int, peak_flops: float, utilisation: float) -> float:
    """Return the seconds of so many FLOPs at a stated utilisation of the devices' peak."""
    return flops / (devices * peak_flops * utilisation)


def decoding_seconds(
    shape: ModelShape, steps: int, bytes_per_value: int, bandwidth: float
) -> float:
    """Return the seconds in which the weights are read once for every decoding step.

    Args:
        shape: The model.
        steps: Forward passes, each of one new token a sequence.
        bytes_per_value: Of the weights.
        bandwidth: Of the device's memory, bytes a second.
    """
    return steps * bytes_per_value * shape.parameters / bandwidth


# ------------------------------------------------------------------------------------------ disk


def checkpoint_bytes(trained: int) -> int:
    """Return the bytes of a resume checkpoint: float32 weights that are trained, both moments."""
    return (FLOAT32 + MOMENTS) * trained


def folder_bytes(shape: ModelShape, bytes_per_value: int = FLOAT32) -> int:
    """Return the bytes of a model's folder; training stages save in their parent's type."""
    return bytes_per_value * shape.parameters
