"""Corpus: from a user's raw files to documents that are worth training on, one stage a step.

    raw files -> read -> clean -> deduplicate -> decontaminate -> score -> select
    -> soaes.stages.curate.files

A stage takes the folder of the one before and writes the documents that it keeps, every drop with
its rule, and an account (soaes.data.curation.document). Stages know files; what happens to a text
stands in soaes.data.curation, and how a format is read in soaes.data.readers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from soaes.data.curation import (
    characters,
    importance,
    near_duplicates,
    relevance,
    sources,
    versions,
)
from soaes.data.curation import cleaning as cleaning_rules
from soaes.data.curation import selection as selecting
from soaes.data.curation.curation_report import printable
from soaes.data.curation.decontamination import HELD_OUT, HeldOutQuestions
from soaes.data.curation.document import (
    CuratedDocument,
    Rejection,
    SourceDocument,
    StepOutput,
    curated,
    encodable,
    place_of,
    read_documents,
)
from soaes.data.curation.labels import LABELS, labelled_passages, read_labels
from soaes.data.curation.settings import (
    CleaningSettings,
    DeduplicationSettings,
    DomainSettings,
    SelectionSettings,
)
from soaes.data.curation.shared_lines import SharedLines
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.readers import encodings
from soaes.data.readers.base import Unreadable, check_num_lines, iso_date, name_title
from soaes.data.readers.reader_process import ReaderProcess
from soaes.data.readers.registry import Readers
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json

KINDS = ("general", "corpus")
MAX_DETAIL = 80  # characters of a question in drops.jsonl
JUDGED = "judged.jsonl"  # labelled passages with the score of their document
THRESHOLDS = tuple(step / 20 for step in range(20))  # of relevance, in frontier.json


def read(
    digest: str,
    *,
    root: str,
    readers: Mapping[str, str] | None = None,
    timeout: float,
    out: Path,
) -> None:
    """Read the documents of a user's folder: every file below general/ and corpus/.

    A file, page or record that cannot be read is named in drops.jsonl and stops nothing else, even
    if it crashes or holds the library that reads it (soaes.data.readers.reader_process).
    account.json has, beside the counts, the files and the fields that were not read.

    Args:
        digest: Digest of these files (soaes.data.curation.sources), which stands for them in the
            recipe.
        root: The user's folder.
        readers: Readers of the user's own by suffix, as dotted paths: `{sql: mine.read_sql}`.
        timeout: Seconds that a document may take; then its file is given up.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, also while it was read, or a
            reader cannot be imported.
    """
    sources.check_unchanged(root, digest, KINDS)
    registry = Readers(readers)  # also checks those of the user's
    listing = sources.listing(root)
    num_files: Counter[str] = Counter()
    fields_not_read: dict[str, Counter[str]] = defaultdict(Counter)
    with StepOutput("read", out) as output, ReaderProcess(registry, timeout) as process:
        for kind in KINDS:
            for file in listing[kind]:
                num_files[kind] += 1
                fields_not_read[kind].update(_read_file(root, kind, file, process, output))
        output.account.extra["files"] = {kind: num_files[kind] for kind in KINDS}
        output.account.extra["fields_not_read"] = {
            kind: dict(fields_not_read[kind].most_common()) for kind in KINDS
        }
    sources.check_unchanged(root, digest, KINDS)  # a file may change while others are read
    write_metrics(out, {"files": num_files.total(), **output.account.metrics()})


def clean(documents: Path, *, cleaning: CleaningSettings, out: Path) -> None:
    """Clean the documents by the rules that the settings name.

    account.json has what each rule did, with samples before and after. Of every document, the
    characters that were read are those that are kept and those that named rules removed; a rule
    that replaces characters one for one removes none.

    Args:
        documents: The folder of the stage before.
        cleaning: The rules, and the length below which a document is dropped.
        out: The stage's output folder.
    """
    shared_keys: dict[str, frozenset[str]] = {}
    if cleaning_rules.SHARED_LINES in cleaning.rules:
        counted = SharedLines()
        for document in read_documents(documents):
            counted.add(document)
        shared_keys = counted.keys()
    rules = cleaning_rules.rules(cleaning.rules, cleaning.boilerplate)
    rules_of = {
        origin: cleaning_rules.rules(cleaning.rules, cleaning.boilerplate, keys)
        for origin, keys in shared_keys.items()
    }
    min_chars = cleaning.min_chars
    with StepOutput("clean", out) as output:
        for document in output.documents(documents):
            num_read = len(document["text"])
            num_removed = 0
            pages = document.pop("page_starts", [])
            own_rules = rules_of.get(place_of(document), rules)
            for rule, text in cleaning_rules.cleaned(document["text"], pages, own_rules):
                num_removed += len(document["text"]) - len(text)
                document = output.change(document, rule, text)
            assert num_read == len(document["text"]) + num_removed, document["source"]
            document["title"] = characters.unified(characters.without_invisible(document["title"]))
            if len(document["text"]) < min_chars:
                output.drop(document, f"shorter than {min_chars} characters")
            else:
                output.keep(document)
    write_metrics(out, output.account.metrics())


def deduplicate(documents: Path, *, deduplication: DeduplicationSettings, out: Path) -> None:
    """Drop documents for which another one stands: equal, nearly equal, or a newer version.

    General text stands for the corpus, never the other way round. drops.jsonl names for each drop
    the document that stands for it, the rule, and the exact similarity of the two. A kept document
    that lacks a title, a date or a URL takes it over from one that it stands for, which is said in
    the detail of that drop and counted in account.json (`inherited`).

    Args:
        documents: The folder of the stage before.
        deduplication: What counts as a near-duplicate, and what becomes of versions.
        out: The stage's output folder.
    """
    with StepOutput("deduplicate", out) as output:
        with TemporaryDirectory(dir=out) as scratch:
            duplicates = near_duplicates.find(documents, deduplication, Path(scratch))
            near_duplicates.write_kept(documents, output, duplicates)
    bands, rows = deduplication.bands
    pairs = {f"pairs_{name}": duplicates.counts[name] for name in near_duplicates.COUNTS}
    write_metrics(out, {**output.account.metrics(), "bands": bands, "band_rows": rows, **pairs})


def decontaminate(documents: Path, held_out_questions: Path, *, out: Path) -> None:
    """Drop documents that hold a question of an exam, or of the user's dev or test questions.

    Args:
        documents: The folder of the stage before.
        held_out_questions: The folder of soaes.stages.curate.held_out_questions.
        out: The stage's output folder.
    """
    held_out = HeldOutQuestions.from_rows(read_jsonl(held_out_questions / HELD_OUT))
    with StepOutput("decontaminate", out) as output:
        for document in output.documents(documents):
            if question := held_out.question_in(document["text"]):
                rule = f"holds a question of {question.split}"
                output.drop(document, rule, detail=question.stem[:MAX_DETAIL])
            else:
                output.keep(document)
    write_metrics(out, output.account.metrics())


def score(documents: Path, labels: Path, *, domain: DomainSettings, out: Path) -> None:
    """Score every document: credibility, relevance and importance. None is dropped.

    Relevance comes from a scorer that is fitted to the user's labels, else from the density of the
    domain's terms; without terms too there is none. Writes, beside the documents with their
    `scores`: scoring.json, which says by what relevance was scored and how well; judged.jsonl, each
    labelled passage with the score of its document by a scorer that has seen neither; and scorer/,
    for stages that score other texts.

    Args:
        documents: Folder of the stage before.
        labels: Folder of soaes.stages.labelling.labels, whose labels are about the documents.
        domain: Topics, tiers and the day on which the corpus is looked at.
        out: The stage's output folder.

    Raises:
        ValueError: There are labels, and too few of them.
    """
    given = read_labels(labels / LABELS)
    labelled = list(labelled_passages(given, read_documents(documents)))
    fitted = None
    if given:
        from soaes.data.curation import relevance_training  # imported for seconds, and 100 MB

        fitted = relevance_training.fit(labelled, domain.topics)
    scorer: relevance.LinearScorer | relevance.TopicScorer | None = None
    if fitted:
        scorer = fitted.scorer
    elif domain.topics:
        scorer = relevance.TopicScorer(domain.topics)
    citations, newest = _citations(documents)
    as_of = domain.as_of or newest

    by_tier: Counter[int] = Counter()
    with StepOutput("score", out) as output:
        for document in output.documents(documents):
            scores = _scores(document, domain, citations, as_of)
            by_tier[int(scores["tier"])] += document["kind"] == "corpus"
            if scorer:
                scores["relevance"] = round(scorer.document(document["text"]), 6)
            output.keep({**document, "scores": scores})
    judged: Iterable[dict[str, Any]] = ()
    if fitted:
        judged = relevance_training.judged(fitted, labelled, read_documents(documents))
    write_jsonl(out / JUDGED, judged)
    if scorer:
        scorer.save(out / relevance.SCORER)
    summary = {
        "relevance_by": "labels" if fitted else "topics" if scorer else "nothing",
        "auc_unseen_families": fitted.auc if fitted else None,
        "labels": len(given),
        "labels_found": len(labelled),
        "as_of": as_of,
        "documents_by_tier": {tier: by_tier[tier] for tier in sorted(by_tier) if by_tier[tier]},
    }
    write_json(out / "scoring.json", summary)
    write_metrics(out, {"labels_found": len(labelled), **output.account.metrics()})


def select(documents: Path, *, selection: SelectionSettings, out: Path) -> None:
    """Keep the documents that the settings ask for; by default all of them.

    Documents of general/ and of corpus/expert/ are kept whatever they score; the latter count in
    the budget. frontier.json has what other thresholds of relevance would keep.

    Args:
        documents: Folder of the stage `score`.
        selection: Budget, threshold, tiers and caps.
        out: The stage's output folder.

    Raises:
        ValueError: A threshold is set, and there is no relevance.
    """
    candidates = selecting.Candidates()
    has_relevance = False
    for document in read_documents(documents):
        if document["kind"] == "corpus":
            scores = document["scores"]
            relevance_score = scores.get("relevance")
            has_relevance |= relevance_score is not None
            candidates.add(
                tier=int(scores["tier"]),
                relevance=relevance_score,
                importance=scores["importance"],
                tokens=selection.tokens(document["text"]),
                origin=document["origin"],
            )
    if selection.threshold is not None and candidates and not has_relevance:
        raise ValueError(
            f"selection.threshold={selection.threshold}: no document has a relevance; give "
            "domain.topics or labels/, or set the threshold to null"
        )
    reasons = iter(selecting.reasons(candidates, selection))
    num_tokens = 0  # of the corpus, which the budget limits
    with StepOutput("select", out) as output:
        for document in output.documents(documents):
            reason = next(reasons) if document["kind"] == "corpus" else ""
            if reason:
                output.drop(document, reason, detail=json.dumps(document["scores"]))
                continue
            if document["kind"] == "corpus":
                num_tokens += selection.tokens(document["text"])
            output.keep(document)
    judged = [selecting.Judged(**passage) for passage in read_jsonl(documents / JUDGED)]
    rows = selecting.frontier(candidates, judged, THRESHOLDS) if has_relevance else []
    frontier = [row._asdict() for row in rows]
    write_json(out / "frontier.json", {"judged": len(judged), "frontier": frontier})
    write_metrics(out, {"tokens": num_tokens, **output.account.metrics()})


def _read_file(
    root: str, kind: str, file: str, process: ReaderProcess, output: StepOutput
) -> Counter[str]:
    """Write the documents of a file; return how often each field was not read."""
    name = printable(file)
    reason, detail = sources.refusal(root, file)
    if reason:
        output.reject(Rejection(name, reason, detail))
        return Counter()
    fields_not_read: Counter[str] = Counter()
    source = ""
    num_same = 1  # documents of one source, such as records on one line
    for found in process.read(Path(root) / file, name):
        if isinstance(found, Rejection):
            output.reject(encodable(found))
            continue
        item = encodable(found)
        fields_not_read.update(item.unread)
        num_same = num_same + 1 if item.source == source else 1
        source = item.source
        if num_same > 1:
            item = replace(item, source=f"{source}:{num_same}")
        rejection = None
        try:
            if item.text != found.text:
                item, rejection = _without_broken_lines(item)
            document = _document(kind, name, item)
        except Unreadable as error:
            output.reject(Rejection(item.source, error.reason, error.detail))
            continue
        if rejection:
            output.reject(rejection)
        output.account.take(document)
        output.keep(document)
    return fields_not_read


def _without_broken_lines(item: SourceDocument) -> tuple[SourceDocument, Rejection | None]:
    """Take out the lines that held half a character, which an escape in JSON or a PDF can make.

    Raises:
        Unreadable: They are most of the text.
    """
    text, rejection = encodings.repaired(item.text, item.source)
    return replace(item, text=text, page_starts=()), rejection


def _document(kind: str, file: str, item: SourceDocument) -> CuratedDocument:
    """Return the record of a document.

    A document that is a file of its own and has no title or date has those of the file's name.

    Raises:
        Unreadable: It has no text, too many lines, or was decoded wrongly before it was saved.
    """
    if not item.text.strip():
        raise Unreadable("no text")
    check_num_lines(item.text)
    encodings.check_mojibake(item.text)
    if item.source == file:
        title = item.title or name_title(file)
        item = replace(item, title=title, date=item.date or iso_date(name_title(file)))
    return curated(kind, file, item)


def _citations(documents: Path) -> tuple[importance.Citations, str]:
    """Count who cites whom, and return the newest date of a document beside it."""
    titles = (document["title"] for document in read_documents(documents))
    citations = importance.Citations(titles)
    newest = date.min
    for document in read_documents(documents):
        citations.add(document["text"], document["title"])
        day = importance.parsed_day(versions.version_date(document))
        newest = max(newest, day or date.min)
    return citations, "" if newest == date.min else newest.isoformat()


def _scores(
    document: CuratedDocument, domain: DomainSettings, citations: importance.Citations, as_of: str
) -> dict[str, float]:
    """Return all scores of a document but its relevance."""
    title = document["title"]
    parts = importance.Importance(
        force=importance.legal_force(title),
        recency=importance.recency(versions.version_date(document), as_of),
        citations=citations.of(title),
        topics=importance.topic_coverage(document["text"], domain.topics),
    )
    tier = selecting.tier_of(document["origin"], document["url"], domain.tiers)
    scores = {"tier": tier, "importance": parts.score, **asdict(parts)}
    return {name: round(value, 6) for name, value in scores.items()}
