"""Settings of synthesis that conf/ builds. They are checked when a job is composed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from soaes.pipeline.validation import (
    check_at_least,
    check_flag,
    check_in_range,
    check_one_of,
    check_seed,
    check_whole,
)

Language = Literal["zh", "en"]

# What a request holds already, or what would change how many answers it gets.
GIVEN_PARAMETERS = ("model", "messages", "max_tokens", "temperature", "top_p", "n", "stream")


@dataclass(frozen=True)
class EndpointAuthor:
    """A model behind a server of the OpenAI protocol (conf/author/endpoint.yaml).

    Where the server is and what it costs is no part of a recipe; see `endpoint` in conf/run.yaml.

    Attributes:
        model: Its name, as the server knows it.
        temperature: Of sampling; 0 for greedy decoding.
        top_p: Of sampling, in (0, 1].
        max_tokens: Longest answer; one that is cut there is rejected.
        extra: Further parameters of the request, such as
            `{chat_template_kwargs: {enable_thinking: false}}`.
    """

    model: str
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 4096
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_text("author.model", self.model, "the model's name, as the server knows it")
        check_at_least("author.temperature", self.temperature, 0, "0 for greedy decoding")
        check_in_range("author.top_p", self.top_p, "(0, 1]", "of sampling")
        check_whole("author.max_tokens", self.max_tokens, 1, "the longest answer, in tokens")
        for name in self.extra:
            if name in GIVEN_PARAMETERS:
                raise ValueError(
                    f"author.extra.{name}: the request has it already; set author.{name} where "
                    "there is such a setting, and leave it out here"
                )


@dataclass(frozen=True)
class RuleAuthor:
    """Rules instead of a model, to try everything out (conf/author/rules.yaml).

    They ask for the sentences of a passage that hold a number, a date, a 《title》 or a name, and
    answer in the sentence's own words.

    Attributes:
        version: Raised when the rules change what they write.
    """

    version: int = 2

    def __post_init__(self) -> None:
        check_whole("author.version", self.version, 1, "of the rules")


@dataclass(frozen=True)
class TransformersAuthor:
    """A local model, run by transformers one prompt after another (conf/author/transformers.yaml).

    The stage's `model` names it. vLLM serves a larger one faster: see docs/annotation.md.

    Attributes:
        max_new_tokens: Longest answer; one that is cut there is rejected. Decoding is greedy.
    """

    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        check_whole("author.max_new_tokens", self.max_new_tokens, 1, "the longest answer")


Author = EndpointAuthor | RuleAuthor | TransformersAuthor


@dataclass(frozen=True)
class PromptSettings:
    """What a model is told (conf/prompt), before the title and the text.

    Attributes:
        language: Of questions and answers: zh or en; others are rejected.
        system: The system message.
        qa: What asks for a question with its answer.
        report: What asks for a report.
    """

    language: Language
    system: str
    qa: str
    report: str

    def __post_init__(self) -> None:
        check_one_of("prompt.language", self.language, get_args(Language))
        for name in ("system", "qa", "report"):
            _check_text(f"prompt.{name}", getattr(self, name), "what the model is told")

    def instruction(self, task: str) -> str:
        """Return what asks for a task, `qa` or `report`."""
        return self.qa if task == "qa" else self.report


@dataclass(frozen=True)
class AskingSettings:
    """What is asked about (conf/data/files.yaml). One call is made for each question.

    Documents take turns, so that few calls reach many documents.

    Attributes:
        qa: Questions in all; null for one a passage.
        reports: Reports in all; null for one a document that is long enough.
        max_per_document: Most questions about one document; null for no limit.
        passage_chars: Shortest passage that a question is about; the last of a document may be
            shorter.
        report_chars: Longest text that a report is about, in characters: the document's beginning.
        min_report_chars: Shortest one.
        seed: Decides which passages and documents are asked about.
    """

    qa: int | None = 1000
    reports: int | None = 30
    max_per_document: int | None = 20
    passage_chars: int = 400
    report_chars: int = 4000
    min_report_chars: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("qa", "reports"):
            if getattr(self, name) is not None:
                check_whole(f"asking.{name}", getattr(self, name), 0, "in all; null for most")
        if self.qa == 0 and self.reports == 0:
            raise ValueError("asking.qa=0: and asking.reports=0 ask nothing; raise either")
        if self.max_per_document is not None:
            check_whole("asking.max_per_document", self.max_per_document, 1, "null for no limit")
        check_whole("asking.passage_chars", self.passage_chars, 50, "of a passage")
        check_whole("asking.min_report_chars", self.min_report_chars, 50, "of a document")
        check_whole("asking.report_chars", self.report_chars, self.min_report_chars, "of a text")
        check_seed(self.seed)


@dataclass(frozen=True)
class ScreenSettings:
    """What an answer must be to become an item (conf/data/files.yaml).

    Attributes:
        max_question_chars: Longest question.
        max_answer_chars: Longest answer, of each task.
        min_report_chars: Shortest report.
        max_similarity: Jaccard similarity of 3-grams from which a question repeats another one of
            its document, in (0, 1].
        standalone: Whether a question must say what it is about without its document.
        context_chars: Characters of the document that an item shows on each side of the passage,
            where the document is longer than `whole_chars`.
        whole_chars: Longest document that an item shows whole.
        dev_share: Share of the items whose documents are set apart for dev.
        test_share: Likewise for test.
        seed: Decides which documents these are.
    """

    max_question_chars: int = 300
    max_answer_chars: int = 8000
    min_report_chars: int = 100
    max_similarity: float = 0.7
    standalone: bool = True
    context_chars: int = 2000
    whole_chars: int = 20000
    dev_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("screens.max_question_chars", self.max_question_chars, 1, "of a question")
        check_whole("screens.max_answer_chars", self.max_answer_chars, 1, "of an answer")
        check_whole("screens.min_report_chars", self.min_report_chars, 1, "of a report")
        check_in_range("screens.max_similarity", self.max_similarity, "(0, 1]", "of questions")
        check_flag("screens.standalone", self.standalone)
        check_whole("screens.context_chars", self.context_chars, 0, "beside a passage")
        check_whole("screens.whole_chars", self.whole_chars, 0, "of a document")
        check_shares("screens", self.dev_share, self.test_share)
        check_seed(self.seed)


def check_shares(name: str, dev_share: float, test_share: float) -> None:
    """Check the shares of dev and test, of which each must leave something to train on."""
    check_in_range(f"{name}.dev_share", dev_share, "(0, 1)", "of the items")
    check_in_range(f"{name}.test_share", test_share, "(0, 1)", "of the items")
    if dev_share + test_share >= 1:
        raise ValueError(
            f"{name}.dev_share={dev_share}: must be less than 1 together with "
            f"test_share={test_share}; the rest is for train"
        )


def _check_text(name: str, value: object, what: str) -> None:
    if not isinstance(value, str) or not value.strip():
        written = "null" if value is None else value
        raise ValueError(f"{name}={written}: must be text ({what})")
