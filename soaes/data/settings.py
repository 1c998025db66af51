"""Settings of the data stages that conf/ builds. They are checked when a job is composed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from soaes.pipeline.validation import check_flag, check_in_range, check_one_of

Algorithm = Literal["best_fit", "sum_of_squares"]
Overflow = Literal["auto", "split", "drop", "error"]
Language = Literal["any", "zh"]


@dataclass(frozen=True)
class PackingSettings:
    """How documents are packed into rows (conf/packing).

    Attributes:
        algorithm: `best_fit` (best-fit decreasing, packs a million documents in a second) or
            `sum_of_squares` (fuller rows where documents have similar lengths, for corpora of up to
            some hundred thousand documents).
        overflow: what to do with a document that is longer than a row. `split` cuts it into
            several pieces, `drop` leaves it out and counts it, `error` stops the stage. `auto` is
            `split` for plain text and `drop` for dialogues.
    """

    algorithm: Algorithm = "best_fit"
    overflow: Overflow = "auto"

    def __post_init__(self) -> None:
        check_one_of("algorithm", self.algorithm, get_args(Algorithm))
        check_one_of("overflow", self.overflow, get_args(Overflow))


@dataclass(frozen=True)
class DialogueSettings:
    """Which dialogues of a user's folder are kept (conf/data/files.yaml).

    Attributes:
        language: `any`, or `zh`: those whose questions or answers are Chinese, judged by the share
            of Han characters.
        drop_refusals: leave out dialogues of which an answer declines its question and does nothing
            else.
        min_relevance: relevance to the domain from which a dialogue without a label of its own has
            the category `relevant`, and below which it has `other`; null: its category is the name
            of its folder or file.
    """

    language: Language = "any"
    drop_refusals: bool = True
    min_relevance: float | None = None

    def __post_init__(self) -> None:
        check_one_of("language", self.language, get_args(Language))
        check_flag("drop_refusals", self.drop_refusals, "leave out answers that decline")
        if self.min_relevance is not None:
            least = "the relevance of dialogues without a label; null for none"
            check_in_range("min_relevance", self.min_relevance, "[0, 1]", least)
