"""Screens: which answers become items. Each rejects by a name of its own, in a fixed order.

`SCREENS` lists those that look at one answer; `Screener` adds those that look at others: questions
of the same document, and the questions that evaluation asks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from soaes.data.annotation.quotes import find_quote
from soaes.data.curation import ngrams, versions
from soaes.data.curation.decontamination import SURE_CHARS, HeldOutQuestions
from soaes.data.curation.dialogue_filters import is_chinese
from soaes.data.records import Message
from soaes.data.synthesis import grounding
from soaes.data.synthesis.calls import Reply
from soaes.data.synthesis.parsing import Draft, Rejected, parse
from soaes.data.synthesis.settings import PromptSettings, ScreenSettings

ECHO_CHARS = 20  # letters and digits in a row that an answer may not share with its instruction
SIMILAR_N = 3  # characters of the n-grams by which questions are compared
TITLE_N = 4  # characters of a title that a question must name; a shorter title as a whole

REFERS = re.compile(
    "上文|本文|原文|文中|文内|如上所述|上述(?:文本|材料|文字|段落)|以上(?:文本|内容|材料|文字|信息)"
    "|给定的?(?:内容|文本|材料|段落|信息)|所给(?:的?(?:内容|文本|材料|段落))|提供的(?:内容|文本|材料|信息|段落)"
    "|(?:该|这段|这篇|此)(?:文本|段落|材料|文字|文章|文档)|(?:材料|文本|段落|文章|文档)(?:中|里|内|提到|指出|显示)"
    r"|according to the (?:text|passage|document|article|context|above|excerpt)"
    r"|\b(?:the|this) (?:text|passage|article|excerpt|context|author)\b"
    r"|\bin the (?:document|above)\b|as (?:mentioned|stated|described) above"
    r"|\b(?:given|provided) (?:text|passage|context|document)",
    re.IGNORECASE,
)
# 白灼虾的做法 is about 白灼虾, ...的通知 about its matter.
TITLE_TAIL = re.compile("(?<=..)的[^的]{1,3}$")
LATIN_WORD = re.compile(r"[A-Za-z][A-Za-z0-9&'-]{3,}")
COMMON_WORDS = frozenset(
    "about after annual article chapter company corporation document from group guide handbook "
    "have into introduction its law limited make making manual more notice over part provisions "
    "recipe recipes regulations report rules section that their these this under united what when "
    "where which with year".split()
)


@dataclass(frozen=True)
class Asked:
    """What an answer is an answer to.

    Attributes:
        task: qa or report.
        document: Id of the document.
        title: Its title.
        text: The passage that the model saw.
        prompts: What it was told.
    """

    task: str
    document: str
    title: str
    text: str
    prompts: PromptSettings


@dataclass(frozen=True)
class Screened:
    """An answer that passed."""

    question: str
    answer: str
    span: tuple[int, int]  # of the passage, in characters


Screen = Callable[[Draft, Asked, ScreenSettings], None]


class Screener:
    """Screens answers one after another; the first of two similar questions is kept.

    Args:
        settings: What an answer must be.
        held_out: The questions that evaluation asks.
    """

    def __init__(self, settings: ScreenSettings, held_out: HeldOutQuestions) -> None:
        self._settings = settings
        self._held_out = held_out
        self._questions: dict[str, list[ngrams.Hashes]] = defaultdict(list)  # by document

    def screen(self, reply: Reply, asked: Asked) -> Screened:
        """Return what an answer holds and rests on.

        Raises:
            Rejected: By one of the screens.
        """
        draft = parse(reply, asked.task, self._settings)
        for check in SCREENS:
            check(draft, asked, self._settings)
        span = _cited(draft, asked)
        _check_grounded(draft, asked, span)
        self._check_held_out(draft)
        self._check_new(draft, asked)
        return Screened(draft.question, draft.answer, span)

    def _check_held_out(self, draft: Draft) -> None:
        """Reject a question of an exam, or of the user's dev or test questions."""
        messages: list[Message] = [
            {"role": "user", "content": draft.question},
            {"role": "assistant", "content": draft.answer},
        ]
        split = self._held_out.in_messages(messages)
        same = self._held_out.question_in(draft.question)
        if same is not None and (
            len(same.stem) >= SURE_CHARS or same.stem == _letters(draft.question)
        ):
            split = split or same.split
        if split:
            raise Rejected("holds a question of an exam or test set", f"{split}: {draft.question}")

    def _check_new(self, draft: Draft, asked: Asked) -> None:
        """Reject a question that repeats one of its document."""
        points = ngrams.folded(draft.question)
        hashes = ngrams.distinct(ngrams.ngram_hashes(points, min(SIMILAR_N, max(1, len(points)))))
        for other in self._questions[asked.document]:
            if ngrams.jaccard(hashes, other) >= self._settings.max_similarity:
                raise Rejected("repeats a question of its document", draft.question)
        self._questions[asked.document].append(hashes)


