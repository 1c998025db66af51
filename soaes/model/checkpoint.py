"""Models as Hugging Face folders: create, load, save.

A folder holds config.json, the weights as safetensors, and the tokenizer's files.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from soaes.data import chat
from soaes.pipeline.runtime import first_rank

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


def create(
    tokenizer: Path,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    context: int,
    seed: int,
    *,
    mlp_ratio: float = 3,
    position_factor: int = 4,
    embedding_std: float = 1.0,
    head_std: float = 0.02,
) -> PreTrainedModel:
    """Create a Qwen2 model with random weights.

    It has SwiGLU layers, and an output matrix of its own as Qwen2.5-7B and -72B have.

    Args:
        tokenizer: Folder with tokenizer.json, which sets the vocabulary.
        layers: Transformer layers.
        width: Hidden size.
        heads: Query heads; they divide `width`.
        kv_heads: Key heads; they divide `heads`.
        context: Tokens of a training row.
        seed: Of the weights.
        mlp_ratio: Width of the SwiGLU layers over `width`.
        position_factor: Positions of the model over `context`.
        embedding_std: Standard deviation of the embeddings.
        head_std: Standard deviation of the output matrix.

    Raises:
        ValueError: The heads do not divide.
    """
    vocabulary = chat.load_tokenizer(tokenizer)
    if width % heads or heads % kv_heads:
        raise ValueError(
            f"width={width}, heads={heads}, kv_heads={kv_heads}: heads must divide width, "
            "and kv_heads must divide heads"
        )
    torch.manual_seed(seed)
    config = Qwen2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=int(mlp_ratio * width),
        vocab_size=vocabulary.get_vocab_size(),
        max_position_embeddings=position_factor * context,
        bos_token_id=None,
        eos_token_id=vocabulary.token_to_id(chat.END),
        pad_token_id=vocabulary.token_to_id(chat.TEXT_END),
        tie_word_embeddings=False,
        initializer_range=head_std,
    )
    model = Qwen2ForCausalLM(config)
    _initialise(model, embedding_std)
    return model


@torch.no_grad()
def _initialise(model: PreTrainedModel, embedding_std: float) -> None:
    """Draw weights under which activations have unit variance.

    Embeddings should have variance 1; matrices get 1 / inputs, and what a layer adds to the
    residual stream 1 / (inputs * 2 * layers) (Radford et al. 2019). With the usual standard
    deviation of 0.02, the sum of eight narrow layers' outputs would drown a token's embedding.
    """
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=embedding_std)
    for name, weight in model.model.layers.named_parameters():
        if weight.ndim == 2:
            is_residual = "o_proj" in name or "down_proj" in name
            branches = 2 * len(model.model.layers) if is_residual else 1
            torch.nn.init.normal_(weight, std=(weight.shape[1] * branches) ** -0.5)


def load(folder: Path, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """Load the model of a folder.

    Args:
        folder: A Hugging Face folder.
        dtype: Of the weights; "auto" for the one they were saved in.

    Raises:
        ValueError: The folder holds no model.
    """
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def save(model: Any, folder: Path, tokenizer: Path) -> None:
    """Save a model and its tokenizer. Every rank calls it, the first one writes.

    Args:
        model: A Hugging Face model.
        folder: Where to.
        tokenizer: Folder from which the tokenizer's files are copied.
    """
    weights = _gather(model) if is_sharded(model) else None
    if not first_rank():
        return
    model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def is_sharded(model: Any) -> bool:
    """Tell whether each rank holds only its share of the weights (ZeRO-3)."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


def _gather(model: Any) -> dict[str, torch.Tensor]:
    """Whole weights of a sharded model, one gathered at a time: no device holds them all."""
    from deepspeed.zero import GatheredParameters

    weights = {}
    for name, weight in model.named_parameters():
        with GatheredParameters([weight]):
            weights[name] = weight.detach().cpu().clone()
    return weights
