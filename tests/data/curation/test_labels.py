"""Labels without text find their passages in the documents of their own file."""

import json

import pytest

from soaes.data.curation.document import SourceDocument, curated
from soaes.data.curation.labels import labelled_passages, read_labels
from soaes.data.curation.passages import fingerprint

PASSAGE = "国有独资公司的章程由履行出资人职责的机构制定。"


def label(text=PASSAGE, source="corpus/law.md", **fields):
    letters, value = fingerprint(text)
    return {"source": source, "letters": letters, "hash": f"{value:016x}", "label": 1} | fields


def written(path, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def document(text, source):
    return curated("corpus", source.partition("#")[0], SourceDocument(text, source))


def test_a_label_is_found_in_its_own_file_alone_and_once(tmp_path):
    records = [label(), label(source="corpus/dump.sql#3", family="f", probability=0.5, label=0)]
    labels = read_labels(written(tmp_path / "labels.jsonl", *records, ""))
    documents = [
        document("另一部法律。" + PASSAGE, "corpus/other.md"),
        document("第一条。\n" + PASSAGE, "corpus/law.md"),
        document("无关。", "corpus/dump.sql#2"),
        document(PASSAGE, "corpus/dump.sql#3"),
        document(PASSAGE, "corpus/dump.sql#4"),
    ]
    found = list(labelled_passages(labels, documents))
    assert [passage.text.rstrip("。") for passage in found] == [PASSAGE.rstrip("。")] * 2
    assert [passage.document for passage in found] == [documents[1]["id"], documents[3]["id"]]
    assert [passage.label.relevant for passage in found] == [True, False]
    assert [passage.label.family for passage in found] == ["", "f"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        label(label=2),
        label(label="1"),
        label(hash="国"),
        label(probability=0),
        label(probability="0.5"),
        {"source": "a"},
        label(source=5),
        label(family=["a"]),
        label(hash="f" * 40),
        label(letters=-1),
        "[" * 200_000,
    ],
    ids=[
        *("json", "list", "label 2", "label text", "hash", "zero", "probability text", "missing"),
        *("source", "family", "long hash", "letters", "deep"),
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path, line):
    path = written(tmp_path / "labels.jsonl", label(), line)
    with pytest.raises(ValueError, match=r"labels.jsonl:2: no label .*docs/relevance.md"):
        read_labels(path)


def test_labels_are_utf_8_with_or_without_a_mark(tmp_path):
    path = written(tmp_path / "labels.jsonl", label())
    expected = read_labels(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_labels(path) == expected
    path.write_bytes('{"source": "语料"}\n'.encode("gb18030"))
    with pytest.raises(ValueError, match=r"labels.jsonl:1: no label \(UnicodeDecodeError"):
        read_labels(path)
