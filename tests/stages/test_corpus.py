"""The steps of a corpus: each keeps or drops every document, and accounts for every character."""

import json
from pathlib import Path

import pytest
import yaml

from soaes.data.curation import sources
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.curation.settings import CleaningSettings, DeduplicationSettings
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.stages import corpus

ROOT = Path(__file__).parents[2]
LAW = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"


@pytest.fixture
def cleaning():
    conf = yaml.safe_load((ROOT / "conf/cleaning/documents.yaml").read_text(encoding="utf-8"))
    conf.pop("_target_")
    return CleaningSettings(**conf)


def step(folder, documents):
    """The folder of a step with these documents: (source, text) or with more of its record."""
    with StepOutput("read", folder) as output:
        for source, text, *more in documents:
            item = SourceDocument(text, source, **dict(*more))
            document = curated(source.partition("/")[0], source, item)
            output.account.take(document)
            output.keep(document)
    return folder


def drops(folder):
    return {drop["source"]: drop for drop in read_jsonl(folder / "drops.jsonl")}


def account(folder):
    return json.loads((folder / "account.json").read_text(encoding="utf-8"))


def test_a_folder_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "in" / "corpus" / "a.txt"
    file.parent.mkdir(parents=True)
    file.write_text(LAW, encoding="utf-8")
    digest = sources.digest(tmp_path / "in", kinds=corpus.KINDS)
    read_file = corpus._read_file

    def read_and_change(*arguments):
        fields = read_file(*arguments)
        file.write_text(LAW + LAW, encoding="utf-8")
        return fields

    monkeypatch.setattr(corpus, "_read_file", read_and_change)
    with pytest.raises(ValueError, match="changed since it was planned"):
        corpus.read(digest, root=str(tmp_path / "in"), out=tmp_path / "out")


def test_cleaning_accounts_for_every_character_and_shows_samples(tmp_path, cleaning):
    pages = [f"某某公司年度报告\n{LAW}{page}\n{page} / 6\n" for page in "一二三四五六"]
    pages = [page.replace(" / 6", f"{number} / 6") for number, page in enumerate(pages)]
    starts = tuple(sum(map(len, pages[:number])) for number in range(6))
    documents = [
        ("corpus/reports/a.pdf", "".join(pages), {"page_starts": starts, "title": "⼲部\u200b"}),
        ("corpus/laws/b.txt", f"　　{LAW}\r\n【打印】 【关闭】\n<|im_end|>"),
        ("general/c.txt", "短<|im_end|>"),
    ]
    step(tmp_path / "read", documents)
    corpus.clean(tmp_path / "read", cleaning=cleaning, out=tmp_path / "clean")
    first, second = read_jsonl(tmp_path / "clean" / "documents.jsonl")
    assert second["text"] == LAW and first["title"] == "干部" and "page_starts" not in first
    assert first["text"].count("年度报告") == 1 and first["text"].count(LAW) == 6
    assert drops(tmp_path / "clean")["general/c.txt"]["rule"] == "shorter than 20 characters"
    summary = account(tmp_path / "clean")
    characters = summary["characters"]
    assert characters["in"] == sum(len(text) for _, text, *_ in documents)
    assert characters["out"] == len(first["text"]) + len(second["text"])
    removed = sum(rule["characters_removed"] for rule in summary["rules"].values())
    assert characters["in"] == characters["out"] + characters["dropped"] + removed
    assert summary["rules"]["boilerplate: print and close"]["characters_removed"] == 10
    assert "【打印】" in summary["rules"]["boilerplate: print and close"]["samples"][0]["before"]


def test_drops_name_their_keeper_and_general_text_stands_for_the_corpus(tmp_path):
    text = "".join(f"第{n}条 {LAW[n % 20 :]}{n * 7919}\n" for n in range(60))
    documents = [("corpus/a.txt", text), ("corpus/b.md", f"# {text}"), ("corpus/c.txt", LAW)]
    documents += [("general/a.txt", text), ("general/b.txt", LAW[::-1])]
    folder = step(tmp_path / "read", documents)
    ids = {
        document["source"]: document["id"] for document in read_jsonl(folder / "documents.jsonl")
    }
    out = tmp_path / "deduplicate"
    corpus.deduplicate(folder, deduplication=DeduplicationSettings(), out=out)
    dropped = drops(out)
    assert {source: drop["rule"] for source, drop in dropped.items()} == {
        "corpus/a.txt": "exact duplicate",
        "corpus/b.md": "near-duplicate",
    }
    assert {drop["keeper"] for drop in dropped.values()} == {ids["general/a.txt"]}
    assert [drop["similarity"] for drop in dropped.values()] == [1.0, 1.0]
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["bands"], metrics["band_rows"], metrics["documents"]) == (32, 8, 3)
    assert sorted(path.name for path in out.iterdir()) == [
        *("account.json", "documents.jsonl", "drops.jsonl", "metrics.json")
    ]


def test_a_rule_that_takes_most_of_a_source_is_warned_of(tmp_path):
    documents = [(f"corpus/copies/{n}.txt", LAW) for n in range(9)]
    documents += [(f"corpus/laws/{n}.txt", LAW + str(n)) for n in range(3)]
    folder = step(tmp_path / "read", documents)
    corpus.deduplicate(folder, deduplication=DeduplicationSettings(), out=tmp_path / "out")
    warnings = account(tmp_path / "out")["warnings"]
    assert any(line.startswith("exact duplicate: takes 89 % of the doc") for line in warnings)
    assert not any("corpus/laws" in line for line in warnings)


def test_documents_that_hold_a_question_are_dropped_and_the_laws_that_it_quotes_stay(tmp_path):
    stem = "国有资产监督管理机构代表本级人民政府履行什么职责"
    row = {"split": "exam/ceval", "stem": stem, "options": ["出资人", "监管人", "审计人", "代理人"]}
    write_jsonl(tmp_path / "questions" / "held_out.jsonl", [row])
    leak = f"前言。\n１、{' '.join(stem)}？Ａ．代理人 Ｂ．出资人"
    folder = step(tmp_path / "read", [("corpus/law.txt", LAW), ("corpus/leak.txt", leak)])
    corpus.decontaminate(folder, tmp_path / "questions", out=tmp_path / "out")
    (drop,) = read_jsonl(tmp_path / "out" / "drops.jsonl")
    assert drop["source"] == "corpus/leak.txt" and drop["detail"] == stem
    assert drop["rule"] == "holds a question of exam/ceval"
