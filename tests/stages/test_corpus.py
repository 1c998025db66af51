"""The steps of a corpus: each keeps or drops every document, and accounts for every character."""

import gc
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from random import Random

import pytest
import yaml

from soaes.data.curation import near_duplicates, sources
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.curation.settings import CleaningSettings, DeduplicationSettings
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.stages import corpus

ROOT = Path(__file__).parents[2]
HAN = [chr(point) for point in range(0x4E00, 0x5E00)]
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
        corpus.read(digest, root=str(tmp_path / "in"), timeout=60, out=tmp_path / "out")


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


def test_a_kept_document_takes_over_the_title_date_and_url_that_it_lacks(tmp_path):
    text = "".join(f"第{n}条 {LAW[n % 20 :]}{n * 7919}\n" for n in range(60))
    titled = {"title": "企业国有资产法", "date": "2008-10-28"}
    documents = [
        ("corpus/copy.html", text[:-9], {**titled, "url": "http://npc.gov.cn/1"}),
        ("corpus/longest.txt", text, {"title": "longest"}),
        ("corpus/other.html", text[:-9], {**titled, "date": "2009-05-01", "url": "http://b.cn"}),
        ("corpus/near.md", text[:-40], {**titled, "date": "2009-05-01"}),
    ]
    folder = step(tmp_path / "read", documents)
    out = tmp_path / "out"
    corpus.deduplicate(folder, deduplication=DeduplicationSettings(), out=out)
    kept, of_2009 = read_jsonl(out / "documents.jsonl")
    assert (kept["source"], kept["text"]) == ("corpus/longest.txt", text)
    # The dates of the equal texts differ, so that none of them is known to be the keeper's.
    assert (kept["title"], kept["date"]) == (titled["title"], "")
    assert kept["url"] == "http://npc.gov.cn/1"
    # It stands for the version of 2008, and for none of another year.
    assert of_2009["source"] == "corpus/near.md"
    details = {source: drop["detail"] for source, drop in drops(out).items()}
    assert details == {
        "corpus/copy.html": "its keeper takes over its title, url",
        "corpus/other.html": "",
    }
    assert account(out)["inherited"] == {"title": 1, "date": 0, "url": 1}


def test_an_older_version_gives_its_date_to_no_one(tmp_path):
    text = "".join(f"第{n}条 {LAW[n % 20 :]}{n * 7919}\n" for n in range(60))
    head = "企业国有资产法\n（{} 年10月28日通过）\n"
    title = {"title": "企业国有资产法"}
    documents = [
        ("corpus/old.txt", head.format(2008) + text, {**title, "date": "2008-10-28"}),
        ("corpus/new.txt", head.format(2019) + text, title),
    ]
    folder = step(tmp_path / "read", documents)
    settings = DeduplicationSettings(versions="newest")
    corpus.deduplicate(folder, deduplication=settings, out=tmp_path / "out")
    (kept,) = read_jsonl(tmp_path / "out" / "documents.jsonl")
    assert (kept["source"], kept["date"]) == ("corpus/new.txt", "")


def test_a_step_that_was_killed_is_built_anew_to_the_byte(tmp_path, monkeypatch):
    text = "".join(f"第{n}条 {LAW[n % 20 :]}{n * 7919}\n" for n in range(60))
    documents = [(f"corpus/{n}.txt", text[n * 40 :]) for n in range(5)]
    parent = step(tmp_path / "read", documents)
    settings = DeduplicationSettings()
    corpus.deduplicate(parent, deduplication=settings, out=tmp_path / "whole")
    store = Store(tmp_path / "store")
    recipe = Recipe("soaes.stages.corpus.deduplicate", {"deduplication": {}})

    def build():
        with store.build(recipe) as out:
            corpus.deduplicate(parent, deduplication=settings, out=out)

    keep = StepOutput.keep
    monkeypatch.setattr(
        StepOutput, "keep", lambda *given: (keep(*given), os.kill(os.getpid(), signal.SIGKILL))
    )
    process = multiprocessing.get_context("fork").Process(target=build)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not store.holds(recipe.name)
    assert [path for path in store.unfinished(recipe.name).iterdir() if path.is_dir()]  # scratch
    monkeypatch.undo()
    build()
    names = {"documents.jsonl", "drops.jsonl", "account.json", "metrics.json"}
    built = store.folder(recipe.name)
    assert {path.name for path in built.iterdir()} == {*names, "recipe.yaml"}
    for name in names:
        assert (built / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_memory_grows_by_few_bytes_a_document(tmp_path, cleaning, monkeypatch):
    """The first run fills tables and batches, the others differ in documents alone."""
    monkeypatch.setattr(near_duplicates, "BATCH_DOCUMENTS", 20)
    settings = DeduplicationSettings(num_hashes=64)
    peaks = []
    for count in (60, 60, 400):
        run = tmp_path / str(len(peaks))
        texts = ("".join(Random(n).choices(HAN, k=60)) for n in range(count))
        parent = step(run / "read", ((f"corpus/{n}.txt", text) for n, text in enumerate(texts)))
        gc.collect()
        gc.freeze()  # of what earlier tests left, so that garbage is looked for as in a new process
        tracemalloc.start()
        try:
            corpus.clean(parent, cleaning=cleaning, out=run / "clean")
            corpus.deduplicate(run / "clean", deduplication=settings, out=run / "deduplicate")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[2] - peaks[1] < 128 * 340


STEPS = ("read", "clean", "deduplicate", "decontaminate", "score", "select", "files")


@pytest.mark.nightly
def test_a_chain_that_is_killed_at_ten_places_gives_the_same_digests(tmp_path):
    root = tmp_path / "root"
    for name in ("corpus/laws", "corpus/web", "qa"):
        (root / name).mkdir(parents=True)
    for number in range(40):
        text = "".join(f"第{n}条 {LAW[n % 20 :]}{n * number}\n" for n in range(60))
        place = root / "corpus" / ("laws" if number % 2 else "web") / f"{number}.txt"
        place.write_text(text, encoding="utf-8")
    questions = [
        {"instruction": f"第{n}条说了什么？", "output": f"它说了出资人的职责{n}。"}
        for n in range(30)
    ]
    write_jsonl(root / "qa" / "train.jsonl", questions)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert chain(root, whole).wait(timeout=900) == 0
    num_kills = 0
    for place in (
        pattern.format(step) for step in STEPS for pattern in ("unfinished/{}-*", "{}-*")
    ):
        process = chain(root, killed)
        while not list(killed.glob(place)) and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            num_kills += 1
        process.wait()
    assert num_kills >= 10
    assert chain(root, killed).wait(timeout=900) == 0
    assert outputs(killed) == outputs(whole) and len(outputs(whole)) > 3 * len(STEPS)


def chain(root, store):
    """Start to build the documents of a folder, as the leader of a group of processes."""
    words = ["goal=data.documents", "data=files", f"data.root={root}", f"runtime.store={store}"]
    command = [sys.executable, "-m", "soaes.run", *words, "logger=none"]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)


def outputs(store):
    """The digests of what the steps wrote, without logs, times and manifests."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for step in STEPS
        for path in store.glob(f"{step}-*/**/*")
        if path.name == "account.json" or path.suffix == ".jsonl"
    }
