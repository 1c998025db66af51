"""Corpus: from a user's raw files to documents that are worth training on, one stage a step.

    raw files -> read -> ... -> soaes.stages.curate.files

A stage takes the folder of the one before and writes the documents that it keeps, every drop with
its rule, and an account (soaes.data.curation.document). Stages know files; what happens to a text
stands in soaes.data.curation, and how a format is read in soaes.data.readers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from soaes.data.curation import sources
from soaes.data.curation.curation_report import printable
from soaes.data.curation.document import (
    CuratedDocument,
    Rejection,
    SourceDocument,
    StepOutput,
    curated,
)
from soaes.data.readers import encodings
from soaes.data.readers.base import Unreadable, iso_date, name_title
from soaes.data.readers.registry import Readers
from soaes.metrics.schema import write_metrics

KINDS = ("general", "corpus")
SURROGATE = re.compile("[\ud800-\udfff]")


def read(digest: str, *, root: str, readers: Mapping[str, str] | None = None, out: Path) -> None:
    """Read the documents of a user's folder: every file below general/ and corpus/.

    A file, page or record that cannot be read is named in drops.jsonl and stops nothing else.
    account.json has, beside the counts, the files and the fields that were not read.

    Args:
        digest: Digest of these files (soaes.data.curation.sources), which stands for them in the
            recipe.
        root: The user's folder.
        readers: Readers of the user's own by suffix, as dotted paths: `{sql: mine.read_sql}`.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, or a reader cannot be imported.
    """
    sources.check_unchanged(root, digest, KINDS)
    registry = Readers(readers)
    listing = sources.listing(root)
    num_files: Counter[str] = Counter()
    fields_not_read: dict[str, Counter[str]] = defaultdict(Counter)
    with StepOutput("read", out) as output:
        for kind in KINDS:
            for file in listing[kind]:
                num_files[kind] += 1
                fields_not_read[kind].update(_read_file(root, kind, file, registry, output))
        output.account.extra["files"] = {kind: num_files[kind] for kind in KINDS}
        output.account.extra["fields_not_read"] = {
            kind: dict(fields_not_read[kind].most_common()) for kind in KINDS
        }
    write_metrics(out, {"files": num_files.total(), **output.account.metrics()})


def _read_file(
    root: str, kind: str, file: str, registry: Readers, output: StepOutput
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
    for item in registry.read(Path(root) / file, name):
        if isinstance(item, Rejection):
            output.reject(item)
            continue
        fields_not_read.update(item.unread)
        num_same = num_same + 1 if item.source == source else 1
        source = item.source
        if num_same > 1:
            item = replace(item, source=f"{source}:{num_same}")
        try:
            item, rejection = _encodable(item)
            document = _document(kind, name, item)
        except Unreadable as error:
            output.reject(Rejection(item.source, error.reason, error.detail))
            continue
        if rejection:
            output.reject(rejection)
        output.account.take(document)
        output.keep(document)
    return fields_not_read


def _encodable(item: SourceDocument) -> tuple[SourceDocument, Rejection | None]:
    """Take out the lines that hold half a character, which an escape in JSON or a PDF can make.

    Raises:
        Unreadable: They are most of the text.
    """
    title, text = (SURROGATE.sub(encodings.REPLACEMENT, value) for value in (item.title, item.text))
    if (title, text) == (item.title, item.text):
        return item, None
    text, rejection = encodings.repaired(text, item.source)
    return replace(item, title=title, text=text, page_starts=()), rejection


def _document(kind: str, file: str, item: SourceDocument) -> CuratedDocument:
    """Return the record of a document.

    A document that is a file of its own and has no title or date has those of the file's name.

    Raises:
        Unreadable: It has no text, or one that was decoded wrongly before it was saved.
    """
    if not item.text.strip():
        raise Unreadable("no text")
    encodings.check_mojibake(item.text)
    if item.source == file:
        title = item.title or name_title(file)
        item = replace(item, title=title, date=item.date or iso_date(name_title(file)))
    return curated(kind, file, item)
