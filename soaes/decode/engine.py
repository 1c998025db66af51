"""A lean forward for the Qwen2 family at batch size 1, with a static key/value cache whose rollback moves a pointer.

At a few layers of a few hundred units a general forward spends its time outside the matrix products; this one runs
about twenty tensor operations a layer. Knows one sequence and its cache: not sampling, not drafts, not text.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from soaes.pipeline.private_api import PackedLinear

# T tokens of this forward, L tokens in the cache after it, D head size, N all heads, Q query heads, K key heads,
# H hidden units, V vocabulary


BLOCK = range(2, 9)  # tokens of one verification, for which the packed form is made
WORTH = 1 << 15  # entries of a matrix from which its packed form is the faster one


class Matrix:
    """The weight of a product, stored [in, out]: up to twice as fast for one token on a CPU as [out, in].

    For a block of a few tokens the general product repacks it every time and takes as long as 2 to 3 single tokens;
    oneDNN's, packed once, reads it once. Both read the same numbers and differ by rounding alone."""

    def __init__(self, weight_KN: torch.Tensor):
        self.plain, self.packed = weight_KN.contiguous(), None
        on_cpu = weight_KN.device.type == "cpu" and weight_KN.dtype == torch.float32
        if on_cpu and weight_KN.numel() >= WORTH and torch.backends.mkldnn.is_available():
            self.packed = PackedLinear(weight_KN.t().contiguous(), max(BLOCK))

    def __call__(self, x_TK: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
        """x W, or plus + x W: [T, N]; `plus` is [T, N] or [N]."""
        if self.packed is None or len(x_TK) not in BLOCK:
            return (
                torch.mm(x_TK, self.plain) if plus is None else torch.addmm(plus, x_TK, self.plain)
            )
        out_TN = self.packed(x_TK)
        return out_TN if plus is None else out_TN.add_(plus)


class Layer(NamedTuple):
    """One decoder layer, a matrix for each product."""

    qkv: Matrix
    qkv_bias: torch.Tensor
    output: Matrix
    gate_up: Matrix
    down: Matrix


class Engine:
    """Runs a Hugging Face Qwen2 causal LM on its own device and in its own dtype; `length` tokens are in the cache."""

    def __init__(self, model):
        config = model.config
        _refuse_unknown(config)
        self.vocab = config.vocab_size
        self.positions = config.max_position_embeddings
        self.queries, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.queries
        self.embedding, self.head = (
            model.model.embed_tokens.weight.detach(),
            Matrix(model.lm_head.weight.detach().t()),
        )
        self.norm, self.epsilon = model.model.norm.weight.detach(), config.rms_norm_eps
        self.layers = [_fuse(layer) for layer in model.model.layers]
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        self.rotary = model.model.rotary_emb
        # |x| of H units: rms(x) = hypot(|x|, sqrt(H eps)) / sqrt(H); the sqrt(H) and the gain are in the next matrix
        self.floor = torch.tensor(
            (config.hidden_size * config.rms_norm_eps) ** 0.5, device=self.device
        )
        self.length = self.capacity = 0

    @property
    def matrices(self) -> list[Matrix]:
        """Every product of a step, in order."""
        return [
            matrix
            for layer in self.layers
            for matrix in (layer.qkv, layer.output, layer.gate_up, layer.down)
        ] + [self.head]

    def begin(self, needed: int) -> None:
        """Empty the cache and make room for `needed` tokens; the buffers are kept and only ever grow."""
        if needed > self.positions:
            raise ValueError(
                f"prompt and new tokens need {needed:,} positions, the model has {self.positions:,}; "
                "shorten the prompt or lower max_new_tokens"
            )
        self.length = 0
        if needed > self.capacity:
            self._allocate(min(self.positions, -(-needed // 256) * 256))

    def rollback(self, length: int) -> None:
        """Forget every token after the first `length`: what lies behind the pointer is overwritten, never read."""
        assert 0 <= length <= self.length, (
            f"rollback to {length} with {self.length} tokens in the cache"
        )
        self.length = length

    @torch.inference_mode()
    def forward(self, ids_T: torch.Tensor, tail: int | None = None) -> torch.Tensor:
        """Append T tokens to the cache; the logits_TV of the last `tail` of them (of all, by default)."""
        count, end = len(ids_T), self.length + len(ids_T)
        assert end <= self.capacity, (
            f"{end} tokens in a cache for {self.capacity}: begin() reserves them"
        )
        cos_T1D, sin_T1D = self.cos_L1D[self.length : end], self.sin_L1D[self.length : end]
        mask_TL = None if count == 1 or self.length == 0 else self._mask(count, end)
        x_TH = F.embedding(ids_T, self.embedding)
        for layer, cache_NLD in zip(self.layers, self.cache):
            x_TH = self._attend(x_TH, layer, cache_NLD, cos_T1D, sin_T1D, mask_TL, end)
            x_TH = self._transform(x_TH, layer)
        self.length = end
        x_TH = x_TH if tail is None or tail == count else x_TH[count - tail :]
        return self.head(F.rms_norm(x_TH, self.norm.shape, self.norm, self.epsilon))

    def _attend(self, x_TH, layer, cache_NLD, cos_T1D, sin_T1D, mask_TL, end):
        count, queries, size = len(x_TH), self.queries, self.head_size
        qkv_TND = layer.qkv(self._normalise(x_TH), layer.qkv_bias).view(count, -1, size)
        turned_TND = qkv_TND[:, : queries + self.keys]
        half_turn_TND = turned_TND.roll(
            size // 2, -1
        )  # the minus sign of the rotation is in the table
        turned_TND.mul_(cos_T1D).addcmul_(half_turn_TND, sin_T1D)
        cache_NLD[:, self.length : end].copy_(qkv_TND[:, queries:].transpose(0, 1))
        past_1NLD = cache_NLD[None, :, :end]
        mixed = _attention(
            qkv_TND[:, :queries], past_1NLD[:, : self.keys], past_1NLD[:, self.keys :], mask_TL
        )
        return layer.output(mixed, x_TH)

    def _transform(self, x_TH, layer):
        gate, up = layer.gate_up(self._normalise(x_TH)).chunk(2, -1)
        return layer.down(F.silu(gate).mul_(up), x_TH)

    def _normalise(self, x_TH):
        norm_T1 = torch.linalg.vector_norm(x_TH, dim=-1, keepdim=True, dtype=torch.float32)
        return (x_TH / norm_T1.hypot_(self.floor)).to(self.dtype)

    def _mask(self, count, end):
        # row t of a forward that starts at `length` sees columns 0 .. length + t: one band, cut at the right column
        if count not in self.bands:
            band = torch.ones(
                count, self.capacity + count, device=self.device, dtype=torch.bool
            ).tril_(self.capacity)
            self.bands[count] = torch.zeros_like(band, dtype=self.dtype).masked_fill_(
                ~band, float("-inf")
            )
        return self.bands[count][:, self.capacity - self.length : self.capacity - self.length + end]

    @torch.inference_mode()
    def _allocate(self, capacity):
        self.capacity, self.bands = capacity, {}
        shape = (2 * self.keys, capacity, self.head_size)
        self.cache = [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in self.layers]
        positions = torch.arange(capacity, device=self.device)[None]
        cos_1LD, sin_1LD = self.rotary(
            torch.empty(0, device=self.device, dtype=self.dtype), positions
        )
        half = self.head_size // 2
        self.cos_L1D = cos_1LD[0, :, None]
        self.sin_L1D = torch.cat([-sin_1LD[..., :half], sin_1LD[..., half:]], -1)[0, :, None]


def _attention(q_TQD, k_1KLD, v_1KLD, mask_TL):
    """Softmax attention of T queries: [T, Q * D]. No mask: one query that sees all, or a prompt from its start."""
    count, keys = len(q_TQD), k_1KLD.shape[1]
    if (
        count == 1
    ):  # the queries that share a key head stand in for positions: no copy of keys, no mask
        q = q_TQD.view(1, keys, -1, q_TQD.shape[-1])
        return F.scaled_dot_product_attention(q, k_1KLD, v_1KLD).reshape(1, -1)
    q = q_TQD.transpose(0, 1)[None]
    out = F.scaled_dot_product_attention(
        q, k_1KLD, v_1KLD, attn_mask=mask_TL, is_causal=mask_TL is None, enable_gqa=True
    )
    return out[0].transpose(0, 1).reshape(count, -1)


@torch.no_grad()
def _fuse(layer) -> Layer:
    """One layer's matrices; the gain of the norm before each, times sqrt(H), is folded into its input side."""
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj]
    return Layer(
        qkv=_fold([p.weight for p in projections], layer.input_layernorm.weight),
        qkv_bias=torch.cat([p.bias for p in projections]),
        output=Matrix(attention.o_proj.weight.detach().t()),
        gate_up=_fold(
            [mlp.gate_proj.weight, mlp.up_proj.weight], layer.post_attention_layernorm.weight
        ),
        down=Matrix(mlp.down_proj.weight.detach().t()),
    )


def _fold(weights, gain_H):
    return Matrix(
        (torch.cat(weights).float() * gain_H.float() * len(gain_H) ** 0.5).to(gain_H.dtype).t()
    )


def _refuse_unknown(config) -> None:
    """The forward above is Qwen2's; anything else would run and be silently wrong."""
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if config.model_type != "qwen2" or config.hidden_act != "silu" or kinds:
        raise ValueError(
            f"model type {config.model_type!r} with activation {config.hidden_act!r} and layers {sorted(kinds)}: "
            "decoding runs the qwen2 family with silu and full attention; use such a checkpoint"
        )
    if config.rope_parameters["rope_type"] in ("dynamic", "longrope"):
        raise ValueError(
            f"rope type {config.rope_parameters['rope_type']!r} changes earlier keys as the text grows; "
            "use default, linear, yarn or llama3"
        )
