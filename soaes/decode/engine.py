"""A lean forward for Qwen2, Qwen3 and Llama, with a static key/value cache for each sequence.

With a few layers of a few hundred units, a general forward spends its time outside the matrix
products; this one runs about twenty tensor operations a layer, and its rollback moves a pointer.
Sequences that share the weights can be read together: their new tokens lie one after another in
each product, which reads its matrix once, and each attends to its own cache. Nothing is padded.
Knows sequences and their caches: not sampling, not drafts, not text.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from copy import copy
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from soaes.decode.families import NATIVE_FAMILIES
from soaes.pipeline.private_api import PackedLinear

# T tokens of this forward, of one sequence or of all, L tokens in the cache after it, D head size,
# N all heads of q, k and v, Q query heads, K key heads (of a Matrix: its inputs), H hidden units,
# V vocabulary

BLOCK = range(2, 9)  # tokens of one verification, for which the packed form is made
PACKED_FROM = 1 << 15  # entries of a matrix from which its packed form is the faster one
CACHE_STEP = 256  # the cache grows to multiples of this many tokens


class Matrix:
    """The weight of a product, stored [in, out]: up to twice as fast for one token on a CPU.

    For a block of a few tokens the general product packs the weight anew every time and takes as
    long as 2 to 3 single tokens; oneDNN's, packed once, reads it once. Both read the same numbers
    and differ by rounding alone.

    Args:
        weight_KN: The weight of x W.
    """

    def __init__(self, weight_KN: torch.Tensor) -> None:
        self.plain = weight_KN.contiguous()
        self.packed: PackedLinear | None = None
        on_cpu = weight_KN.device.type == "cpu" and weight_KN.dtype == torch.float32
        is_large = weight_KN.numel() >= PACKED_FROM
        if on_cpu and is_large and torch.backends.mkldnn.is_available():
            self.packed = PackedLinear(weight_KN.t().contiguous(), max(BLOCK))

    def __call__(self, x_TK: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """Return x W, or plus + x W: [T, N]; `plus` is [T, N] or [N]."""
        if self.packed is not None and len(x_TK) in BLOCK:
            out_TN = self.packed(x_TK)
            return out_TN if plus is None else out_TN.add_(plus)
        if plus is None:
            return torch.mm(x_TK, self.plain)
        return torch.addmm(plus, x_TK, self.plain)


class Layer(NamedTuple):
    """One decoder layer: a matrix for each product."""

    qkv: Matrix
    qkv_bias: torch.Tensor | None  # Qwen2 has one
    qk_gain_ND: torch.Tensor | None  # of the norms of each head's q and k, which Qwen3 has
    output: Matrix
    gate_up: Matrix
    down: Matrix


class Window(NamedTuple):
    """Where the new tokens of one sequence stand in its text, and what of its cache they read."""

    num_tokens: int  # new ones
    cache: list[torch.Tensor]  # keys and values of each layer
    cos_T1D: torch.Tensor
    sin_T1D: torch.Tensor
    mask_TL: torch.Tensor | None  # None: one token that sees all, or a prompt from its start
    places: slice | torch.Tensor  # of the new tokens in the cache: a range, or one id a token
    end: int  # tokens of the cache that are read


class Forward(NamedTuple):
    """New tokens that the engine of one sequence is to read."""

    engine: Engine
    ids_T: torch.Tensor
    tail: int  # how many last tokens to return logits for


Result = TypeVar("Result")
Steps = Generator[Forward, torch.Tensor, Result]  # gets the logits_TV of each forward


class Engine:
    """Runs a Hugging Face causal LM of NATIVE_FAMILIES on its own device and in its own dtype.

    It holds one sequence, of which `length` tokens are in the cache. `beside` gives the same model
    with another one.

    Args:
        model: The model.

    Raises:
        ValueError: The forward would not be the model's.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        _check_supported(config)
        self.vocab: int = config.vocab_size
        self.positions: int = config.max_position_embeddings
        self.queries: int = config.num_attention_heads
        self.keys: int = config.num_key_value_heads
        head_size = getattr(config, "head_dim", None)
        self.head_size: int = head_size or config.hidden_size // self.queries
        self.embedding: torch.Tensor = model.model.embed_tokens.weight.detach()
        self.head = Matrix(model.lm_head.weight.detach().t())
        self.norm: torch.Tensor = model.model.norm.weight.detach()
        self.epsilon: float = config.rms_norm_eps
        self.layers = [_fuse(layer, self.queries, self.keys) for layer in model.model.layers]
        self.device = self.embedding.device
        self.dtype = self.embedding.dtype
        self.rotary = model.model.rotary_emb
        # |x| of H units: rms(x) = hypot(|x|, sqrt(H eps)) / sqrt(H); the sqrt(H) and the gain are
        # in the next matrix
        floor = (config.hidden_size * config.rms_norm_eps) ** 0.5
        self.floor = torch.tensor(floor, device=self.device)
        self.length = 0
        self.capacity = 0
        self.num_weights = sum(matrix.plain.numel() for matrix in self.matrices)

    def beside(self) -> Engine:
        """Return an engine over the same weights, for a sequence of its own."""
        other = copy(self)
        other.length = 0
        other.capacity = 0  # `begin` makes its buffers
        return other

    def shares_weights(self, other: Engine) -> bool:
        """Tell whether one forward can read for this engine and another."""
        return self.layers is other.layers

    @property
    def matrices(self) -> list[Matrix]:
        """Every product of a step, in order."""
        matrices = []
        for layer in self.layers:
            matrices += [layer.qkv, layer.output, layer.gate_up, layer.down]
        return [*matrices, self.head]

    def begin(self, needed: int) -> None:
        """Empty the cache and make room for tokens; the buffers are kept and only ever grow.

        Args:
            needed: Tokens of the prompt and its answer.

        Raises:
            ValueError: The model has fewer positions.
        """
        if needed > self.positions:
            raise ValueError(
                f"prompt and new tokens need {needed:,} positions, the model has "
                f"{self.positions:,}; shorten the prompt or lower max_new_tokens"
            )
        self.length = 0
        if needed > self.capacity:
            rounded_up = -(-needed // CACHE_STEP) * CACHE_STEP
            self._allocate(min(self.positions, rounded_up))

    def rollback(self, length: int) -> None:
        """Forget every token after the first `length`.

        What lies behind the pointer is overwritten, never read.
        """
        assert 0 <= length <= self.length, (
            f"rollback to {length} with {self.length} tokens in the cache"
        )
        self.length = length

    def forward(self, ids_T: torch.Tensor, tail: int | None = None) -> torch.Tensor:
        """Append T tokens to the cache.

        Args:
            ids_T: Token ids.
            tail: How many last tokens to return logits for; None: all.

        Returns:
            The logits_TV of the last `tail` tokens.
        """
        forward = Forward(self, ids_T, len(ids_T) if tail is None else tail)
        return self.forward_together([forward])[0]

    @torch.inference_mode()
    def forward_together(self, forwards: Sequence[Forward]) -> Sequence[torch.Tensor]:
        """Append tokens to the caches of several sequences.

        Args:
            forwards: Of engines that share this one's weights, each with a sequence of its own.

        Returns:
            The logits_TV of each.
        """
        windows = [forward.engine._window(len(forward.ids_T)) for forward in forwards]
        ids_T = _joined([forward.ids_T for forward in forwards])
        logits = self._run(ids_T, windows, [forward.tail for forward in forwards])
        for forward, window in zip(forwards, windows):
            forward.engine.length = window.end
        return logits

    def _window(self, count: int) -> Window:
        """The window of the next `count` tokens."""
        end = self.length + count
        assert end <= self.capacity, (
            f"{end} tokens in a cache for {self.capacity}: begin() reserves them"
        )
        return Window(
            num_tokens=count,
            cache=self.cache,
            cos_T1D=self.cos_L1D[self.length : end],
            sin_T1D=self.sin_L1D[self.length : end],
            mask_TL=None if count == 1 or self.length == 0 else self._mask(count, end),
            places=slice(self.length, end),
            end=end,
        )

    def _run(
        self, ids_T: torch.Tensor, windows: list[Window], tails: list[int]
    ) -> Sequence[torch.Tensor]:
        """The forward itself: the logits_TV of each window's last tokens, `tails` of them."""
        counts = [window.num_tokens for window in windows]
        cos_T1D = _joined([window.cos_T1D for window in windows])
        sin_T1D = _joined([window.sin_T1D for window in windows])
        x_TH = F.embedding(ids_T, self.embedding)
        for index, layer in enumerate(self.layers):
            qkv_TND = self._rotated(x_TH, layer, cos_T1D, sin_T1D)
            if len(windows) == 1:
                attended_TN = self._attend(qkv_TND, index, windows[0])
            else:
                parts = qkv_TND.split(counts)
                outputs = [self._attend(part, index, own) for part, own in zip(parts, windows)]
                attended_TN = torch.cat(outputs)
            x_TH = layer.output(attended_TN, x_TH)
            x_TH = self._transform(x_TH, layer)
        if tails != counts:
            ends = zip(_parts(x_TH, counts), tails)
            x_TH = _joined([part_TH[-tail:] for part_TH, tail in ends])
        logits_TV = self.head(F.rms_norm(x_TH, self.norm.shape, self.norm, self.epsilon))
        return _parts(logits_TV, tails)

    def _rotated(
        self, x_TH: torch.Tensor, layer: Layer, cos_T1D: torch.Tensor, sin_T1D: torch.Tensor
    ) -> torch.Tensor:
        """Queries, keys and values of the tokens; queries and keys are turned to their places."""
        size = self.head_size
        qkv_TND = layer.qkv(self._normalise(x_TH), layer.qkv_bias).view(len(x_TH), -1, size)
        rotated_TND = qkv_TND[:, : self.queries + self.keys]
        if layer.qk_gain_ND is not None:
            rotated_TND.copy_(F.rms_norm(rotated_TND, (size,), eps=self.epsilon))
            rotated_TND.mul_(layer.qk_gain_ND)
        # the minus sign of the rotation is in the table
        half_turn_TND = rotated_TND.roll(size // 2, -1)
        rotated_TND.mul_(cos_T1D).addcmul_(half_turn_TND, sin_T1D)
        return qkv_TND

    def _attend(self, qkv_TND: torch.Tensor, layer: int, window: Window) -> torch.Tensor:
        """Write one sequence's keys and values into its cache; return its attention [T, Q * D]."""
        cache_NLD = window.cache[layer]
        new_NTD = qkv_TND[:, self.queries :].transpose(0, 1)
        if isinstance(window.places, slice):
            cache_NLD[:, window.places].copy_(new_NTD)
        else:
            cache_NLD.index_copy_(1, window.places, new_NTD)
        past_1NLD = cache_NLD[None, :, : window.end]
        k_1KLD, v_1KLD = past_1NLD[:, : self.keys], past_1NLD[:, self.keys :]
        return _attention(qkv_TND[:, : self.queries], k_1KLD, v_1KLD, window.mask_TL)

    def _transform(self, x_TH: torch.Tensor, layer: Layer) -> torch.Tensor:
        """x_TH plus the layer's feed-forward."""
        gate, up = layer.gate_up(self._normalise(x_TH)).chunk(2, -1)
        return layer.down(F.silu(gate).mul_(up), x_TH)

    def _normalise(self, x_TH: torch.Tensor) -> torch.Tensor:
        """x / hypot(|x|, sqrt(H eps)): RMS norm but for the factor and gain in the next matrix."""
        norm_T1 = torch.linalg.vector_norm(x_TH, dim=-1, keepdim=True, dtype=torch.float32)
        return (x_TH / norm_T1.hypot_(self.floor)).to(self.dtype)

    def _mask(self, count: int, end: int) -> torch.Tensor:
        """The mask_TL of a block: row t of a forward that starts at `length` sees columns up to
        length + t. A slice of one band, cut at the right column.
        """
        if count not in self.bands:
            width = self.capacity + count
            ones = torch.ones(count, width, device=self.device, dtype=torch.bool)
            band = ones.tril_(self.capacity)
            zeros = torch.zeros_like(band, dtype=self.dtype)
            self.bands[count] = zeros.masked_fill_(~band, float("-inf"))
        start = self.capacity - self.length
        return self.bands[count][:, start : start + end]

    @torch.inference_mode()
    def _allocate(self, capacity: int) -> None:
        """Make buffers for `capacity` tokens: keys and values, rotary tables, masks by need."""
        self.capacity = capacity
        self.bands: dict[int, torch.Tensor] = {}
        shape = (2 * self.keys, capacity, self.head_size)
        self.cache = [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in self.layers]
        positions = torch.arange(capacity, device=self.device)[None]
        like = torch.empty(0, device=self.device, dtype=self.dtype)
        cos_1LD, sin_1LD = self.rotary(like, positions)
        half = self.head_size // 2
        self.cos_L1D = cos_1LD[0, :, None]
        signed_1LD = torch.cat([-sin_1LD[..., :half], sin_1LD[..., half:]], -1)
        self.sin_L1D = signed_1LD[0, :, None]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """One tensor of the parts of all sequences; a single one's is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _parts(rows: torch.Tensor, counts: list[int]) -> Sequence[torch.Tensor]:
    """The part of each sequence, views of one tensor."""
    return [rows] if len(counts) == 1 else rows.split(counts)


def _attention(
    q_TQD: torch.Tensor,
    k_1KLD: torch.Tensor,
    v_1KLD: torch.Tensor,
    mask_TL: torch.Tensor | None,
) -> torch.Tensor:
    """Softmax attention of T queries: [T, Q * D].

    No mask: one query that sees all, or a prompt from its start.
    """
    count, keys = len(q_TQD), k_1KLD.shape[1]
    if count == 1:
        # the queries that share a key head stand in for positions: no copy of keys
        q = q_TQD.view(1, keys, -1, q_TQD.shape[-1])
        out = F.scaled_dot_product_attention(q, k_1KLD, v_1KLD, attn_mask=mask_TL)
        return out.reshape(1, -1)
    if mask_TL is not None and q_TQD.is_cuda:
        return _masked_attention(q_TQD, k_1KLD, v_1KLD, mask_TL)
    q = q_TQD.transpose(0, 1)[None]
    out = F.scaled_dot_product_attention(
        q, k_1KLD, v_1KLD, attn_mask=mask_TL, is_causal=mask_TL is None, enable_gqa=True
    )
    return out[0].transpose(0, 1).reshape(count, -1)


def _masked_attention(
    q_TQD: torch.Tensor, k_1KLD: torch.Tensor, v_1KLD: torch.Tensor, mask_TL: torch.Tensor
) -> torch.Tensor:
    """Attention of a block, as `_attention`; the queries of a key head stand in for positions.

    A GPU's memory-efficient kernel takes a mask only with as many key heads as query heads, and at
    an aligned address, which a slice of the band may not have: the mask is copied.
    """
    count, queries, size = q_TQD.shape
    keys = k_1KLD.shape[1]
    group = queries // keys
    grouped = q_TQD.view(count, keys, group, size).permute(1, 2, 0, 3)
    q = grouped.reshape(1, keys, group * count, size)
    out = F.scaled_dot_product_attention(q, k_1KLD, v_1KLD, attn_mask=mask_TL.repeat(group, 1))
    return out.view(keys, group, count, size).permute(2, 0, 1, 3).reshape(count, -1)


@torch.no_grad()
def _fuse(layer: Any, queries: int, keys: int) -> Layer:
    """One layer's matrices; the gain of the norm before each is folded into its input side.

    Args:
        layer: A decoder layer of transformers.
        queries, keys: Its heads.
    """
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    biases = [projection.bias for projection in projections]
    feed_forward = [mlp.gate_proj.weight, mlp.up_proj.weight]
    gain = None
    if hasattr(attention, "q_norm"):
        q_ND = attention.q_norm.weight.expand(queries, -1)
        k_ND = attention.k_norm.weight.expand(keys, -1)
        gain = torch.cat([q_ND, k_ND])
    return Layer(
        qkv=_fold([projection.weight for projection in projections], layer.input_layernorm.weight),
        qkv_bias=torch.cat(biases) if biases[0] is not None else None,
        qk_gain_ND=gain,
        output=Matrix(attention.o_proj.weight.detach().t()),
        gate_up=_fold(feed_forward, layer.post_attention_layernorm.weight),
        down=Matrix(mlp.down_proj.weight.detach().t()),
    )


def _fold(weights: list[torch.Tensor], gain_H: torch.Tensor) -> Matrix:
    """Weights [out, H] side by side, times the gain and sqrt(H) of the norm before them."""
    folded = torch.cat(weights).float() * gain_H.float() * len(gain_H) ** 0.5
    return Matrix(folded.to(gain_H.dtype).t())


def _check_supported(config: Any) -> None:
    """Refuse what the forward above would run and get silently wrong."""
    other_layers = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    activation = getattr(config, "hidden_act", None)  # other families have other names for it
    if config.model_type not in NATIVE_FAMILIES or activation != "silu" or other_layers:
        raise ValueError(
            f"model type {config.model_type!r} with activation {activation!r} and layers "
            f"{sorted(other_layers)}: our own decoding runs {', '.join(NATIVE_FAMILIES)} with silu "
            "and full attention; set backend=transformers speed.prediction=null, or use such a "
            "checkpoint"
        )
    biased = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    if biased:
        raise ValueError(
            f"{biased[0]}=true: our own decoding has no bias behind attention and feed-forward; "
            "set backend=transformers speed.prediction=null, or use a checkpoint without it"
        )
    rope_type = config.rope_parameters["rope_type"]
    if rope_type in ("dynamic", "longrope"):
        raise ValueError(
            f"rope type {rope_type!r} changes earlier keys as the text grows; "
            "use default, linear, yarn or llama3"
        )
