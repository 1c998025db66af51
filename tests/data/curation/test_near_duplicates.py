"""Laws of deduplication: what is planted is found, and what differs in a fact is kept."""

import json
import shutil
import tracemalloc
from pathlib import PurePosixPath
from random import Random

import numpy as np
import pytest

from soaes.data.curation import near_duplicates, ngrams, versions
from soaes.data.curation.document import SourceDocument, curated
from soaes.data.curation.settings import DeduplicationSettings

HAN = [chr(point) for point in range(0x4E00, 0x5E00)]


def found(tmp_path, documents, **settings):
    """What is dropped: {source: (rule, source of the keeper, similarity)}."""
    folder, scratch = tmp_path / "in", tmp_path / "scratch"
    for path in (folder, scratch):
        path.mkdir()
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as handle:
        for document in documents:
            handle.write(json.dumps(document, ensure_ascii=False) + "\n")
    duplicates = near_duplicates.find(folder, DeduplicationSettings(**settings), scratch)
    sources = [document["source"] for document in documents]
    return {
        sources[index]: (
            near_duplicates.RULES[duplicates.rule[index]],
            sources[duplicates.keeper[index]],
            float(duplicates.similarity[index]),
        )
        for index in np.flatnonzero(duplicates.rule)
    }


def document(text, source, title="", date="", kind="corpus"):
    name = f"{kind}/{source}.txt"
    return curated(kind, name, SourceDocument(text, name, title, date))


def prose(seed, length=3000):
    random = Random(f"prose {seed}")
    characters = random.choices(HAN, k=length)
    characters[39::40] = ["。\n"] * len(characters[39::40])
    return "".join(characters)


def edited(text, share, seed):
    """The text with a share of its characters replaced, beyond its head."""
    random = Random(f"edit {seed}")
    characters = list(text)
    for index in random.sample(range(300, len(text)), int(share * len(text))):
        characters[index] = random.choice(HAN)
    return "".join(characters)


def similarity(first, second, n=5):
    sets = []
    for text in (first, second):
        points = ngrams.folded(text).tolist()
        starts = range(len(points) - n + 1)
        sets.append({tuple(points[start : start + n]) for start in starts})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


# ---------------------------------------------------------------------------- near-duplicates


@pytest.mark.parametrize(
    "jaccard, recall, expected",
    [
        (0.8, 0.995, (32, 8)),
        (0.9, 0.99, (18, 14)),
        (1, 0.9, (1, 256)),
    ],
)
def test_bands_are_the_longest_that_reach_the_recall(jaccard, recall, expected):
    settings = DeduplicationSettings(jaccard=jaccard, recall=recall)
    assert settings.bands == expected
    bands, rows = expected
    assert 1 - (1 - jaccard**rows) ** bands >= recall


def test_a_recall_out_of_reach_is_refused():
    with pytest.raises(ValueError, match="recall=0.9999: not reached at jaccard=0.1.*num_hashes"):
        DeduplicationSettings(jaccard=0.1, recall=0.9999, num_hashes=16)


def test_planted_pairs_are_found_with_their_exact_similarity_and_no_others(tmp_path):
    documents, planted = [], {}
    for number in range(40):
        text = prose(number)
        variant = edited(text, 0.005 + 0.0006 * number, number)
        documents.append(document(text, f"a{number}"))
        documents.append(document(variant, f"b{number}"))
        planted[f"b{number}"] = similarity(text, variant)
    dropped = found(tmp_path, documents)
    expected = {name for name, value in planted.items() if value >= 0.8}
    assert len(expected) < len(planted) and min(planted.values()) > 0.7
    assert dropped.keys() == {f"corpus/{name}.txt" for name in expected}
    for name in expected:
        rule, keeper, value = dropped[f"corpus/{name}.txt"]
        assert (rule, keeper) == ("near-duplicate", f"corpus/a{name[1:]}.txt")
        assert value == pytest.approx(planted[name], abs=1e-6)


