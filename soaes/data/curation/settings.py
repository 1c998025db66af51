"""Settings of curation that conf/ builds. They are checked when a job is composed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

from soaes.pipeline.validation import (
    check_in_range,
    check_one_of,
    check_positive,
    check_seed,
    check_whole,
)

Versions = Literal["all", "newest"]
ISO_DATE = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")

# In alphabetical order; soaes.data.curation.cleaning says in which they run.
CLEANING_RULES = (
    "broken lines",
    "character table",
    "comments",
    "control tokens",
    "indentation",
    "invisible characters",
    "line breaks",
    "navigation",
    "page numbers",
    "repeated lines",
    "running heads",
    "shared lines",
    "spaces between Han",
    "tables of contents",
    "white space",
)


@dataclass(frozen=True)
class CleaningSettings:
    """How documents are cleaned (conf/cleaning).

    Attributes:
        rules: Names of the rules that run, out of `CLEANING_RULES`, in any order.
        boilerplate: Regular expressions by name; a line that one of them matches as a whole is
            removed, and counted under the name.
        min_chars: Shortest document that is kept, in characters.
    """

    rules: Sequence[str]
    boilerplate: Mapping[str, str]
    min_chars: int = 20

    def __post_init__(self) -> None:
        for rule in self.rules:
            check_one_of("cleaning.rules", rule, CLEANING_RULES)
        for name, pattern in self.boilerplate.items():
            if not isinstance(pattern, str):
                raise ValueError(f"cleaning.boilerplate.{name}={pattern}: must be text; quote it")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(
                    f"cleaning.boilerplate.{name}={pattern}: must be a regular expression "
                    f"({error}; put a backslash before a bracket that stands for itself)"
                ) from None
        check_whole("min_chars", self.min_chars, 0, "the shortest document kept, in characters")


@dataclass(frozen=True)
class DeduplicationSettings:
    """What counts as a near-duplicate (conf/deduplication).

    Attributes:
        jaccard: Share of common n-grams from which two documents are near-duplicates, in (0, 1].
        recall: Share of the pairs at exactly `jaccard` that are to be found, in (0, 1); of more
            similar pairs more are. The bands are derived from both.
        num_hashes: Hashes of a signature. More of them find the same with fewer comparisons; 4
            bytes a document each on the disk.
        n: Characters of an n-gram.
        versions: What becomes of versions of one text, which have one title and different dates:
            `all` stay, or the `newest` of those that share `version_jaccard`.
        version_jaccard: Similarity from which `newest` takes two texts of one title for versions.
    """

    jaccard: float = 0.8
    recall: float = 0.995
    num_hashes: int = 256
    n: int = 5
    versions: Versions = "all"
    version_jaccard: float = 0.3

    def __post_init__(self) -> None:
        check_in_range("jaccard", self.jaccard, "(0, 1]", "the similarity of near-duplicates")
        check_in_range("recall", self.recall, "(0, 1)", "the share of them that is found")
        check_whole("num_hashes", self.num_hashes, 1, "the hashes of a signature")
        check_whole("n", self.n, 1, "characters of an n-gram")
        check_one_of("versions", self.versions, get_args(Versions))
        check_in_range("version_jaccard", self.version_jaccard, "(0, 1]", "of two versions")
        assert self.bands

    @property
    def bands(self) -> tuple[int, int]:
        """Return the number of bands and the hashes of each.

        Two documents are compared if all hashes of a band are equal: with probability
        1 - (1 - J^rows)^bands. The longest bands that reach the recall compare the fewest others.

        Raises:
            ValueError: No bands of `num_hashes` reach it.
        """
        for rows in range(self.num_hashes, 0, -1):
            bands = self.num_hashes // rows
            if 1 - (1 - self.jaccard**rows) ** bands >= self.recall:
                return bands, rows
        raise ValueError(
            f"recall={self.recall}: not reached at jaccard={self.jaccard} with "
            f"num_hashes={self.num_hashes}; raise num_hashes, or ask for less"
        )


@dataclass(frozen=True)
class DomainSettings:
    """What documents are scored by, of what conf/domain says of a domain.

    Attributes:
        topics: Topic -> its terms: what an expert wants covered. Without labels, their density is
            the relevance of a document.
        tiers: Origin (first folder below corpus/) or end of a host -> tier, 1 for the most credible
            sources to 5.
        as_of: ISO date on which the corpus is looked at; null: the newest date of a document.
    """

    topics: Mapping[str, Sequence[str]]
    tiers: Mapping[str, int]
    as_of: str | None = None

    def __post_init__(self) -> None:
        for name in ("topics", "tiers"):
            value = getattr(self, name)
            if not isinstance(value, Mapping):
                written = "null" if value is None else value
                raise ValueError(f"domain.{name}={written}: must be entries `name: value`, or {{}}")
        for origin, tier in self.tiers.items():
            if tier not in range(1, 6):
                raise ValueError(
                    f"domain.tiers.{origin}={tier}: must be a whole number from 1 to 5"
                )
        for topic, terms in self.topics.items():
            is_list = isinstance(terms, Sequence) and not isinstance(terms, str)
            if (
                not is_list
                or not terms
                or not all(isinstance(term, str) and term for term in terms)
            ):
                raise ValueError(
                    f"domain.topics.{topic}={terms}: must be a list of terms, none empty; put a "
                    "number in quotes"
                )
        if self.as_of is not None and not _is_date(str(self.as_of)):
            raise ValueError(f"domain.as_of={self.as_of}: must be a date as in 2026-01-31, or null")


def _is_date(text: str) -> bool:
    """Tell whether a text is a day of the calendar, as in 2026-01-31."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return ISO_DATE.fullmatch(text) is not None


