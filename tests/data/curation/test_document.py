"""Laws of the account: what comes into a step is kept, or a named rule took it."""

import json

import pytest

from soaes.data.curation import document
from soaes.data.curation.document import Rejection, SourceDocument, StepOutput

TEXT = "国有资产监督管理机构代表本级人民政府履行出资人职责。\n第 3 页\n"


def record(file="corpus/laws/a.txt", text=TEXT):
    return document.curated("corpus", file, SourceDocument(text, file, page_starts=(0, 9)))


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def written(folder, *records):
    with StepOutput("read", folder) as output:
        for item in records:
            output.account.take(item)
            output.keep(item)
    return folder


def test_kept_and_removed_make_up_what_came_in(tmp_path):
    parent = written(tmp_path / "read", *(record(f"corpus/laws/{n}.txt") for n in range(3)))
    with StepOutput("clean", tmp_path / "clean") as output:
        first, second, third = output.documents(parent)
        output.keep(output.change(first, "page numbers", TEXT.replace("第 3 页\n", "")))
        output.keep(second)
        output.drop(third, "duplicate", keeper=second["id"], similarity=1.0)
        output.reject(Rejection("corpus/b.pdf", "encrypted", "remove the password"))
    account = json.loads((tmp_path / "clean" / "account.json").read_text("utf-8"))
    assert account["documents"] == {"in": 3, "out": 2, "dropped": 1}
    size = len(TEXT)
    counts = {"in": 3 * size, "out": 2 * size - 6, "removed": 6, "dropped": size}
    assert account["characters"] == counts
    assert account["rules"]["page numbers"]["characters_removed"] == 6
    assert account["rules"]["encrypted"]["records_rejected"] == account["records_rejected"] == 1
    dropped, rejected = lines(tmp_path / "clean" / "drops.jsonl")
    assert dropped["keeper"] == second["id"] and dropped["similarity"] == 1.0
    assert (rejected["id"], rejected["source"]) == ("", "corpus/b.pdf")
    kept = lines(tmp_path / "clean" / "documents.jsonl")
    assert [item["id"] for item in kept] == [first["id"], second["id"]]
    assert "page_starts" in kept[1] and "page_starts" not in kept[0]  # they hold for the old text


@pytest.mark.parametrize("fault", ["a lost document", "an unnamed change", "a document kept twice"])
def test_a_step_that_loses_something_fails(tmp_path, fault):
    parent = written(tmp_path / "read", record())
    with pytest.raises(AssertionError, match="clean: a (document|change)"):
        with StepOutput("clean", tmp_path / "clean") as output:
            for item in output.documents(parent):
                if fault == "an unnamed change":
                    output.keep({**item, "text": TEXT[:-1]})
                if fault == "a document kept twice":
                    output.keep(item)
                    output.keep(item)
    assert not (tmp_path / "clean" / "account.json").exists()


def test_a_rule_that_takes_much_of_an_origin_is_warned_of():
    account = document.Account("clean")
    for number in range(10):
        for folder in ("laws", "web"):
            item = record(f"corpus/{folder}/{number}.txt")
            account.take(item)
            if number < (3 if folder == "laws" else 4):
                account.drop(item, "too short")
            else:
                account.keep(item)
    account.check()
    assert account.warnings() == [
        "too short: takes 40 % of the documents of corpus/web",
        "too short: takes 40 % of the characters of corpus/web",
    ]


def test_samples_are_few_and_show_the_difference():
    account = document.Account("clean")
    text = "国" * 5000 + "第 3 页" + "资" * 5000
    for _ in range(30):
        account.change(record(text=text), "page numbers", text.replace("第 3 页", ""))
    samples = account.rules()["page numbers"]["samples"]
    assert len(samples) == 20
    assert samples[0]["before"] == "国" * 20 + "第 3 页" + "资" * 95
    assert samples[0]["after"] == "国" * 20 + "资" * 100


def test_an_id_is_of_kind_and_source_and_an_origin_of_the_first_folder():
    ids = {document.document_id(kind, "a.txt") for kind in ("corpus", "general")}
    assert len(ids) == 2 and all(len(identifier) == 16 for identifier in ids)
    files = ("corpus/laws/2023/a.txt", "corpus/a.txt", "general/x/a.jsonl")
    assert [document.origin(file) for file in files] == ["laws", "", "x"]
