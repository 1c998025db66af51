"""Tell which dialogues stage 1 leaves out: those in another language, and refusals.

Knows messages alone. The language is judged by scripts, so that nothing is downloaded and a
dialogue that is mostly code or figures is not lost to a language model's guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from soaes.data.records import Message
from soaes.data.settings import DialogueSettings

MIN_HAN = 0.3  # share of Han characters among characters and words, from which a text is Chinese
MAX_KANA = 0.05  # share of kana, from which a text with Han characters is Japanese

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9d]")
# A run of letters of any other script; to a reader a word weighs as much as a Han character.
WORD = re.compile("[^\\W\\d_\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d]+")
CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)

# How a refusal begins: an apology or what the speaker is, then that it cannot.
APOLOGY = r"(?:非常|很|十分)?(?:抱歉|对不起|不好意思|遗憾)[，,。！!、\s]*"
MODEL = r"(?:AI|人工智能|语言模型|机器人|助手)"
AS_MODEL = (
    rf"(?:作为|由于我是|因为我是|我是|我只是)一?[^。！？，,\n]{{0,14}}{MODEL}[^。！？，,\n]{{0,12}}"
)
CANNOT = r"我(?:目前|现在|暂时|还|也|并)*(?:无法|不能|没办法|没有办法|没有能力)"
I_CANNOT = r"i\s*(?:can['’]?t|cannot|can not|am unable|am not able|won['’]?t)\b"
SORRY = r"(?:(?:i['’]?m |i am )?(?:very |so )?sorry[,.]?\s*(?:but\s*)?)"
AS_AN_AI = r"(?:as an? (?:ai|large|language)\b[^.,\n]{0,40},\s*)"
REFUSAL = re.compile(
    rf"(?:{APOLOGY}(?:但是?[，,]?)?)?(?:{AS_MODEL}[，,。\s]*(?:所以|因此)?)?{CANNOT}"
    rf"|(?:{SORRY}{AS_AN_AI}?|{AS_AN_AI}){I_CANNOT}"
    r"|i (?:can['’]?t|cannot) (?:assist|help|comply|fulfill|provide|answer)\b",
    re.IGNORECASE,
)
# Of more characters, or with such a word after that, the answer is more than a refusal.
MAX_REFUSAL_CHARS = 160
TURN = re.compile(r"不过|但|然而|如果是|以下|下面|however|\bbut\b|here (?:is|are)", re.IGNORECASE)


def reason_to_drop(messages: Sequence[Message], settings: DialogueSettings) -> str:
    """Return why a dialogue is left out, as the report counts it, or "".

    Args:
        messages: the dialogue, cleaned.
        settings: what is asked for.
    """
    if settings.language == "zh" and not is_chinese(messages):
        return "not Chinese"
    answers = (turn["content"] for turn in messages if turn["role"] == "assistant")
    if settings.drop_refusals and any(is_refusal(answer) for answer in answers):
        return "an answer is a refusal"
    return ""


def is_chinese(messages: Iterable[Message]) -> bool:
    """Tell whether the questions or the answers of a dialogue are Chinese.

    One side is enough: a Chinese question may ask for code or for a translation. Without any letter
    (arithmetic), a dialogue is of every language.
    """
    by_role: dict[str, list[str]] = {"user": [], "assistant": []}
    for message in messages:
        by_role.get(message["role"], []).append(message["content"])
    counts = [_count_scripts("\n".join(texts)) for texts in by_role.values()]
    num_letters = sum(sum(scripts) for scripts in counts)
    if not num_letters:
        return True
    if sum(scripts.kana for scripts in counts) >= MAX_KANA * num_letters:
        return False
    return any(0 < sum(scripts) * MIN_HAN <= scripts.han for scripts in counts)


def is_refusal(answer: str) -> bool:
    """Tell whether an answer declines its question and does nothing else."""
    text = answer.strip()
    if len(text) > MAX_REFUSAL_CHARS:
        return False
    beginning = REFUSAL.match(text)
    return beginning is not None and TURN.search(text, beginning.end()) is None


class _Scripts(NamedTuple):
    """What a text is written in."""

    han: int  # characters
    kana: int  # characters
    words: int  # runs of letters of other scripts


def _count_scripts(text: str) -> _Scripts:
    """Count the scripts of a text without its fenced code."""
    prose = CODE_BLOCK.sub("", text)
    return _Scripts(*(len(pattern.findall(prose)) for pattern in (HAN, KANA, WORD)))
