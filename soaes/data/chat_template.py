"""A chat template in Jinja, rendered without transformers: as text, and cut where answers are.

A template's text must not depend on the day: what asks for the date has its own fallback, or is
refused. Knows text, not tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]


class Piece(NamedTuple):
    """A part of a conversation's text."""

    text: str
    bears_loss: bool  # the model is to write it: an answer, up to the token that ends it


class _Generation(Extension):
    """The block `{% generation %}`, by which templates mark answers; its content is rendered."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the block's content."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(
    template: str,
    tokens: Mapping[str, str],
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
) -> str:
    """Write a conversation as a chat template does.

    Args:
        template: The template, in Jinja.
        tokens: Its special tokens by name: bos_token, eos_token ...
        messages: role and content of each message.
        add_generation_prompt: Whether the assistant is about to speak.

    Raises:
        ValueError: The template cannot be read, or refuses the conversation.
    """
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return _compiled(template).render(
            messages=plain, add_generation_prompt=add_generation_prompt, tools=None, **tokens
        )
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template cannot be rendered ({error})") from None


@cache
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def pieces(
    template: str, tokens: Mapping[str, str], end: str, messages: Sequence[Message]
) -> list[Piece]:
    """Cut the text of a conversation into answers and the rest.

    Args:
        template, tokens, messages: As of `render`.
        end: The token that ends an answer.

    Raises:
        ValueError: The template writes an answer differently once the conversation goes on, or
            does not end it with `end`.
    """
    whole = render(template, tokens, messages)
    cut: list[Piece] = []
    place = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(template, tokens, messages[:index], add_generation_prompt=True)
        answered = render(template, tokens, messages[: index + 1])
        if not (answered.startswith(prompt) and whole.startswith(answered.rstrip())):
            raise ValueError(
                "the chat template writes an answer differently once the conversation goes on, so "
                "that training and serving would differ"
            )
        stop = answered.rfind(end, len(prompt))
        if stop < 0:
            raise ValueError(f"the chat template does not end an answer with {end}")
        stop += len(end)
        bears_loss = message.get("loss", True)
        cut.append(Piece(whole[place : len(prompt)], False))
        cut.append(Piece(whole[len(prompt) : stop], bears_loss))
        place = stop
    return [piece for piece in [*cut, Piece(whole[place:], False)] if piece.text]