def test_no_chain_drops_a_document_that_is_unlike_its_keeper(tmp_path):
    texts = [prose(0)]
    for step in range(8):
        texts.append(edited(texts[-1], 0.012, step))
    documents = [document(text, f"t{n}") for n, text in enumerate(texts)]
    assert similarity(texts[0], texts[-1]) < 0.6
    dropped = found(tmp_path, documents)
    by_source = {document["source"]: document["text"] for document in documents}
    assert 2 <= len(dropped) <= 7
    for source, (_, keeper, _) in dropped.items():
        assert keeper not in dropped
        assert similarity(by_source[source], by_source[keeper]) >= 0.8


def test_the_most_complete_is_kept_and_general_text_before_all(tmp_path):
    long, short = prose(1, 3000), prose(1, 2700)
    general, corpus = prose(2, 2700), prose(2, 3000)
    documents = [document(short, "short"), document(long, "long"), document(corpus, "corpus")]
    documents.append(document(general, "general", kind="general"))
    dropped = found(tmp_path, documents)
    assert {source: keeper for source, (_, keeper, _) in dropped.items()} == {
        "corpus/short.txt": "corpus/long.txt",
        "corpus/corpus.txt": "general/general.txt",
    }


def test_of_equal_texts_the_one_with_a_title_and_a_date_is_kept(tmp_path):
    text = prose(3)
    documents = [document(text, "a"), document(text, "b", "某法"), document(text, "c", "某法")]
    documents.append(document(text, "d", "某法", "2020-01-01"))
    dropped = found(tmp_path, documents)
    assert {keeper for _, keeper, _ in dropped.values()} == {"corpus/d.txt"} and len(dropped) == 3


def test_markup_and_width_make_no_difference(tmp_path):
    text = prose(3, 1200)
    marked = "# " + text.replace("。\n", "．\n\n**") + "**"
    assert found(tmp_path, [document(text, "a"), document(marked, "b")]) == {
        "corpus/a.txt": ("near-duplicate", "corpus/b.txt", 1.0)
    }


def test_short_texts_survive_while_they_differ(tmp_path):
    texts = ["".join(HAN[n : n + 1 + n % 4]) for n in range(1000)]
    texts += ["今年利润增长。", "今年利润下降。", "国资委是什么？", "国务院是什么？"]
    documents = [document(text, f"t{n}") for n, text in enumerate(texts)]
    documents.append(document(texts[0], "copy"))
    assert found(tmp_path, documents) == {
        "corpus/copy.txt": ("exact duplicate", "corpus/t0.txt", 1.0)
    }


# ------------------------------------------------------------------------- vetoes and versions

FORM = (
    "民事裁定书。申请人{name}，住所地北京市。被申请人某某有限公司。申请人于{date}向本院提出财产保全申请，"
    "请求冻结被申请人的银行存款{amount}元，并已提供担保。本院经审查认为，申请人的申请符合法律规定。"
    "依照《中华人民共和国民事诉讼法》的规定，裁定如下：冻结被申请人名下的银行存款。本裁定立即执行。"
) + prose("form", 200)


@pytest.mark.parametrize("field", ["name", "date", "amount"])
def test_one_form_for_other_names_dates_or_amounts_is_kept(tmp_path, field):
    filled = {"name": "李明", "date": "2020年1月2日", "amount": "5000"}
    documents = []
    for number in range(30):
        other = {
            "name": HAN[number] + HAN[2 * number + 1],
            "date": f"20{10 + number % 20}年{1 + number % 12}月{1 + number % 28}日",
            "amount": str(3000 + number),
        }
        text = FORM.format(**(filled | {field: other[field]}))
        documents.append(document(text, f"d{number}"))
    assert found(tmp_path, documents) == {}
    assert similarity(documents[0]["text"], documents[1]["text"]) > 0.8


def test_one_form_with_a_sentence_left_out_is_a_duplicate(tmp_path):
    text = FORM.format(name="李明", date="2020年1月2日", amount="5000")
    shorter = text.replace("本裁定立即执行。", "").replace("，", ", ")
    dropped = found(tmp_path, [document(shorter, "a"), document(text, "b")])
    assert dropped.keys() == {"corpus/a.txt"}
    assert versions.says_more("李大明到会。", "李明到会。他发言。")
    assert versions.says_more("李明到会。", "李大明到会。")
    assert not versions.says_more("**李明** 到会", "李明到会。\n他发言。")


