"""ChatML: messages as token ids, and which of them bear loss. Knows one template: it neither reads files nor packs.

    <|im_start|>user\\nquestion<|im_end|>\\n<|im_start|>assistant\\nanswer<|im_end|>\\n

Loss is on the assistant's words and the <|im_end|> that closes them, on nothing else. There is no system prompt, so the
default one that Qwen's own template adds is left out."""

from __future__ import annotations

from typing import Any

import numpy as np

START, END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
            "{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
            "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids_T, bears_loss_T) of a conversation; the tokenizer is a `tokenizers.Tokenizer`."""
    ids: list[int] = []
    bears: list[bool] = []
    for message in messages:
        answer = message["role"] == "assistant"
        parts = ((f"{START}{message['role']}\n", False), (f"{message['content']}{END}", answer), ("\n", False))
        for text, loss in parts:
            tokens = tokenizer.encode(text, add_special_tokens=False).ids
            ids += tokens
            bears += [loss] * len(tokens)
    return np.array(ids, np.int32), np.array(bears, bool)


def prompt(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Token ids up to where the assistant begins to speak."""
    return [*encode(tokenizer, messages)[0].tolist(), *tokenizer.encode(f"{START}assistant\n", add_special_tokens=False).ids]


def document(tokenizer: Any, texts: list[str]) -> list[np.ndarray]:
    """Plain texts, each closed by <|endoftext|>; every token bears loss."""
    end = tokenizer.token_to_id(TEXT_END)
    return [np.array([*encoding.ids, end], np.int32) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
