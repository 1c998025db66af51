"""Conversations and texts as token ids, and which of them bear loss: ChatML, or a model's template.

    <|im_start|>user\\nquestion<|im_end|>\\n<|im_start|>assistant\\nanswer<|im_end|>\\n

Loss is on the assistant's text and the token that closes it, and on nothing else. In ChatML no
system prompt is added: the default one of Qwen's own template is left out. White space around a
message is removed, here as in the template: a tokenizer would join a leading line break with the
one after the role, and a prompt that is served as one text would have other tokens than in
training.

A folder whose model writes conversations in another way has a chat_format.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from soaes.data import chat_template

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

FORMAT = "chat_format.json"  # of a folder whose conversations are not written in ChatML

# A conversation by which a format is checked: two turns, so that what a template does to an earlier
# answer shows, and texts whose first and last characters a tokenizer could join with others.
SAMPLE = (
    {"role": "user", "content": "1. 甲 a"},
    {"role": "assistant", "content": "b 乙\nc"},
    {"role": "user", "content": "丙?"},
    {"role": "assistant", "content": "丁"},
)


@dataclass(frozen=True)
class ChatFormat:
    """How a model's texts and conversations are written."""

    start: str = START
    """The token that opens a message, and stands in prompts alone."""

    end: str = END
    """The token that ends an answer."""

    text_end: str = TEXT_END
    """The token that ends a plain text."""

    text_start: str = ""
    """The token that precedes a plain text; empty for none."""

    template: str = ""
    """The model's own chat template; empty for ChatML."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """The special tokens that the template knows by name: bos_token, eos_token ..."""


CHATML = ChatFormat()


class ChatTokenizer:
    """A tokenizer of tokenizers, with the format of its model's conversations beside it.

    Args:
        tokenizer: The tokenizer, whose methods this has too.
        chat_format: The format.
    """

    def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
        self.tokenizer = tokenizer
        self.chat_format = chat_format

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


AnyTokenizer = Tokenizer | ChatTokenizer


def chat_format(tokenizer: AnyTokenizer) -> ChatFormat:
    """Return a tokenizer's format; one that says nothing has ChatML."""
    return getattr(tokenizer, "chat_format", CHATML)