def test_long_texts_of_other_titles_or_dates_are_kept(tmp_path):
    text = prose(4)
    near = edited(text, 0.002, 0)
    documents = [document(text, "a", "甲省审计条例"), document(near, "b", "乙省审计条例")]
    documents += [document(prose(5), "c", "预算法", "2014-08-31")]
    documents += [document(edited(prose(5), 0.002, 1), "d", "预算法", "2018-12-29")]
    documents += [document(law(8, "2012年7月27日"), "g", date="2012-08-01")]
    documents += [document(law(8, "2012年7月27日", 0.002), "h", date="2019-08-01")]
    documents += [document("2019年\n" + prose(6), "e"), document("2020年\n" + prose(6), "f")]
    assert found(tmp_path, documents) == {}


@pytest.mark.parametrize("versions", ["all", "newest"])
def test_a_copy_without_a_date_stands_for_one_version_alone(tmp_path, versions):
    text = prose(14)
    copy = "。\n".join(["法", text, "附"])  # the longest, which is kept
    documents = [document(copy, "copy"), document(text, "old", "审计条例", "2008-10-28")]
    documents += [document(edited(text, 0.002, 1), "new", "审计条例", "2023-12-29")]
    documents += [document(edited(text, 0.002, 2), "other", "预算条例", "2008-10-28")]
    dropped = found(tmp_path, documents, versions=versions, jaccard=0.9)
    assert len(dropped) == (1 if versions == "all" else 2)
    kept = {"old", "new", "other", "copy"} - {PurePosixPath(source).stem for source in dropped}
    assert kept >= {"new"}


def test_punctuation_moves_no_fact_out_of_the_head_of_an_untitled_text(tmp_path):
    text = f"{prose(15, 190)}文件第2008号{prose(16)}"
    copy = text.replace("。\n", "。\n\n", 3)  # 2008 begins before the 200th character in one alone
    (dropped,) = found(tmp_path, [document(text, "a"), document(copy, "b")]).values()
    assert dropped[0] == "near-duplicate"


def law(seed, passed, share=0.0):
    head = f"审计条例\n\n{passed} 市人民代表大会常务委员会通过\n\n第一条 "
    return head + edited(prose(seed), share, passed)


def test_versions_stay_unless_they_are_to_be_collapsed(tmp_path):
    texts = [law(7, "2012年7月27日", 0.08), law(7, "2017年9月22日", 0.06), law(7, "2023年11月24日")]
    documents = [document(text, f"v{n}", "审计条例") for n, text in enumerate(texts)]
    documents += [document(law("other", "2001年1月1日"), "other", "审计条例")]
    assert 0.3 < similarity(texts[0], texts[2]) < 0.6
    (tmp_path / "all").mkdir()
    (tmp_path / "newest").mkdir()
    assert found(tmp_path / "all", documents) == {}
    dropped = found(tmp_path / "newest", documents, versions="newest")
    assert {source: (rule, keeper) for source, (rule, keeper, _) in dropped.items()} == {
        "corpus/v0.txt": ("older version", "corpus/v2.txt"),
        "corpus/v1.txt": ("older version", "corpus/v2.txt"),
    }


def test_no_keeper_was_dropped_itself(tmp_path):
    newest = law(7, "2023年11月24日")
    older = law(7, "2017年9月22日", 0.06)
    like_older = older.replace("。", "", 9)
    documents = [document(text, name, "审计条例") for name, text in (("n", newest), ("o", older))]
    documents += [document(like_older, "l", "审计条例"), document(like_older, "e", "审计条例")]
    dropped = found(tmp_path, documents, versions="newest")
    assert {source: keeper for source, (_, keeper, _) in dropped.items()} == {
        f"corpus/{name}.txt": "corpus/n.txt" for name in "ole"
    }
    for source, text in (("o", older), ("l", like_older), ("e", like_older)):
        rule, _, value = dropped[f"corpus/{source}.txt"]
        assert rule == "older version"
        assert value == pytest.approx(similarity(text, newest), abs=1e-6)


