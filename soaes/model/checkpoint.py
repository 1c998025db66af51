"""Models as Hugging Face folders: create, load, save. A folder holds config.json, safetensors and its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "vocab.json", "merges.txt")


def create(tokenizer: Path, layers: int, width: int, heads: int, kv_heads: int, context: int, seed: int) -> PreTrainedModel:
    """A Qwen2 model with random weights: tied embeddings, SwiGLU of 3 times the width."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()
    if width % heads or heads % kv_heads:
        raise ValueError(f"width={width}, heads={heads}, kv_heads={kv_heads}: heads must divide width, and kv_heads must divide heads")
    torch.manual_seed(seed)
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
             "intermediate_size": 3 * width, "vocab_size": vocabulary, "max_position_embeddings": 4 * context}
    return Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True, initializer_range=0.02 if width > 512 else width**-0.5 / 2,
                                        bos_token_id=None, eos_token_id=2, pad_token_id=0))


def load(folder: Path, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> PreTrainedModel:
    """ValueError if the folder holds no model."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)


def save(model: Any, folder: Path, tokenizer: Path) -> None:
    """Weights as safetensors, and the tokenizer's files from the folder that has them."""
    model.save_pretrained(folder, safe_serialization=True)
    for name in TOKENIZER:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
