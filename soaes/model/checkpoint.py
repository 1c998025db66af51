"""Models as Hugging Face folders: create, load, save.

A folder holds config.json, the weights as safetensors, and the tokenizer's files.
"""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from soaes.data import chat
from soaes.model import attention, sharding
from soaes.model.folder import TOKENIZER_FILES, weight_files
from soaes.model.output_head import OutputHead
from soaes.pipeline.model_checks import state_layers
from soaes.pipeline.runtime import first_rank
from soaes.pipeline.store import read_json, write_json
from soaes.pipeline.validation import DTYPES


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
        eos_token_id=vocabulary.token_to_id(vocabulary.chat_format.end),
        pad_token_id=vocabulary.token_to_id(vocabulary.chat_format.text_end),
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
        ValueError: The folder holds no model, or a layer of it carries a state through a row.
    """
    check_loadable(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    _finish(model, folder)
    return model


def load_head(folder: Path) -> OutputHead:
    """Load what a model computes behind its final hidden states, in float32, and nothing else.

    Args:
        folder: A Hugging Face folder.

    Raises:
        ValueError: The folder holds no model, or no weight of its head by the model's own name.
    """
    check_loadable(folder)
    model = sharding.empty_model(AutoConfig.from_pretrained(folder))
    head = OutputHead.of(model)
    names = {id(tensor): name for name, tensor in sharding.saved_tensors(model).items()}
    weight_VD = _read_tensor(folder, names[id(head.weight_VD)])
    bias_V = head.bias_V
    if bias_V is not None:
        bias_V = _read_tensor(folder, names[id(bias_V)])
    return replace(head, weight_VD=weight_VD, bias_V=bias_V)


def _read_tensor(folder: Path, name: str) -> torch.Tensor:
    """Read one weight of a folder, in float32."""
    for file in weight_files(folder):
        with safe_open(folder / file, "pt") as tensors:
            if name in tensors.keys():
                tensor: torch.Tensor = tensors.get_tensor(name)
                return tensor.float()
    raise ValueError(
        f"{folder} has no {name} among its safetensors, so that the output matrix cannot be read "
        "by itself; set teacher_logits=transformers, which reads what transformers reads"
    )


def check_loadable(folder: Path) -> None:
    """Check that a folder holds a model that can be trained on packed rows.

    Raises:
        ValueError: It holds none, or a layer of it carries a state through a row.
    """
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no model: there is no config.json")
    config = read_json(folder / "config.json")
    states = state_layers(config.get("text_config") or config)
    if states:
        raise ValueError(
            f"{folder} is a model of type {config['model_type']} with layers {states}, which carry "
            "a state from one document of a packed row into the next; take a model whose layers "
            "are attention"
        )


def load_settings(model: PreTrainedModel, folder: Path) -> None:
    """Give a model whose weights were read in another way what else its folder says."""
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    _finish(model, folder)


def _finish(model: PreTrainedModel, folder: Path) -> None:
    """Choose an attention that is exact, and repair the generation config."""
    if attention.name_with_cache(model) == "eager":  # transformers' default is sdpa
        attention.set_attention(model, "eager")
    _repair_generation_config(model, folder)


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the type of the weights in a folder, as its config.json has it; float32 by default."""
    config = read_json(folder / "config.json")
    text_config = config.get("text_config") or {}
    for settings in (config, text_config):
        name = settings.get("dtype") or settings.get("torch_dtype")
        if name in DTYPES:
            dtype: torch.dtype = getattr(torch, name)
            return dtype
    return torch.float32


def _repair_generation_config(model: PreTrainedModel, folder: Path) -> None:
    """Replace a generation config that transformers reads but refuses to save.

    Such as temperature=0.7 without do_sample=true, which published folders have.
    """
    config = model.generation_config
    try:
        config.validate(strict=True)
    except ValueError as error:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        tokens = {name: getattr(config, name) for name in names}
        model.generation_config = GenerationConfig(**tokens)
        warnings.warn(
            f"{folder}/generation_config.json contradicts itself and could not be saved again; "
            f"only its special tokens are kept: {error}",
            stacklevel=2,
        )


def describe(model: PreTrainedModel, tokenizer: Path, is_chat: bool) -> None:
    """Set where a model's texts end in its config and generation config.

    Args:
        model: A Hugging Face model.
        tokenizer: Folder of its tokenizer.
        is_chat: Whether it is trained on conversations or on plain texts, which end with other
            tokens (in ChatML <|im_end|> and <|endoftext|>).

    Raises:
        ValueError: The tokenizer has more tokens than the model has rows.
    """
    words = chat.load_tokenizer(tokenizer)
    rows = model.get_input_embeddings().num_embeddings
    if words.get_vocab_size() > rows:
        raise ValueError(
            f"the tokenizer of {tokenizer} has {words.get_vocab_size():,} tokens, the model "
            f"{rows:,} rows; take the model's own tokenizer"
        )
    end = words.token_to_id(_end_token(words.chat_format, is_chat))
    padding = words.token_to_id(words.chat_format.text_end)
    if end is None:
        return
    model.config.eos_token_id = end
    model.generation_config.eos_token_id = end
    model.generation_config.pad_token_id = end if padding is None else padding


def save_description(
    model: PreTrainedModel, folder: Path, tokenizer: Path, is_chat: bool | None = None
) -> None:
    """Save all of a model's folder but the weights; the first rank writes.

    A training stage calls it before its first step, so that what cannot be saved is known then.

    Args:
        model: A Hugging Face model.
        folder: Where to.
        tokenizer: Folder from which the tokenizer's files are copied.
        is_chat: See `describe`; a chat model's template becomes the one of its training. None
            leaves the tokenizer's files as they are.
    """
    if not first_rank():
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder / name)
    if is_chat is not None:
        _describe_tokenizer(folder, is_chat)


def _describe_tokenizer(folder: Path, is_chat: bool) -> None:
    """Set the end of text, and a chat model's template, in the files of a tokenizer."""
    words = chat.load_tokenizer(folder)
    end = _end_token(words.chat_format, is_chat)
    if words.token_to_id(end) is None:
        return
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.exists():
            settings = read_json(path) | {"eos_token": end}
            if is_chat:
                settings.pop("chat_template", None)
            write_json(path, settings)
    if is_chat:
        template = words.chat_format.template or chat.TEMPLATE
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _end_token(chat_format: chat.ChatFormat, is_chat: bool) -> str:
    return chat_format.end if is_chat else chat_format.text_end


def save(
    model: Any,
    folder: Path,
    tokenizer: Path,
    is_chat: bool | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Save a model and its tokenizer. Every rank calls it.

    Args:
        model: A Hugging Face model.
        folder: Where to.
        tokenizer: Folder from which the tokenizer's files are copied.
        is_chat: See `save_description`.
        dtype: Of the saved weights; None: as they are.
    """
    dtype = dtype or model.dtype
    if sharding.is_sharded(model):
        folder.mkdir(parents=True, exist_ok=True)
        sharding.save_weights(model, folder, dtype)
    elif first_rank():
        weights = None if dtype == model.dtype else _in_dtype(model, dtype)
        model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
    model.config.dtype = dtype
    save_description(model, folder, tokenizer, is_chat)


def _in_dtype(model: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights of a model in another floating-point type."""
    weights = sharding.saved_tensors(model)
    return {name: w.to(dtype) if w.is_floating_point() else w for name, w in weights.items()}
