"""A folder with a Hugging Face model, read without torch: which files make it, and what it is.

Knows names, JSON and the headers of safetensors, not weights. What is no model that can be trained
is refused here, in one line, before anything is copied.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from soaes.data import digests

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"

# What a tokenizer is made of, as far as a folder has it; a trained model's folder gets them too.
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_format.json",  # of soaes.data.chat
)
OTHER_FILES = (CONFIG, "generation_config.json")

# How the names of classes end that predict the next token; the second also sees, and reads text.
CAUSAL = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


def files(folder: Path) -> list[str]:
    """Return the files that make a model, relative to its folder: the rest is not read."""
    small = [name for name in (*OTHER_FILES, *TOKENIZER_FILES) if (folder / name).is_file()]
    index = [INDEX] if (folder / INDEX).is_file() else []
    return [*small, *index, *weight_files(folder)]


def content(folder: Path, cache: Path | None) -> dict[str, Any]:
    """Return what stands for a model in a recipe: the digest of its files, and its shape.

    The shape (type, layers, width) follows from the files; labels and forecasts read it.

    Args:
        folder: The model's folder.
        cache: Folder of a cache of digests; a file that has not changed is not read again.
    """
    config = text_config(folder)
    return {
        "digest": digests.digest(folder, files(folder), cache, digests.chunked_sha256),
        "type": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "width": config.get("hidden_size"),
    }


def text_config(folder: Path) -> dict[str, Any]:
    """Return the config of the language model; a model that also sees has it as a part."""
    config: dict[str, Any] = _read_json(folder / CONFIG)
    return config.get("text_config") or config


def check(setting: str, folder: Path) -> None:
    """Check that a folder holds a causal language model with its weights and its tokenizer.

    Args:
        setting: How the user names it, for messages: `target.model=PATH`.
        folder: The folder.

    Raises:
        ValueError: It does not; one line with the way out.
    """
    try:
        problem = _problem(folder)
    except OSError as error:
        problem = f"{error.filename} cannot be read ({error.strerror}); change its permissions"
    if problem:
        raise ValueError(f"{setting}: {problem}")


def _problem(folder: Path) -> str:
    """Return what is wrong with a model's folder and the way out; empty if nothing is."""
    if not folder.exists():
        return (
            "there is no such folder; give the path of a Hugging Face folder, or a published "
            "model as owner/name@COMMIT"
        )
    if folder.suffix == ".gguf" or (folder.is_dir() and _only_gguf(folder)):
        return (
            "GGUF weights are quantised and cannot be trained; name the folder with the "
            "safetensors that they were made from"
        )
    if not folder.is_dir():
        return "this is a file; name the folder that holds the model's config.json and weights"
    if (folder / ADAPTER).is_file() and not (folder / WEIGHTS).is_file():
        return (
            "this is an adapter without its model; merge it (merge_and_unload of peft, then "
            "save_pretrained) and name the merged folder"
        )
    for look in (_problem_of_config, _problem_of_weights, _problem_of_tokenizer):
        problem = look(folder)
        if problem:
            return problem
    return ""


def _only_gguf(folder: Path) -> bool:
    has_weights = any(folder.glob("*.safetensors"))
    return not has_weights and any(folder.glob("*.gguf"))


def _problem_of_config(folder: Path) -> str:
    if not (folder / CONFIG).is_file():
        return f"there is no {CONFIG}; name the folder of a Hugging Face model, which has one"
    try:
        config = _read_json(folder / CONFIG)
    except ValueError as error:
        return f"{CONFIG} cannot be read ({error}); save or download the model again"
    if not isinstance(config, dict) or not config.get("model_type"):
        return f"{CONFIG} names no model_type; name the folder of a Hugging Face model"
    kind = config["model_type"]
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        return (
            f"the weights are quantised ({method}) and cannot be trained; name the folder with "
            "the original weights"
        )
    architectures = config.get("architectures") or []
    if architectures and not any(name.endswith(CAUSAL) for name in architectures):
        return (
            f"a model of type {kind} with {architectures[0]} predicts no next token; take a causal "
            "language model (...ForCausalLM)"
        )
    return ""


def _problem_of_weights(folder: Path) -> str:
    try:
        names = weight_files(folder)
    except ValueError as error:
        return f"{INDEX} cannot be read ({error}); save or download the model again"
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if not names and pickled:
        return (
            f"{pickled[0]} holds pickled weights, which can run code and are not read; save the "
            "model again with save_pretrained, as safetensors"
        )
    if not names:
        return f"there are no weights: neither {WEIGHTS} nor {INDEX}; name a folder with weights"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        count = f"{len(missing)} of {len(names)} files of weights are missing"
        return f"{count}, {missing[0]} first; download the rest"
    for name in names:
        problem = _problem_of_safetensors(folder / name)
        if problem:
            return f"{name} {problem}; save or download it again"
    return ""


def _problem_of_safetensors(path: Path) -> str:
    """Return what is wrong with a file of weights, by its header and its size."""
    size = path.stat().st_size
    with open(path, "rb") as handle:
        start = handle.read(8)
        if start.startswith(b"version "):
            return "is a pointer of Git LFS, not the weights"
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length + 8 > size:
            return "is no safetensors file, or is cut short"
        try:
            header = json.loads(handle.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key[:2] != "__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return "is no safetensors file"
    needed = 8 + length + max(ends, default=0)
    return "" if needed == size else f"is cut short: {size:,} of {needed:,} bytes"


def _problem_of_tokenizer(folder: Path) -> str:
    if (folder / TOKENIZER).is_file():
        return ""
    return (
        f"there is no {TOKENIZER}; save the tokenizer beside the model with "
        "AutoTokenizer.from_pretrained(...).save_pretrained(...)"
    )


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files of weights; without any, an empty list."""
    if (folder / INDEX).is_file():
        index = _read_json(folder / INDEX)
        if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
            raise ValueError("it has no weight_map")
        names = sorted(set(index["weight_map"].values()))
        for name in names:
            if Path(name).name != name:
                raise ValueError(f"{name} lies in another folder")
        return names
    return [WEIGHTS] if (folder / WEIGHTS).is_file() else []


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