@pytest.mark.parametrize(
    "title, key",
    [
        ("中华人民共和国公司法（2018年修正）", "公司法"),
        ("公司法(2018-10-26)", "公司法"),
        ("公司法_中国政府网", "公司法"),
        ("公司法 - 国务院", "公司法"),
        ("暂行办法（试行）", "暂行办法试行"),
    ],
)
def test_titles_of_versions_are_equal(title, key):
    assert versions.title_key(title) == key


def test_a_title_counts_if_the_text_or_its_metadata_says_so():
    assert versions.known_title(document("正文", "公司法", "公司法")) == ""
    assert (
        versions.known_title(document("中华人民共和国公司法\n第一条", "公司法", "公司法"))
        == "公司法"
    )
    assert versions.known_title(document("正文", "x", "公司法")) == "公司法"


def test_the_date_of_a_version_is_the_last_that_its_head_or_file_names():
    text = "公司法\n1993年12月29日通过\n2018年10月26日第四次修正\n第一条 2030年1月1日施行。"
    assert versions.version_date(document(text, "a", date="2024-01-01")) == "2018-10-26"
    assert versions.version_date(document("正文", "a", date="2024-01-01")) == "2024-01-01"
    assert versions.version_date(document("正文", "公司法(2018-10-26)")) == "2018-10-26"
    assert versions.version_date(document("正文", "a")) == ""


def test_no_file_is_mapped_for_writing(tmp_path, monkeypatch):
    """Where the disk is full, that kills the process (SIGBUS); a write is an error with a name."""
    memmap, modes = np.memmap, []

    def recorded(path, dtype, mode, **given):
        modes.append(mode)
        return memmap(path, dtype, mode, **given)

    monkeypatch.setattr(np, "memmap", recorded)
    assert len(found(tmp_path, [document(prose(0), "a"), document(prose(0) + "完", "b")])) == 1
    assert set(modes) == {"r"}


def test_batches_and_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BATCH_DOCUMENTS", 2)
    documents = [document(prose(n % 3), f"t{n}") for n in range(6)]
    for name in ("some", "none"):
        (tmp_path / name).mkdir()
    assert len(found(tmp_path / "some", documents)) == 3
    assert found(tmp_path / "none", []) == {}


def texts_of_any_length(num_chars):
    text = prose("long", num_chars)
    return [
        document(text, "whole"),
        document(edited(text, 0.02, 1), "edited"),
        document(edited(text, 0.3, 2), "other"),
        document(text[: num_chars // 20], "beginning"),
    ]


def with_limits(monkeypatch, divisor):
    """Divide all that bounds the memory of deduplication."""
    monkeypatch.setattr(ngrams, "PIECE", ngrams.PIECE // divisor)
    for name in ("LONG", "BATCH_CHARS", "CACHED_NGRAMS"):
        monkeypatch.setattr(near_duplicates, name, getattr(near_duplicates, name) // divisor)


def test_long_texts_are_compared_as_short_ones_are(tmp_path, monkeypatch):
    documents = texts_of_any_length(20_000)
    for name in ("short", "long"):
        (tmp_path / name).mkdir()
    expected = found(tmp_path / "short", documents)
    with_limits(monkeypatch, 256)
    assert found(tmp_path / "long", documents) == expected
    assert expected["corpus/edited.txt"][2] == pytest.approx(
        similarity(documents[0]["text"], documents[1]["text"])
    )
    assert list(expected) == ["corpus/edited.txt"]


def test_memory_is_bounded_whatever_the_length_of_a_text(tmp_path, monkeypatch):
    """At a 64th of the limits, less than a 64th of 300 MB, for 32 MB of Chinese (a 64th) a text."""
    folder, scratch = tmp_path / "in", tmp_path / "scratch"
    folder.mkdir()
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as handle:
        for record in texts_of_any_length(160_000)[:3]:
            handle.write(json.dumps(record, ensure_ascii=False) + "\n")
    with_limits(monkeypatch, 64)
    scratch.mkdir()
    near_duplicates.find(tmp_path / "in", DeduplicationSettings(num_hashes=64), scratch)  # tables
    shutil.rmtree(scratch)
    scratch.mkdir()
    tracemalloc.start()
    try:
        near_duplicates.find(folder, DeduplicationSettings(num_hashes=64), scratch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (300 << 20) / 64
