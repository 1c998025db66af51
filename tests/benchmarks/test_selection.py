"""The comparison of selected with random text keeps families apart and counts nats a token."""

import zlib
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from benchmarks import selection
from soaes.data import chat
from soaes.data.curation.document import SourceDocument, curated
from soaes.data.curation.labels import Label
from soaes.data.curation.passages import fingerprint
from soaes.pipeline.store import read_json
from tests.helpers.models import save_model, save_tokenizer

ROOT = Path(__file__).parents[2]


def document(name, text="正文", title=""):
    return curated("corpus", f"corpus/{name}", SourceDocument(text, f"corpus/{name}", title))


def test_versions_of_a_labelled_law_are_of_its_family():
    documents = [
        document("a.md", title="公司法(2018-10-26)"),
        document("b.md", title="中华人民共和国公司法"),
        document("c.md", title="审计法"),
        document("d.md"),
    ]
    label = Label("corpus/a.md", fingerprint("正文"), True, 1.0, "company")
    family = selection.families([label], documents)
    assert [family[each["id"]] for each in documents] == [
        *("company", "company", "corpus/c.md", "corpus/d.md")
    ]


def test_a_label_without_a_family_is_of_its_files_everywhere():
    labels = [Label("corpus/a.md", fingerprint(text), True, 1.0, "") for text in ("甲", "乙")]
    labels.append(Label("corpus/b.md", fingerprint("丙"), False, 1.0, ""))
    documents = [document("a.md", title="公司法"), document("b.md", title="审计法")]
    family = selection.families(labels, documents)
    of_labels = [selection.family_of(label) for label in labels]
    assert of_labels == ["corpus/a.md", "corpus/a.md", "corpus/b.md"]
    assert [family[each["id"]] for each in documents] == ["corpus/a.md", "corpus/b.md"]


def test_every_family_is_left_out_by_one_seed():
    for family in ("company", "audit", "report-1955"):
        seeds = range(selection.NUM_FOLDS)
        assert sum(selection.is_left_out(family, seed) for seed in seeds) == 1
        assert selection.is_left_out(family, zlib.crc32(family.encode()) % selection.NUM_FOLDS)


def test_a_document_that_holds_half_of_a_passage_is_found():
    passage = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"
    documents = [
        document("whole.md", f"前言。{passage}后记。"),
        document("half.md", passage[:28] + "另有规定的从其规定。"),
        document("word.md", "国有资产监督管理机构依法办事，另有规定的从其规定。"),
    ]
    found = selection.holders(["另一段与此无关的文字，不在任何文档里面。", passage], documents)
    assert found == {each["id"] for each in documents[:2]}
    assert selection.holders([], documents) == set()


def test_documents_are_drawn_until_they_hold_as_much_text():
    documents = [document(f"{number}.md", "文" * 100) for number in range(30)]
    drawn = selection._drawn(documents, 950, seed=0)
    assert len(drawn) == len({each["id"] for each in drawn}) == 10
    assert drawn != selection._drawn(documents, 950, seed=1)
    assert len(selection._drawn(documents, 9999, seed=0)) == 30


def test_the_loss_is_the_mean_over_all_tokens_but_the_first(tmp_path):
    words = save_tokenizer(tmp_path / "words")
    folder = save_model(tmp_path / "model", "qwen2", words)
    model = Qwen2ForCausalLM.from_pretrained(folder)
    total = count = 0
    for text in ("ab cd", "e"):
        (ids,) = chat.document(chat.load_tokenizer(words), [text])
        ids_BT = torch.tensor(ids.tolist())[None]
        assert ids_BT.shape[1] == len(text) + 1  # bytes, and the end of the text
        total += model(input_ids=ids_BT, labels=ids_BT).loss.item() * (ids_BT.shape[1] - 1)
        count += ids_BT.shape[1] - 1
    loss = selection.mean_loss(folder, ["ab cd", "e"])
    assert loss == pytest.approx(total / count, abs=1e-5)


def test_differences_are_taken_within_a_seed():
    measured = [
        {arm: {"domain": base + low, "other": base} for arm, low in losses.items()}
        for base, losses in (
            (5.0, {"base": 0, "selected": -0.2, "random": -0.1}),
            (3.0, {"base": 0, "selected": -0.4, "random": -0.1}),
        )
    ]
    results = {result["name"]: result for result in selection.rows(measured)}
    difference = results["domain text, selected - random"]
    assert (difference["low"], difference["high"]) == pytest.approx((-0.3, -0.1))
    assert difference["target"] == 0 and results["other text, selected - random"]["median"] == 0


def test_the_documentation_has_the_figures_that_were_measured():
    results = read_json(ROOT / "benchmarks/results/selection.json")["results"]
    named = {result["name"]: result for result in results}
    page = (ROOT / "docs/relevance.md").read_text("utf-8")
    for kind in selection.KINDS:
        difference = named[f"{kind} text, selected - random"]
        assert difference["rounds"] == selection.NUM_FOLDS
        bounds = " to ".join(f"{difference[bound]:.2f}" for bound in ("low", "high"))
        assert f"{difference['median']:.2f} [{bounds}]".replace("-", "−") in page