def encode(
    tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Encode a conversation.

    Args:
        tokenizer: a tokenizer whose vocabulary has the special tokens of its format.
        messages: role and content of each message; `loss: False` takes an answer out of the loss.

    Returns:
        ids_T: token ids.
        bears_loss_T: True for the tokens that a model is trained to predict.
    """
    ids: list[int] = []
    bears_loss: list[bool] = []
    for text, loss in _pieces(chat_format(tokenizer), messages):
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        ids += tokens
        bears_loss += [loss] * len(tokens)
    return np.array(ids, np.int32), np.array(bears_loss, bool)


def _pieces(
    written: ChatFormat, messages: Sequence[Mapping[str, Any]]
) -> list[chat_template.Piece]:
    """Return the texts that are encoded one by one, and whether each bears loss."""
    if written.template:
        return chat_template.pieces(written.template, written.tokens, written.end, messages)
    pieces = []
    for message in messages:
        is_answer = message["role"] == "assistant" and message.get("loss", True)
        pieces += [
            chat_template.Piece(f"{START}{message['role']}\n", False),
            chat_template.Piece(f"{message['content'].strip()}{END}", is_answer),
            chat_template.Piece("\n", False),
        ]
    return pieces


def check_format(tokenizer: AnyTokenizer) -> None:
    """Check that a tokenizer has its format's tokens, and that a conversation has one encoding.

    Conversations are encoded in pieces, to know which of them bear loss; a server encodes the
    whole text. A tokenizer that adds a space before every text gives the pieces other tokens.

    Raises:
        ValueError: A token is missing, or the pieces are not those of the whole.
    """
    written = chat_format(tokenizer)
    for token in (written.start, written.end, written.text_end):
        token_id(tokenizer, token)
    whole = "".join(piece.text for piece in _pieces(written, SAMPLE))
    ids_T, _ = encode(tokenizer, SAMPLE)
    if tokenizer.encode(whole, add_special_tokens=False).ids != ids_T.tolist():
        raise ValueError(
            "the tokenizer gives a conversation other tokens when it is served as one text than "
            "when it is trained on piece by piece; take a tokenizer that adds no space before a "
            "text, as Qwen2's"
        )


def prompt(tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the token ids of a conversation up to where the assistant's answer starts."""
    written = chat_format(tokenizer)
    if written.template:
        text = chat_template.render(
            written.template, written.tokens, messages, add_generation_prompt=True
        )
        return list(tokenizer.encode(text, add_special_tokens=False).ids)
    ids_T, _ = encode(tokenizer, messages)
    answer_start = tokenizer.encode(f"{START}assistant\n", add_special_tokens=False).ids
    return [*ids_T.tolist(), *answer_start]


def answer(tokenizer: AnyTokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the token ids of a conversation's last answer, as SFT reads it behind its prompt."""
    last = dict(messages[-1]) | {"loss": True}
    pieces = _pieces(chat_format(tokenizer), [*messages[:-1], last])
    text = [piece.text for piece in pieces if piece.bears_loss][-1]
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def document(tokenizer: AnyTokenizer, texts: list[str]) -> list[np.ndarray]:
    """Encode plain texts, each ended by its token; every token bears loss."""
    written = chat_format(tokenizer)
    start = text_start(tokenizer)
    end = token_id(tokenizer, written.text_end)
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [np.array([*start, *encoding.ids, end], np.int32) for encoding in encodings]


def text_start(tokenizer: AnyTokenizer) -> list[int]:
    """Return the ids of what precedes a plain text: one token, or none."""
    token = chat_format(tokenizer).text_start
    return [token_id(tokenizer, token)] if token else []


def token_id(tokenizer: AnyTokenizer, token: str) -> int:
    """Return the id of a special token.

    Raises:
        ValueError: The tokenizer has no such token.
    """
    special_id = tokenizer.token_to_id(token)
    if special_id is None:
        raise ValueError(
            f"the tokenizer has no {token}; use a ChatML tokenizer, as Qwen2's, or the model's own "
            "template (chat_format=own)"
        )
    return int(special_id)


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """Load the tokenizer of a model folder or a tokenizer folder."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    path = folder / FORMAT
    if not path.exists():
        return ChatTokenizer(tokenizer, CHATML)
    return ChatTokenizer(tokenizer, ChatFormat(**json.loads(path.read_text("utf-8"))))


def chat_tokenizer(folder: Path) -> tuple[ChatTokenizer, int]:
    """Load a chat model's tokenizer and the id of the token that ends an answer.

    Raises:
        ValueError: if the vocabulary has no such token.
    """
    tokenizer = load_tokenizer(folder)
    end = tokenizer.chat_format.end
    eos = tokenizer.token_to_id(end)
    if eos is None:
        raise ValueError(
            f"the tokenizer of {folder} has no {end}, where an answer ends; use a chat tokenizer"
        )
    return tokenizer, eos


def tokenizer_digest(folder: Path) -> str:
    """Return a short digest of what a folder's token ids mean.

    It is over the vocabulary, the merges, the special tokens and the chat format, not over the
    bytes of tokenizer.json: a tokenizer that another version of a library saved again is the same
    one.
    """
    tokenizer = load_tokenizer(folder)
    added = tokenizer.get_added_tokens_decoder()
    special_tokens = {index: token.content for index, token in added.items() if token.special}
    meaning = {
        "vocabulary": tokenizer.get_vocab(with_added_tokens=True),
        "merges": json.loads(tokenizer.to_str())["model"].get("merges"),
        "special_tokens": special_tokens,
    }
    if tokenizer.chat_format != CHATML:
        meaning["chat_format"] = asdict(tokenizer.chat_format)
    text = json.dumps(meaning, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
