"""Labels: from documents to passages that people judge, and from what they say to labels.

    documents (data.decontaminate)    the documents whose relevance is to be scored
    draw_passages                     a probability sample of their passages, for the review page
    labels/ of the user's folder      exports of that review; files of labels
    labels                            all of it as labels.jsonl, to which `score` fits its scorer

Likewise from deduplication to what people say of it:

    documents (data.clean), deduplicate    what was dropped for what, and what was kept
    draw_pairs                             pairs near the threshold, for the review page
    pairs/ of the user's folder            exports of that review
    judged_pairs                           precision of the drops, share of missed pairs

Labels lie in a folder of their own and enter a recipe by its digest, so that no decision on a
question has the documents scored again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from soaes.data.annotation import item as contract
from soaes.data.annotation import pair_estimates
from soaes.data.annotation.agreement import agreement
from soaes.data.annotation.families import families
from soaes.data.annotation.item import Decision, ReviewItem
from soaes.data.annotation.pair_estimates import Stratum
from soaes.data.annotation.reviews import Reviewed, combined, folders_of, gather
from soaes.data.annotation.verdicts import common, pairs
from soaes.data.curation import near_duplicates, relevance, sources
from soaes.data.curation.curation_report import printable
from soaes.data.curation.document import (
    ACCOUNT,
    DROPS,
    CuratedDocument,
    read_documents,
    read_drops,
)
from soaes.data.curation.labels import (
    LABELS,
    Label,
    LabelledPassage,
    file_of,
    labelled_passages,
    read_labels,
)
from soaes.data.curation.near_duplicates import Similar
from soaes.data.curation.passage_sampling import Draw, Kinds, Population
from soaes.data.curation.passages import Fingerprint, Passage, fingerprint, passages
from soaes.data.curation.settings import DeduplicationSettings, PairDrawing, PassageDrawing
from soaes.data.jsonl import write_jsonl
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json, write_text

PAIRS = "pairs.json"
DROPPED, KEPT = "dropped", "kept"  # what became of a pair
BANDS = 20  # of similarity, between 0 and 1
# Why an item or a label is not used, beside what people's decisions come to.
NO_PASSAGE = "no passage's relevance"
CONTRADICTING = "labels contradict each other"
CHANGED = "its document changed: the passage is not there any more"
GONE = "its document is gone"
NO_PAIR = "no pair of documents that was drawn"

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
    strata = _drawn_of(population, draws, "passages")
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
        "num_dropped": len(drops),
    }
    write_metrics(out, metrics)


def draw_pairs(
    documents: Path,
    deduplicated: Path,
    *,
    deduplication: DeduplicationSettings,
    drawing: PairDrawing,
    out: Path,
) -> None:
    """Draw pairs of documents that were taken for near-duplicates, or nearly.

    Strata are what became of a pair (one was dropped for the other, or both were kept) and the band
    of its similarity. Of the documents that were kept, all pairs count that are at least as similar
    as `lowest`, whatever kept them apart. Equal texts and older versions are not drawn.

    Writes items.jsonl of kind near_duplicate, and account.json: every stratum with its size.

    Args:
        documents: Folder of the documents before deduplication.
        deduplicated: Folder of soaes.stages.corpus.deduplicate.
        deduplication: Its settings.
        drawing: How many pairs, and from which similarity.
        out: The stage's output folder.

    Raises:
        ValueError: No two documents are so similar.
    """
    dropped, num_too_long = _dropped_pairs(documents, deduplicated, drawing.max_chars)
    with TemporaryDirectory(dir=out) as scratch:
        looser = replace(deduplication, jaccard=drawing.lowest)
        kept, num_not_compared = near_duplicates.similar(
            deduplicated, looser, drawing.max_chars, Path(scratch)
        )
    population = Population()
    for fate, similar in ((DROPPED, dropped), (KEPT, kept)):
        for pair in similar:
            population.add(f"{fate}/{_band(pair.similarity)}", [""])
    if not len(population):
        raise ValueError(
            f"{deduplicated.name}: no two documents are similar enough to be judged; lower "
            f"data.draw_pairs.drawing.lowest={drawing.lowest}"
        )
    # as many as there are strata: of each at least one pair, since all are drawn alike often
    number = max(drawing.number, len(population.sizes()))
    draws = population.draw(number, 1, drawing.seed)
    items = _pair_items(documents, [*dropped, *kept], draws)
    contract.write_items(out / contract.ITEMS, items)
    account = {
        "dropped": len(dropped),
        "kept": len(kept),
        "too_long": num_too_long,
        "not_compared": num_not_compared,
        "strata": _drawn_of(population, draws, "pairs"),
    }
    write_json(out / ACCOUNT, account)
    metrics = {
        "items": len(items),
        "dropped": len(dropped),
        "kept": len(kept),
        "num_too_long": num_too_long,
        "num_not_compared": num_not_compared,
    }
    write_metrics(out, metrics)


def judged_pairs(digest: str, *, root: str, out: Path) -> None:
    """Measure deduplication by what people said of the pairs that were drawn.

    Writes pairs.json: the share of dropped pairs that are duplicates, and the share of all
    duplicates that were kept (soaes.data.annotation.pair_estimates), with 95 % intervals, by
    stratum and with the agreement of people, and the strata whose size differs between draws, as
    of other documents. Writes drops.jsonl: each item that gives no pair, with its reason. Changes
    no decision.

    Args:
        digest: Digest of pairs/ in the user's folder, which stands for it in the recipe.
        root: The user's folder.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, holds something else than exports,
            or no pair that was drawn.
    """
    sources.check_unchanged(root, digest, (sources.PAIRS,))
    folders, others = folders_of(sources.listing(root)[sources.PAIRS])
    if others:
        raise ValueError(
            f"{printable(others[0])}: is no file of an export; move it out of {sources.PAIRS}/"
        )
    reviewed = gather(Path(root), folders)
    strata, drops = _judged(reviewed)
    if not strata:
        raise ValueError(
            f"{root}/{sources.PAIRS}: no pair that data.draw_pairs drew; review its folder, and "
            "export it there"
        )
    precision = pair_estimates.precision(list(strata.values()))
    missed = pair_estimates.missed(list(strata.values()))
    agreed = _agreement(reviewed, "near_duplicate")
    several = _of_several_sizes(reviewed)
    if several:
        print(
            f"the draws in {sources.PAIRS}/ are not of the same documents: {', '.join(several)} "
            "have several sizes, and the largest counts; for exact figures keep one draw there"
        )
    report = {
        "precision": precision._asdict() if precision else None,
        "missed": missed._asdict() if missed else None,
        "strata": {name: asdict(stratum) for name, stratum in strata.items()},
        "of_several_sizes": several,
        "dropped": dict(Counter(drop["rule"] for drop in drops).most_common()),
        "agreement": agreed,
    }
    write_jsonl(out / DROPS, drops)
    write_json(out / PAIRS, report)
    metrics: dict[str, Any] = {
        "precision": precision.value if precision else None,
        "missed": missed.value if missed else None,
        "decided": sum(stratum.decided for stratum in strata.values()),
    }
    for name, share in (("precision", precision), ("missed", missed)):
        if share:
            metrics |= {f"{name}_low": share.low, f"{name}_high": share.high}
            print(f"{name}: {share.value} [{share.low:.4f}, {share.high:.4f}]")
    write_metrics(out, {**metrics, "num_dropped": len(drops)})


# --------------------------------------------------------------------------------- draw_passages


def _drawn_of(
    population: Population, draws: Sequence[Draw], elements: str
) -> dict[str, dict[str, int]]:
    """Return how many elements each stratum has, and how many of them were drawn."""
    drawn = Counter(draw.stratum for draw in draws)
    return {
        stratum: {elements: size, "drawn": drawn[stratum]}
        for stratum, size in population.sizes().items()
    }


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
            drawn.append((draw, span, _part(document, span, context_chars)))
    name = _name([part["id"], *span, draw.probability] for draw, span, part in drawn)
    return [
        contract.review_item(
            "relevance",
            document=part,
            span=(span.start - part["offset"], span.end - part["offset"]),
            sample=_sample(draw, name),
        )
        for draw, span, part in drawn
    ]


def _sample(draw: Draw, name: str) -> contract.Sample:
    """Return what an item says of its draw."""
    return {
        "draw": name,
        "stratum": draw.stratum,
        "size": draw.size,
        "probability": draw.probability,
    }


def _part(document: CuratedDocument, span: Passage, context_chars: int) -> contract.ReviewDocument:
    """Return the part of a document that may be shown with a passage."""
    text = document["text"]
    first, last = contract.window(text, span.start, span.end, context_chars)
    return {
        "id": document["id"],
        "title": document["title"],
        "source": document["source"],
        "offset": first,
        "text": text[first:last],
    }


def _name(drawn: Iterable[list[Any]]) -> str:
    """Return what tells a draw from others: a digest of what was drawn, and how likely."""
    return hashlib.sha256(json.dumps(list(drawn)).encode()).hexdigest()[:16]


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
        word = common(decisions, _word) if item["kind"] == "relevance" else NO_PASSAGE
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


def _word(decision: Decision) -> str:
    return decision["verdict"]


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
        "agreement": _agreement(reviewed, "relevance"),
    }


def _agreement(reviewed: Reviewed, kind: str) -> dict[str, Any]:
    """Return how well two people agree on the items of a kind."""
    decisions_of = (
        decisions
        for identifier, decisions in reviewed.decisions.items()
        if reviewed.items[identifier]["kind"] == kind
    )
    agreed = agreement(pairs(decisions_of, _word))
    return {
        "pairs": agreed.items,
        "raw": agreed.raw,
        "kappa": agreed.kappa,
        "interval": [agreed.low, agreed.high],
    }


def _drop(unused: Unused) -> dict[str, Any]:
    """Return the line of drops.jsonl for a label; it names the passage without its text."""
    record = unused.label.record()
    detail = f"letters {record['letters']}, hash {record['hash']}, label {record['label']}"
    return {"source": record["source"], "rule": unused.rule, "item": "", "detail": detail}


# ----------------------------------------------------------------------------------------- pairs


def _dropped_pairs(
    documents: Path, deduplicated: Path, max_chars: int
) -> tuple[list[Similar], int]:
    """Return the near-duplicates that were dropped, and how many are too long to be shown."""
    pairs_of_drops = [
        Similar(drop["id"], drop["keeper"], drop["similarity"] or 0.0)
        for drop in read_drops(deduplicated)
        if drop["rule"] == near_duplicates.NEAR
    ]
    wanted = {name for pair in pairs_of_drops for name in (pair.first, pair.second)}
    short = {
        document["id"]
        for document in read_documents(documents)
        if document["id"] in wanted and len(document["text"]) <= max_chars
    }
    shown = [pair for pair in pairs_of_drops if {pair.first, pair.second} <= short]
    return shown, len(pairs_of_drops) - len(shown)


def _band(similarity: float) -> str:
    """Return the band of a similarity, by where it begins: 0.80."""
    return f"{min(BANDS - 1, int(similarity * BANDS + 1e-9)) / BANDS:.2f}"


def _pair_items(
    documents: Path, similar: Sequence[Similar], draws: Sequence[Draw]
) -> list[ReviewItem]:
    """Return the items of the pairs that were drawn; which document was kept does not show."""
    drawn = [(draw, sorted(similar[draw.document][:2])) for draw in draws]
    wanted = {name for _, names in drawn for name in names}
    whole: dict[str, contract.ReviewDocument] = {}
    for document in read_documents(documents):
        if document["id"] in wanted:
            whole[document["id"]] = _part(document, Passage(0, len(document["text"])), 0)
    name = _name([*names, draw.probability] for draw, names in drawn)
    return [
        contract.review_item(
            "near_duplicate",
            document=whole[first],
            other=whole[second],
            sample=_sample(draw, name),
        )
        for draw, (first, second) in drawn
    ]


def _of_several_sizes(reviewed: Reviewed) -> list[str]:
    """Return the strata whose size differs between draws, in alphabetical order."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for item in reviewed.items.values():
        sample = item.get("sample")
        if sample is not None and item["kind"] == "near_duplicate":
            sizes[sample["stratum"]].add(sample["size"])
    return sorted(name for name, found in sizes.items() if len(found) > 1)


def _judged(reviewed: Reviewed) -> tuple[dict[str, Stratum], list[dict[str, Any]]]:
    """Return what people said of each stratum, and a drop for every item that says nothing."""
    strata: dict[str, Stratum] = {}
    drops = []
    for identifier, item in sorted(reviewed.items.items()):
        sample = item.get("sample")
        is_pair = item["kind"] == "near_duplicate" and sample is not None
        word = common(reviewed.decisions[identifier], _word) if is_pair else NO_PAIR
        if sample is not None and is_pair:
            name = sample["stratum"]
            known = strata.get(name) or Stratum(name.startswith(DROPPED), 0, 0, 0)
            decided = known.decided + (word in ("yes", "no"))
            strata[name] = replace(
                known,
                size=max(known.size, sample["size"], decided),  # of several draws the largest
                decided=decided,
                duplicates=known.duplicates + (word == "yes"),
            )
        if word not in ("yes", "no"):
            drops.append({"rule": word, "item": identifier})
    return dict(sorted(strata.items())), drops