def _check_echo(draft: Draft, asked: Asked, settings: ScreenSettings) -> None:
    """Reject what repeats the instruction."""
    told = f"{asked.prompts.system}\n{asked.prompts.instruction(asked.task)}"
    instruction = ngrams.ngram_hashes(ngrams.folded(told), ECHO_CHARS)
    written = ngrams.folded(f"{draft.question}\n{draft.answer}")
    passage = ngrams.ngram_hashes(ngrams.folded(asked.text), ECHO_CHARS)
    echoed = set(map(int, instruction)) & set(map(int, ngrams.ngram_hashes(written, ECHO_CHARS)))
    if echoed - set(map(int, passage)):
        raise Rejected("prompt echo", draft.question)


def _check_language(draft: Draft, asked: Asked, settings: ScreenSettings) -> None:
    """Reject a question or an answer in another language than the one that was asked for."""
    is_wanted = asked.prompts.language == "zh"
    for text in (draft.question, draft.answer):
        has_letters = any(character.isalpha() for character in text)
        if has_letters and is_chinese([{"role": "user", "content": text}]) != is_wanted:
            raise Rejected("wrong language", text)


def _check_refers(draft: Draft, asked: Asked, settings: ScreenSettings) -> None:
    """Reject what speaks of the text that only the model saw."""
    for text in (draft.question, draft.answer):
        if found := REFERS.search(text):
            raise Rejected("refers to the text", f"{found[0]}: {text}")


def _check_standalone(draft: Draft, asked: Asked, settings: ScreenSettings) -> None:
    """Reject a question that names neither its document, nor a 《title》, nor an organisation."""
    if settings.standalone and not _stands_alone(draft.question, asked.title):
        raise Rejected("question does not stand alone", draft.question)


def _check_repeats(draft: Draft, asked: Asked, settings: ScreenSettings) -> None:
    """Reject an answer that is its question."""
    if _letters(draft.answer) == _letters(draft.question):
        raise Rejected("answer repeats the question", draft.question)


SCREENS: tuple[Screen, ...] = (
    _check_echo,
    _check_repeats,
    _check_language,
    _check_refers,
    _check_standalone,
)


def _cited(draft: Draft, asked: Asked) -> tuple[int, int]:
    """Return the span that an answer rests on; a report rests on all of its text."""
    if asked.task == "report":
        return 0, len(asked.text)
    span = find_quote(draft.quote, asked.text)
    if span is None:
        raise Rejected("quote is not in the text", draft.quote)
    return span


def _check_grounded(draft: Draft, asked: Asked, span: tuple[int, int]) -> None:
    """Reject an answer with a fact that its span lacks, and a question with one of nowhere."""
    cited = asked.text[slice(*span)]
    if missing := grounding.ungrounded(draft.answer, cited, asked.title):
        raise Rejected("ungrounded", f"{_named(missing)}: {draft.answer}")
    if missing := grounding.ungrounded(draft.question, f"{asked.text}\n{asked.title}", asked.title):
        raise Rejected("ungrounded question", f"{_named(missing)}: {draft.question}")


def _named(missing: list[grounding.Fact]) -> str:
    return ", ".join(fact.text for fact in missing[:3])


def _stands_alone(question: str, title: str) -> bool:
    if grounding.BOOK_TITLE.search(question):
        return True
    key = TITLE_TAIL.sub("", versions.title_key(title))
    points = ngrams.folded(question)
    if key and len(key) < TITLE_N:
        if key in ngrams.text_of(points):
            return True
    elif key:
        of_title = ngrams.ngram_hashes(ngrams.code_points(key), TITLE_N)
        of_question = ngrams.ngram_hashes(points, TITLE_N)
        if len(ngrams.distinct(of_title)) and not set(map(int, of_title)).isdisjoint(
            map(int, of_question)
        ):
            return _names_title(question, title)
    return any(True for start, end in grounding.organisations(question) if end - start > 4)


def _names_title(question: str, title: str) -> bool:
    """Tell whether what a question shares with a title is more than a common word of English."""
    if grounding.HAN_RUN.search(title):
        return True
    words = {word.casefold() for word in LATIN_WORD.findall(title)} - COMMON_WORDS
    asked = {word.casefold() for word in LATIN_WORD.findall(question)}
    return not words or not words.isdisjoint(asked)


def _letters(text: str) -> str:
    return ngrams.text_of(ngrams.folded(text))
