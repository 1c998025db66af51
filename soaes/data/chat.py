"""ChatML: messages as token ids, and which of them bear loss. Knows one template: it neither reads files nor packs.

    <|im_start|>user\\nquestion<|im_end|>\\n<|im_start|>assistant\\nanswer<|im_end|>\\n

Loss is on the assistant's words and the <|im_end|> that closes them, on nothing else. There is no system prompt, so the
default one that Qwen's own template adds is left out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

START, END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids_T, bears_loss_T) of a conversation; the tokenizer is a `tokenizers.Tokenizer`."""
    ids: list[int] = []
    bears: list[bool] = []
    for message in messages:
        answer = message["role"] == "assistant"
        parts = (
            (f"{START}{message['role']}\n", False),
            (f"{message['content']}{END}", answer),
            ("\n", False),
        )
        for text, loss in parts:
            tokens = tokenizer.encode(text, add_special_tokens=False).ids
            ids += tokens
            bears += [loss] * len(tokens)
    return np.array(ids, np.int32), np.array(bears, bool)


def prompt(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids up to where the assistant begins to speak."""
    return [
        *encode(tokenizer, messages)[0].tolist(),
        *tokenizer.encode(f"{START}assistant\n", add_special_tokens=False).ids,
    ]


def document(tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    """Plain texts, each closed by <|endoftext|>; every token bears loss."""
    end = tokenizer.token_to_id(TEXT_END)
    return [
        np.array([*encoding.ids, end], np.int32)
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
    ]


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder or a tokenizer folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def chat_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """Load a chat model's tokenizer and the id of the token that ends an answer.

    Raises:
        ValueError: if the vocabulary has no `<|im_end|>`.
    """
    tokenizer = load_tokenizer(folder)
    eos = tokenizer.token_to_id(END)
    if eos is None:
        raise ValueError(
            f"the tokenizer of {folder} has no {END}, where an answer ends; use a chat tokenizer"
        )
    return tokenizer, eos


def tokenizer_digest(folder: Path) -> str:
    """Return a short digest of tokenizer.json: equal digests mean equal token ids."""
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()[:12]
