"""Rules that write questions, answers and reports: an author without a model.

They read what a model would be sent, and answer as it should: with one JSON object. A question asks
for a sentence of the passage that holds a fact, the answer is the sentence, and its quote, too. A
report lists such sentences under headings. So everything behind the author can be tried out and
tested without a model; what it writes trains nobody to more than quoting.
"""

from __future__ import annotations

import hashlib
import json
import re

from soaes.data.curation import versions
from soaes.data.curation.passages import SENTENCE
from soaes.data.synthesis import grounding, prompts
from soaes.data.synthesis.calls import Reply, Request

MODEL = "rules"
MIN_SENTENCE = 12  # characters
MAX_SENTENCE = 220
MAX_TOPIC = 28
MAX_POINTS = 8  # sentences of a report
SELF = re.compile("本(?:条例|法|办法|规定|决定|细则|规则|章程)")
LABEL = re.compile(
    rf"[-*#>\s]*(?:第[{grounding.NUMERAL}\d]+[条章节款]|[（(][{grounding.NUMERAL}\d]+[)）]"
    r"|\d{1,2}[.、)）](?=\D))?[*\s]*"
)
LINK = re.compile(r"\]\(|://")  # of Markdown, also to a picture, or an address
CLAUSE = re.compile("[，。；：、,;:!?！？\n]")
QUOTES = "《》〈〉“”\"'"


class RuleWriter:
    """Answers requests by rules; see `soaes.data.synthesis.calls.Author`."""

    def answer(self, request: Request) -> Reply:
        """Answer a request that `soaes.data.synthesis.prompts` wrote."""
        content = request.messages[-1]["content"]
        title, text = prompts.title_and_text(content)
        is_report = '"quote"' not in content.partition(prompts.TITLE)[0]
        seed = request.digest
        written = report(title, text) if is_report else question(title, text, seed)
        answer = json.dumps(written, ensure_ascii=False)
        return Reply(answer, "stop", len(content), len(answer))


def question(title: str, text: str, seed: str) -> dict[str, str]:
    """Return a question about a sentence of a text, with its answer and quote.

    Args:
        title: Of the document.
        text: The passage.
        seed: Decides which sentence.
    """
    sentences = _sentences(text)
    if not sentences:
        return {"question": "", "answer": "", "quote": ""}
    with_facts = [each for each in sentences if grounding.facts(each)] or sentences
    index = int(hashlib.sha256(seed.encode()).hexdigest(), 16) % len(with_facts)
    sentence = with_facts[index]
    name = _name(title)
    topic = _topic(sentence, name)
    if grounding.HAN_RUN.search(sentence):
        asked = f"《{name}》中，关于“{topic}”是怎样规定或说明的？"
    else:
        asked = f"What does {name} say about “{topic}”?"
    return {"question": asked, "answer": SELF.sub(f"《{name}》", sentence), "quote": sentence}


def report(title: str, text: str) -> dict[str, str]:
    """Return a report of the sentences of a text that hold facts."""
    sentences = _sentences(text)
    points = [each for each in sentences if grounding.facts(each)] or sentences
    name = _name(title)
    if grounding.HAN_RUN.search(text):
        asked = f"请就《{name}》写一份报告，说明其背景和主要内容。"
        headings = "背景", "主要内容"
        heading = f"# 关于《{name}》的报告"
    else:
        asked = f"Write a report on {name}: its background and its main points."
        headings = "Background", "Main points"
        heading = f"# Report on {name}"
    points = [SELF.sub(f"《{name}》", point) for point in points[: MAX_POINTS + 1]]
    body = "\n".join(f"- {point}" for point in points[1:])
    answer = f"{heading}\n\n## {headings[0]}\n\n{''.join(points[:1])}\n\n## {headings[1]}\n\n{body}"
    return {"question": asked, "answer": answer}


def _sentences(text: str) -> list[str]:
    """Return the sentences of a text without their numbers, of a length that can be asked for."""
    sentences = []
    for line in text.split("\n"):
        for match in SENTENCE.finditer(line):
            sentence = LABEL.sub("", match[0], count=1).strip()
            if LINK.search(sentence):
                continue
            if MIN_SENTENCE <= len(sentence) <= MAX_SENTENCE:
                sentences.append(sentence)
    return sentences


def _name(title: str) -> str:
    """Return a title without its date and marks, so that it can stand within marks."""
    name = versions.BRACKETS.sub("", title)
    name = "".join(character for character in name if character not in QUOTES)
    return " ".join(name.split()) or title


def _topic(sentence: str, name: str) -> str:
    """Return the first clause of a sentence that is long enough to tell it from others."""
    text = SELF.sub(name, sentence)
    text = "".join(character for character in text if character not in QUOTES)
    end = 0
    for match in CLAUSE.finditer(text):
        end = match.start()
        if end >= MIN_SENTENCE:
            break
    return text[: end if MIN_SENTENCE <= end <= MAX_TOPIC else MAX_TOPIC].rstrip("，。；：、,;: ")
