"""Models as Hugging Face folders: create, load, save. A folder holds config.json, safetensors and its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from soaes.data import chat
from soaes.pipeline.runtime import first_rank

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)


def create(
    tokenizer: Path, layers: int, width: int, heads: int, kv_heads: int, context: int, seed: int
) -> PreTrainedModel:
    """A Qwen2 model with random weights: SwiGLU of 3 times the width, a head of its own as in Qwen2.5-7B and -72B."""
    words = chat.load_tokenizer(tokenizer)
    if width % heads or heads % kv_heads:
        raise ValueError(
            f"width={width}, heads={heads}, kv_heads={kv_heads}: heads must divide width, and kv_heads must divide heads"
        )
    torch.manual_seed(seed)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 3 * width,
        "vocab_size": words.get_vocab_size(),
        "max_position_embeddings": 4 * context,
    }
    ends = {
        "bos_token_id": None,
        "eos_token_id": words.token_to_id(chat.END),
        "pad_token_id": words.token_to_id(chat.TEXT_END),
    }
    model = Qwen2ForCausalLM(
        Qwen2Config(**shape, **ends, tie_word_embeddings=False, initializer_range=0.02)
    )
    _start(model)
    return model


@torch.no_grad()
def _start(model: PreTrainedModel) -> None:
    """Activations of unit variance: embeddings of variance 1, matrices of 1 / inputs, and what a layer adds to the residual stream over
    twice the layers (Radford et al. 2019). Of the usual 0.02 everywhere a token is drowned by what eight narrow layers add to it."""
    torch.nn.init.normal_(model.model.embed_tokens.weight)
    for name, weight in model.model.layers.named_parameters():
        if weight.ndim == 2:
            added = 2 * len(model.model.layers) if "o_proj" in name or "down_proj" in name else 1
            torch.nn.init.normal_(weight, std=(weight.shape[1] * added) ** -0.5)


def load(folder: Path, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """dtype: "auto" for the one that it was saved in. ValueError if the folder holds no model."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def save(model: Any, folder: Path, tokenizer: Path) -> None:
    """Weights as safetensors, and the tokenizer's files from the folder that has them. Called on every rank, the first writes."""
    weights = _gathered(model) if sharded(model) else None
    if not first_rank():
        return
    model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
    for name in TOKENIZER:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)


def sharded(model: Any) -> bool:
    """True where ZeRO-3 leaves each rank its share of the weights alone."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


def _gathered(model: Any) -> dict[str, torch.Tensor]:
    """Whole weights of a model that ZeRO-3 has cut up, one at a time, so that no device holds them all."""
    from deepspeed.zero import GatheredParameters

    whole = {}
    for name, weight in model.named_parameters():
        with GatheredParameters([weight]):
            whole[name] = weight.detach().cpu().clone()
    return whole