@dataclass(frozen=True)
class PassageDrawing:
    """Which passages people are asked about (conf/data/files.yaml).

    Attributes:
        topics: Topic -> its terms; passages are drawn by how many of them they have.
        number: Passages that are drawn; fewer where the documents do not have so many.
        max_per_document: Most passages of one document.
        context_chars: Most characters that may be shown on either side of a passage.
        seed: Decides which are drawn.
    """

    topics: Mapping[str, Sequence[str]]
    number: int = 600
    max_per_document: int = 10
    context_chars: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        DomainSettings(self.topics, tiers={})  # checks the topics
        check_whole("number", self.number, 1, "the passages that are drawn")
        check_whole("max_per_document", self.max_per_document, 1, "passages of one document")
        check_whole("context_chars", self.context_chars, 0, "shown beside a passage; 0: none")
        check_seed(self.seed)


@dataclass(frozen=True)
class PairDrawing:
    """Which pairs of documents people are asked about (conf/data/files.yaml).

    Attributes:
        number: Pairs that are drawn; fewer where there are not so many, and one of each stratum at
            least.
        lowest: Similarity from which two documents that were kept may be duplicates, in (0, 1].
        max_chars: Longest document that is shown, in characters; pairs with a longer one are not
            drawn.
        seed: Decides which are drawn.
    """

    number: int = 200
    lowest: float = 0.6
    max_chars: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("number", self.number, 1, "the pairs that are drawn")
        check_in_range("lowest", self.lowest, "(0, 1]", "the similarity of pairs that were kept")
        check_whole("max_chars", self.max_chars, 1, "the longest document that is shown")
        check_seed(self.seed)


@dataclass(frozen=True)
class SelectionSettings:
    """Which documents of the corpus are trained on (conf/data/files.yaml); all by default.

    Attributes:
        budget: Tokens at most, estimated; null for no limit. They are filled by tier, band of
            relevance and importance.
        threshold: Lowest relevance of a document, in [0, 1]; null for none.
        lowest_tier: Least credible tier that is kept, 1 to 5.
        max_origin_share: Share of the budget that an origin may fill, in (0, 1].
        characters_per_token: By which tokens are estimated, since the tokenizer is not known yet.
    """

    budget: int | None = None
    threshold: float | None = None
    lowest_tier: int = 5
    max_origin_share: float = 1.0
    characters_per_token: float = 1.75

    def __post_init__(self) -> None:
        if self.budget is not None:
            check_whole("budget", self.budget, 1, "tokens; null for no limit")
        if self.threshold is not None:
            check_in_range("threshold", self.threshold, "[0, 1]", "the lowest relevance; or null")
        check_in_range("lowest_tier", self.lowest_tier, "[1, 5]", "the least credible tier kept")
        check_whole("lowest_tier", self.lowest_tier, 1, "the least credible tier that is kept")
        check_in_range("max_origin_share", self.max_origin_share, "(0, 1]", "of the budget")
        check_positive("characters_per_token", self.characters_per_token, "1.75 for Chinese laws")

    def tokens(self, text: str) -> int:
        """Return the estimated tokens of a text."""
        return math.ceil(len(text) / self.characters_per_token)
