"""Find out how a model writes conversations: in ChatML, or by the template in its folder.

What a template would get silently wrong is refused: an answer that ends with no token of its own,
or that is written differently once the conversation goes on. Knows folders and texts, no models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from soaes.data import chat, chat_template
from soaes.data.chat import CHATML, SAMPLE, ChatFormat, ChatTokenizer
from soaes.pipeline.validation import CHAT_FORMATS, check_one_of

CHATML_TOKENS = (chat.START, chat.END, chat.TEXT_END)


def find_format(folder: Path, choice: str = "auto") -> ChatFormat:
    """Return how a model's conversations are written, which is checked.

    Args:
        folder: The model's folder.
        choice: `chatml`; `own`, the template of the folder; `auto`: ChatML where the tokenizer has
            its tokens, else the model's own.

    Raises:
        ValueError: The tokenizer has no tokens of the format, there is no template, or it cannot
            be trained with.
    """
    check_one_of("chat_format", choice, CHAT_FORMATS, "how conversations are written")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    has_chatml = all(tokenizer.token_to_id(token) is not None for token in CHATML_TOKENS)
    try:
        if choice == "chatml" or (choice == "auto" and has_chatml):
            found = CHATML
        else:
            found = chat.load_tokenizer(folder).chat_format
            if found == CHATML:
                found = own_format(folder)
        chat.check_format(ChatTokenizer(tokenizer, found))
    except ValueError as error:
        raise ValueError(f"chat_format={choice}: {folder}: {error}") from None
    return found


def write_format(folder: Path, choice: str) -> None:
    """Write down how a folder's conversations are written; of ChatML nothing is said."""
    found = find_format(folder, choice)
    path = folder / chat.FORMAT
    path.unlink(missing_ok=True)
    if found != CHATML:
        path.write_text(json.dumps(asdict(found), ensure_ascii=False, indent=1), encoding="utf-8")


def own_format(folder: Path) -> ChatFormat:
    """Return how conversations are written by the template in a model's folder, as a server does.

    Raises:
        ValueError: There is no template, or an answer ends with no token of its own.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = _read_json(folder / "tokenizer_config.json")
    template = _template(folder, settings)
    if not template:
        raise ValueError(
            "the tokenizer has neither ChatML's tokens nor a chat template; put the template of "
            "its chat model beside it, as chat_template.jinja"
        )
    tokens = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        token = settings.get(name)
        if token:
            tokens[name] = token["content"] if isinstance(token, dict) else token
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    end = _end(template, tokens, special)
    text_start = ""
    bos = tokens.get("bos_token", "")
    if bos and tokenizer.encode("a").ids[:1] == [tokenizer.token_to_id(bos)]:
        text_start = bos
    text_end = _text_end(folder, tokenizer, tokens, end)
    start = _start(template, tokens, special) or bos or text_end
    return ChatFormat(start, end, text_end, text_start, template, tokens)


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text("utf-8")
    template = settings.get("chat_template") or ""
    if isinstance(template, list):  # of several the one that is used by default
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", "")
    return str(template)


def _end(template: str, tokens: Mapping[str, str], special: list[str]) -> str:
    """Return the token with which a template ends an answer."""
    question_and_answer = SAMPLE[:2]
    answer = question_and_answer[-1]["content"]
    text = chat_template.render(template, tokens, question_and_answer)
    place = text.rfind(answer)
    if place < 0:
        raise ValueError("the chat template changes the text of an answer")
    behind = text[place + len(answer) :].lstrip()
    end = _first_token(behind, special)
    if not end:
        written = behind.split("\n")[0][:20]
        raise ValueError(
            f"the chat template ends an answer with {written!r}, which is no single token, so that "
            "a model could not be stopped there; take a template that ends it with a special token"
        )
    return end


def _start(template: str, tokens: Mapping[str, str], special: list[str]) -> str:
    """Return the token with which a template lets the assistant speak; empty if it is text."""
    question = SAMPLE[:1]
    told = chat_template.render(template, tokens, question)
    asked = chat_template.render(template, tokens, question, add_generation_prompt=True)
    return _first_token(asked.removeprefix(told).lstrip(), special) if asked != told else ""


def _first_token(text: str, special: list[str]) -> str:
    return max((token for token in special if text.startswith(token)), key=len, default="")


def _text_end(folder: Path, tokenizer: Tokenizer, tokens: Mapping[str, str], end: str) -> str:
    """Return the token that ends a plain text: a stop token beside that of answers, if any."""
    candidates = [tokens.get("eos_token", "")]
    for name in ("config.json", "generation_config.json"):
        stop = _read_json(folder / name).get("eos_token_id")
        ids = stop if isinstance(stop, list) else [stop]
        candidates += [tokenizer.id_to_token(token) or "" for token in ids if token is not None]
    others = [token for token in candidates if token and token != end]
    known = [token for token in others if tokenizer.token_to_id(token) is not None]
    return known[0] if known else end


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
