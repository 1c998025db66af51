"""Items drawn from documents at random: what each says of its draw, and what the account says."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from soaes.data.annotation.item import ReviewDocument, Sample, window
from soaes.data.curation.document import CuratedDocument
from soaes.data.curation.passage_sampling import Draw, Population
from soaes.data.curation.passages import Passage


def count_strata(
    population: Population, draws: Sequence[Draw], elements: str
) -> dict[str, dict[str, int]]:
    """Return how many elements each stratum has, and how many of them were drawn."""
    drawn = Counter(draw.stratum for draw in draws)
    return {
        stratum: {elements: size, "drawn": drawn[stratum]}
        for stratum, size in population.sizes().items()
    }


def sample_of(draw: Draw, name: str) -> Sample:
    """Return what an item says of its draw."""
    return {
        "draw": name,
        "stratum": draw.stratum,
        "size": draw.size,
        "probability": draw.probability,
    }


def draw_name(drawn: Iterable[list[Any]]) -> str:
    """Return what tells a draw from others: a digest of what was drawn, and how likely."""
    return hashlib.sha256(json.dumps(list(drawn)).encode()).hexdigest()[:16]


def shown_part(document: CuratedDocument, span: Passage, context_chars: int) -> ReviewDocument:
    """Return the part of a document that may be shown with a passage."""
    text = document["text"]
    first, last = window(text, span.start, span.end, context_chars)
    return {
        "id": document["id"],
        "title": document["title"],
        "source": document["source"],
        "offset": first,
        "text": text[first:last],
    }
