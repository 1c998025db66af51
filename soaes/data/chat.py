"""ChatML: encode conversations as token ids and mark which of them bear loss.

    <|im_start|>user\\nquestion<|im_end|>\\n<|im_start|>assistant\\nanswer<|im_end|>\\n

Loss is on the assistant's text and the <|im_end|> that closes it, and on nothing else. No system
prompt is added: the default one of Qwen's own template is left out. White space around a message
is removed, here as in the template: a tokenizer would join a leading line break with the one after
the role, and a prompt that is served as one text would have other tokens than in training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

START = "<|im_start|>"
END = "<|im_end|>"
TEXT_END = "<|endoftext|>"
# The same layout as a Jinja template, saved with every tokenizer of ours and every chat model.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content | trim + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content | trim + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encode(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Encode a conversation.

    Args:
        tokenizer: a tokenizer whose vocabulary has the special tokens of ChatML.
        messages: role and content of each message; `loss: False` takes an answer out of the loss.

    Returns:
        ids_T: token ids.
        bears_loss_T: True for the tokens that a model is trained to predict.
    """
    ids: list[int] = []
    bears_loss: list[bool] = []
    for message in messages:
        is_answer = message["role"] == "assistant" and message.get("loss", True)
        parts = (
            (f"{START}{message['role']}\n", False),
            (f"{message['content'].strip()}{END}", is_answer),
            ("\n", False),
        )
        for text, loss in parts:
            tokens = tokenizer.encode(text, add_special_tokens=False).ids
            ids += tokens
            bears_loss += [loss] * len(tokens)
    return np.array(ids, np.int32), np.array(bears_loss, bool)


def check_chatml(tokenizer: Tokenizer) -> None:
    """Check that a tokenizer has ChatML's tokens, and that a conversation has one encoding.

    Conversations are encoded in pieces, to know which of them bear loss; a server encodes the
    whole text. A tokenizer that adds a space before every text gives the pieces other tokens.

    Raises:
        ValueError: A token is missing, or the pieces are not those of the whole.
    """
    for token in (START, END, TEXT_END):
        token_id(tokenizer, token)
    messages = [{"role": "user", "content": "1. 甲 a"}, {"role": "assistant", "content": "b 乙\nc"}]
    whole = "".join(
        f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages
    )
    ids_T, _ = encode(tokenizer, messages)
    if tokenizer.encode(whole, add_special_tokens=False).ids != ids_T.tolist():
        raise ValueError(
            "the tokenizer gives a conversation other tokens when it is served as one text than "
            "when it is trained on piece by piece; take a tokenizer that adds no space before a "
            "text, as Qwen2's"
        )


def prompt(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the token ids of a conversation up to where the assistant's answer starts."""
    ids_T, _ = encode(tokenizer, messages)
    answer_start = tokenizer.encode(f"{START}assistant\n", add_special_tokens=False).ids
    return [*ids_T.tolist(), *answer_start]


def document(tokenizer: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Encode plain texts, each ended by <|endoftext|>; every token bears loss."""
    end = token_id(tokenizer, TEXT_END)
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [np.array([*encoding.ids, end], np.int32) for encoding in encodings]


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token.

    Raises:
        ValueError: The tokenizer has no such token.
    """
    special_id = tokenizer.token_to_id(token)
    if special_id is None:
        raise ValueError(f"the tokenizer has no {token}; use a ChatML tokenizer, as Qwen2's")
    return special_id


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
    """Return a short digest of what a folder's token ids mean.

    It is over the vocabulary, the merges and the special tokens, not over the bytes of
    tokenizer.json: a tokenizer that another version of a library saved again is the same one.
    """
    tokenizer = load_tokenizer(folder)
    added = tokenizer.get_added_tokens_decoder()
    special_tokens = {index: token.content for index, token in added.items() if token.special}
    meaning = {
        "vocabulary": tokenizer.get_vocab(with_added_tokens=True),
        "merges": json.loads(tokenizer.to_str())["model"].get("merges"),
        "special_tokens": special_tokens,
    }
    text = json.dumps(meaning, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
