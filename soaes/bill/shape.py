"""The shape of a language model, which decides what it costs, read without its weights.

A shape is what a Hugging Face `config.json` says. Those of Qwen2.5 are kept in `shapes/`, in
config.json's own words, so that a plan needs no download. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from soaes.pipeline.store import read_json

SHAPES = Path(__file__).parent / "shapes"

# Chat models of Qwen2.5 have the shape of the base model that they were trained from.
CHAT_SUFFIX = "-Instruct"

# Model types whose layers are what `ModelShape` counts, and whether q, k and v have biases.
QKV_BIAS = {"qwen2": True, "qwen3": False, "llama": False, "mistral": False}


@dataclass(frozen=True)
class ModelShape:
    """The shape of a decoder with grouped-query attention and SwiGLU layers."""

    layers: int
    """Transformer layers, L."""

    width: int
    """Hidden size, D."""

    heads: int
    """Query heads."""

    kv_heads: int
    """Key and value heads, K."""

    head_width: int
    """Size of a head, d."""

    mlp_width: int
    """Width of the feed-forward layers, F."""

    vocabulary: int
    """Rows of the embedding, V."""

    tied: bool = False
    """The output matrix is the embedding."""

    qkv_bias: bool = True
    """Queries, keys and values have biases (Qwen2)."""

    qk_norm: bool = False
    """Queries and keys are normalised (Qwen3)."""

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: four attention matrices, three of the SwiGLU, two norms."""
        query_width = self.heads * self.head_width
        key_width = self.kv_heads * self.head_width
        attention = 2 * self.width * (query_width + key_width)
        biases = (query_width + 2 * key_width) * self.qkv_bias
        norms = 2 * self.width + 2 * self.head_width * self.qk_norm
        return attention + 3 * self.width * self.mlp_width + biases + norms

    @property
    def matrix_parameters(self) -> int:
        """Parameters of the embedding, and of the output matrix where it is not tied."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        matrices = self.matrix_parameters * (1 if self.tied else 2)
        return self.layers * self.layer_parameters + matrices + self.width

    def adapter_parameters(self, rank: int, names: Iterable[str]) -> int:
        """Return the parameters of LoRA, rank * (inputs + outputs) of each matrix.

        Args:
            rank: Rows of A and columns of B.
            names: The matrices, by the names that Qwen2 and Llama have for them.
        """
        query_width = self.heads * self.head_width
        key_width = self.kv_heads * self.head_width
        outputs = {"k_proj": key_width, "v_proj": key_width, "o_proj": query_width}
        outputs |= {"q_proj": query_width}
        sizes = [self.width + outputs.get(name, self.mlp_width) for name in names]
        return self.layers * rank * sum(sizes)

    @property
    def name(self) -> str:
        """Its size in words, as in 7.6B; in a model of few parameters layers x width."""
        if self.parameters < 1e8:
            return f"{self.layers}x{self.width}"
        return f"{self.parameters / 1e9:.3g}B"


def from_config(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the shape that a config.json tells; None where its layers are of another kind.

    Args:
        config: config.json of a model; of one that also sees, its text model is read.
    """
    config = config.get("text_config") or config
    model_type = config.get("model_type")
    if model_type not in QKV_BIAS:
        return None
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return ModelShape(
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or width // heads,
        mlp_width=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=config.get("attention_bias", QKV_BIAS[model_type]),
        qk_norm=model_type == "qwen3",
    )


@cache
def published(repo: str) -> ModelShape | None:
    """Return the shape of a published model that is kept here; None of any other.

    Args:
        repo: `owner/name` on the Hugging Face hub, as in Qwen/Qwen2.5-7B-Instruct.
    """
    name = repo.rpartition("/")[2].removesuffix(CHAT_SUFFIX)
    path = SHAPES / f"{name}.json"
    if not repo.startswith("Qwen/") or not path.exists():
        return None
    return from_config(read_json(path))
