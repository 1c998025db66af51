"""Labels: from documents to passages that people judge, and from what they say to labels.

    documents (data.decontaminate)    the documents whose relevance is to be scored
    draw_passages                     a probability sample of their passages, for the review page
    labels/ of the user's folder      exports of that review; files of labels
    labels                            all of it as labels.jsonl, to which `score` fits its scorer

Labels lie in a folder of their own and enter a recipe by its digest, so that no decision on a
question has the documents scored again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from soaes.data.annotation import item as contract
from soaes.data.annotation.drawn_items import count_strata, draw_name, sample_of, shown_part
from soaes.data.annotation.families import families
from soaes.data.annotation.item import ReviewItem
from soaes.data.annotation.reviews import Reviewed, combined, folders_of, gather
from soaes.data.annotation.verdicts import common, verdict
from soaes.data.curation import relevance, sources
from soaes.data.curation.curation_report import printable
from soaes.data.curation.document import ACCOUNT, DROPS, CuratedDocument, read_documents
from soaes.data.curation.labels import (
    LABELS,
    Label,
    LabelledPassage,
    file_of,
    labelled_passages,
    read_labels,
)
from soaes.data.curation.passage_sampling import Draw, Kinds, Population
from soaes.data.curation.passages import Fingerprint, Passage, fingerprint, passages
from soaes.data.curation.settings import PassageDrawing
from soaes.data.jsonl import write_jsonl
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json, write_text

# Why an item or a label is not used, beside what people's decisions come to.
NO_PASSAGE = "no passage's relevance"
CONTRADICTING = "labels contradict each other"
CHANGED = "its document changed: the passage is not there any more"
GONE = "its document is gone"

_Passage = tuple[str, Fingerprint]  # a passage, by its file


class Unused(NamedTuple):
    """A label that is not used, and why."""

    label: Label
    rule: str


def draw_passages(
    documents: Path, *, drawing: PassageDrawing, rubric: str | None = None, out: Path
) -> None:
    """Draw the passages of the corpus that people are asked about.

    Writes items.jsonl of kind relevance (soaes.data.annotation.item), each with its stratum and the
    probability with which it was drawn; account.json: every stratum with its size; and rubric.md,
    where there is one. Strata are the origin of a document, how many of the topics' terms a passage
    has and, of documents that were scored by labels, the band of its probability.

    Args:
        documents: Folder of a stage of soaes.stages.corpus.
        drawing: How many passages, and by which terms.
        rubric: By what people judge; None: by the page's own question.
        out: The stage's output folder.

    Raises:
        ValueError: No document of the corpus has a passage.
    """
    kinds_of = Kinds(drawing.topics, _scorer(documents))
    population = Population()
    for document in _corpus(documents):
        spans = list(passages(document["text"]))
        population.add(document["origin"], kinds_of(document, spans))
    if not len(population):
        raise ValueError(f"{documents.name}: no document of the corpus has a passage to label")
    draws = population.draw(drawing.number, drawing.max_per_document, drawing.seed)
    items = _items(documents, draws, drawing.context_chars)
    contract.write_items(out / contract.ITEMS, items)
    if rubric:
        write_text(out / contract.RUBRIC, rubric)
    strata = count_strata(population, draws, "passages")
    write_json(out / ACCOUNT, {"passages": len(population), "strata": strata})
    metrics = {
        "items": len(items),
        "documents": len({draw.document for draw in draws}),
        "passages": len(population),
        "strata": len(strata),
    }
    write_metrics(out, metrics)


def labels(documents: Path, digest: str, *, root: str, out: Path) -> None:
    """Make labels of all that people said of passages, and find the passages.

    A label comes from a file of labels (soaes.data.curation.labels) or from an export of the review
    page. It is used if everyone who decided on its passage agrees, and if the passage stands in the
    documents as they are now. Where a family is not given, it is that of near-duplicates and of
    documents of one title, as in soaes.stages.annotation.adopt.

    Writes labels.jsonl; drops.jsonl, every label and every item that is not used, with its reason;
    and account.json, with the agreement of people and the share of relevant passages.

    Args:
        documents: Folder of the stage whose documents are scored.
        digest: Digest of labels/ in the user's folder, which stands for it in the recipe.
        root: The user's folder.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, or a file is none of labels.
    """
    sources.check_unchanged(root, digest, (sources.LABELS,))
    folders, files = folders_of(sources.listing(root)[sources.LABELS])
    of_files = [label for name in files for label in _of_file(root, name)]
    reviewed = gather(Path(root), folders)
    of_reviews, drops = _of_reviews(reviewed)
    given, contradicting = _merged(of_files, of_reviews)
    found, missing = _found(given, documents)
    drops += map(_drop, [*contradicting, *missing])
    records = [
        {**replace(passage.label, family=family).record(), "document": passage.document}
        for passage, family in zip(found, _families(found, documents), strict=True)
    ]
    write_jsonl(out / LABELS, records)
    write_jsonl(out / DROPS, drops)
    num_families = len({record["family"] for record in records})
    account = _account(found, len(of_files), reviewed, drops)
    write_json(out / ACCOUNT, {**account, "families": num_families})
    metrics = {
        "labels": len(found),
        "relevant": account["relevant"],
        "families": num_families,
        "num_replaced": reviewed.num_replaced,
        "num_dropped": len(drops),
    }
    write_metrics(out, metrics)


# --------------------------------------------------------------------------------- draw_passages


def _scorer(documents: Path) -> relevance.LinearScorer | None:
    """Return the scorer that was fitted to labels, if the documents were scored by one."""
    folder = documents / relevance.SCORER
    scorer = relevance.load(folder) if folder.is_dir() else None
    return scorer if isinstance(scorer, relevance.LinearScorer) else None


def _corpus(documents: Path) -> Iterator[CuratedDocument]:
    """Yield the documents whose relevance counts: general text has none."""
    return (each for each in read_documents(documents) if each["kind"] == "corpus")


def _items(documents: Path, draws: Sequence[Draw], context_chars: int) -> list[ReviewItem]:
    """Return the items of the passages that were drawn."""
    draws_of: dict[int, list[Draw]] = defaultdict(list)
    for draw in draws:
        draws_of[draw.document].append(draw)
    drawn: list[tuple[Draw, Passage, contract.ReviewDocument]] = []
    for number, document in enumerate(_corpus(documents)):
        if number not in draws_of:
            continue
        spans = list(passages(document["text"]))
        for draw in draws_of[number]:
            span = spans[draw.passage]
            drawn.append((draw, span, shown_part(document, span, context_chars)))
    name = draw_name([part["id"], *span, draw.probability] for draw, span, part in drawn)
    return [
        contract.review_item(
            "relevance",
            document=part,
            span=(span.start - part["offset"], span.end - part["offset"]),
            sample=sample_of(draw, name),
        )
        for draw, span, part in drawn
    ]


# ---------------------------------------------------------------------------------------- labels


def _of_file(root: str, name: str) -> list[Label]:
    """Return the labels of a file."""
    reason, detail = sources.refusal(root, name)
    if reason:
        raise ValueError(f"{printable(name)}: {reason} ({detail})")
    return read_labels(Path(root) / name)


def _of_reviews(reviewed: Reviewed) -> tuple[list[Label], list[dict[str, Any]]]:
    """Return the labels on which people agree, and a drop for every other item."""
    agreed = []
    drops = []
    for identifier, item in sorted(reviewed.items.items()):
        decisions = reviewed.decisions[identifier]
        word = common(decisions, verdict) if item["kind"] == "relevance" else NO_PASSAGE
        if word in ("yes", "no"):
            agreed.append(_label(item, word == "yes", reviewed.probability(identifier)))
        else:
            people = ", ".join(decision["reviewer"] for decision in decisions)
            source = item["document"]["source"]
            drops.append({"source": source, "rule": word, "item": identifier, "detail": people})
    return agreed, drops


def _label(item: ReviewItem, relevant: bool, probability: float) -> Label:
    document = item["document"]
    start, end = item["span"] or (0, len(document["text"]))
    known_by = fingerprint(document["text"][start:end])
    return Label(document["source"], known_by, relevant, probability, family="")


def _merged(
    of_files: Sequence[Label], of_reviews: Sequence[Label]
) -> tuple[list[Label], list[Unused]]:
    """Return one label for each passage; labels that contradict each other are not used.

    A passage counts once for each draw that took it. All files are taken for one draw.
    """
    in_files, in_reviews = _by_passage(of_files), _by_passage(of_reviews)
    merged = []
    unused = []
    for key in {**in_files, **in_reviews}:
        given = [*in_files.get(key, ()), *in_reviews.get(key, ())]
        if len({label.relevant for label in given}) > 1:
            unused += [Unused(label, CONTRADICTING) for label in given]
            continue
        drawn = [*in_files.get(key, ())[:1], *in_reviews.get(key, ())]
        probability = combined([label.probability for label in drawn])
        merged.append(replace(drawn[0], probability=probability))
    return merged, unused


def _by_passage(given: Sequence[Label]) -> dict[_Passage, list[Label]]:
    labels_of: dict[_Passage, list[Label]] = defaultdict(list)
    for label in given:
        labels_of[label.file, label.fingerprint].append(label)
    return labels_of


def _found(given: Sequence[Label], documents: Path) -> tuple[list[LabelledPassage], list[Unused]]:
    """Return the labels whose passages stand in the documents, and the others."""
    if not given:
        return [], []
    files: set[str] = set()

    def noted() -> Iterator[CuratedDocument]:
        for document in read_documents(documents):
            files.add(file_of(document["source"]))
            yield document

    found = list(labelled_passages(given, noted()))
    known = {(passage.label.file, passage.label.fingerprint) for passage in found}
    missing = [
        Unused(label, CHANGED if label.file in files else GONE)
        for label in given
        if (label.file, label.fingerprint) not in known
    ]
    return found, missing


def _families(found: Sequence[LabelledPassage], documents: Path) -> list[str]:
    """Return the family of each label: its own, else the one of documents like its own."""
    if all(passage.label.family for passage in found):
        return [passage.label.family for passage in found]
    wanted = {passage.document for passage in found}
    family_of = families(
        {
            document["id"]: (document["title"], document["text"])
            for document in read_documents(documents)
            if document["id"] in wanted
        }
    )
    given: dict[str, str] = {}
    for passage in found:
        if passage.label.family:
            given.setdefault(family_of[passage.document], passage.label.family)
    names = {family: given.get(family, family) for family in family_of.values()}
    return [passage.label.family or names[family_of[passage.document]] for passage in found]


def _account(
    found: Sequence[LabelledPassage],
    num_of_files: int,
    reviewed: Reviewed,
    drops: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of account.json but for families."""
    relevant = [passage.label for passage in found if passage.label.relevant]
    weight = sum(1 / passage.label.probability for passage in found)
    relevant_weight = sum(1 / label.probability for label in relevant)
    return {
        "labels": len(found),
        "relevant": len(relevant),
        "share_relevant": relevant_weight / weight if found else None,  # of the corpus
        "of_files": num_of_files,
        "of_reviews": len(reviewed.items),
        "dropped": dict(Counter(drop["rule"] for drop in drops).most_common()),
        "agreement": reviewed.agreement("relevance"),
    }


def _drop(unused: Unused) -> dict[str, Any]:
    """Return the line of drops.jsonl for a label; it names the passage without its text."""
    record = unused.label.record()
    detail = f"letters {record['letters']}, hash {record['hash']}, label {record['label']}"
    return {"source": record["source"], "rule": unused.rule, "item": "", "detail": detail}
