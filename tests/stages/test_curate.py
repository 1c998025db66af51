"""A user's folder becomes the data folder: what is readable is kept, what is broken is reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from soaes.data import splits
from soaes.data.curation import chat_formats, exam_files, sources, text_cleaning
from soaes.data.curation.relevance import SCORER, TopicScorer
from soaes.data.curation.settings import (
    CLEANING_RULES,
    CleaningSettings,
    DeduplicationSettings,
)
from soaes.data.settings import DialogueSettings
from soaes.stages import corpus, curate

FEW_BANDS = DeduplicationSettings(recall=0.9, num_hashes=16)  # each costs files
HAN = [chr(point) for point in range(0x4E00, 0x5E00)]
LAW = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"


def pair(number: int) -> dict:
    return {
        "instruction": f"第{number}条是什么？",
        "input": "",
        "output": f"第{number}条规定了出资人职责。",
    }


def lines(*rows: object) -> str:
    return "".join(
        (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
        for row in rows
    )


def put(root: Path, **texts: str | bytes) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def whole(root: Path, **more: str | bytes) -> Path:
    """A folder that can be curated."""
    corpus = {f"corpus/laws/{n}.txt": LAW + str(n) for n in range(10)}
    return put(root, **corpus, **{"qa/train.jsonl": lines(*map(pair, range(20)))}, **more)


def curated(
    root: Path, out: Path, seed: int = 0, scores: Path = Path("unscored"), **options
) -> dict:
    """The report on a folder that went through all steps that drop documents."""
    read, cleaned, unique, questions, last = (
        out.with_name(f"{out.name}-{step}")
        for step in ("read", "clean", "deduplicate", "questions", "decontaminate")
    )
    corpus.read(sources.digest(root, kinds=corpus.KINDS), root=str(root), timeout=60, out=read)
    corpus.clean(read, cleaning=CleaningSettings(CLEANING_RULES, {}), out=cleaned)
    corpus.deduplicate(cleaned, deduplication=FEW_BANDS, out=unique)
    digest = sources.digest(root, kinds=curate.KINDS)
    curate.held_out_questions(digest, root=str(root), seed=seed, out=questions)
    corpus.decontaminate(unique, questions, out=last)
    curate.files(last, read, scores, digest, root=str(root), seed=seed, out=out, **options)
    return json.loads((out / "curation_report.json").read_text("utf-8"))


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_document_is_trained_on_or_held_out(tmp_path):
    report = curated(whole(tmp_path / "in"), tmp_path / "out")
    texts_by_kind = [
        {row["text"] for row in rows(tmp_path / "out" / f"{kind}.jsonl")}
        for kind in ("general", "corpus")
    ]
    assert (
        [len(texts) for texts in texts_by_kind]
        == [2, 8]
        == [report[kind]["kept"] for kind in ("general", "corpus")]
    )
    assert texts_by_kind[0] | texts_by_kind[1] == {LAW + str(n) for n in range(10)}
    assert report["general"]["source"] == "20 % of corpus, held out from CPT"
    assert (
        report["problems"] == []
        and report["dialogue"]["kept"] == 0
        and report["exam"]["exams"] == {}
    )


def test_general_text_of_ones_own_is_never_trained_on(tmp_path):
    root = whole(
        tmp_path / "in",
        **{"general/a.md": LAW + "3", "general/b.jsonl": lines({"content": LAW + "x"})},
    )
    report = curated(root, tmp_path / "out")
    assert report["general"]["source"] == "general/"
    assert report["corpus"]["kept"] == 9 and report["corpus"]["dropped"] == {"exact duplicate": 1}


def test_every_layout_becomes_the_same_messages(tmp_path):
    asked = [
        {"role": "user", "content": "何为国资？"},
        {"role": "assistant", "content": "国有资产。"},
    ]
    share = {
        "conversations": [
            {"from": "human", "value": "何为国资？"},
            {"from": "gpt", "value": "国有资产。"},
        ]
    }
    alpaca = {"instruction": "何为国资？", "input": None, "output": "国有资产。", "history": ""}
    assert [chat_formats.messages(row)[0] for row in (share, alpaca, {"messages": asked})] == [
        asked
    ] * 3
    with_history = {
        "instruction": "再说",
        "input": "一遍",
        "output": "好",
        "history": [["问", "答"]],
        "system": "你是助手",
    }
    contents = ["你是助手", "问", "答", "再说\n一遍", "好"]
    assert [turn["content"] for turn in chat_formats.messages(with_history)[0]] == contents


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"instruction": "a", "output": " "}, "empty answer"),
        ({"instruction": "", "output": "b"}, "empty question"),
        ({"instruction": "a", "output": 5}, "output holds no text"),
        ({"instruction": "a"}, "output holds no text"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history is not a list of pairs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown role"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "turns out of order"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no answer at the end"),
        ({"messages": []}, "no turns"),
        ({"conversations": "x"}, "conversations is not a list of objects"),
        ({"question": "x"}, "no conversations, messages or instruction"),
    ],
    ids=[
        "empty answer",
        "empty question",
        "number as answer",
        "no answer",
        "history of singles",
        "unknown role",
        "answer first",
        "question last",
        "no turns",
        "text as conversation",
        "no known field",
    ],
)
def test_a_misfit_says_why(record, reason):
    with pytest.raises(chat_formats.RecordFormatError) as caught:
        chat_formats.messages(record)
    assert caught.value.args[0] == reason


def test_a_broken_line_is_named_and_the_rest_goes_on(tmp_path):
    bad = [
        '{"instruction": "truncated',
        "5",
        '{"instruction": "q", "output": NaN}',
        "",
        "[" * 99999,
        '{"a": "\0"}',
    ]
    text = (
        b"\xef\xbb\xbf"
        + lines(pair(100), *bad, pair(101)).encode()
        + b'{"instruction": "\xff"}\n'
        + lines(pair(102)).encode()
    )
    report = curated(whole(tmp_path / "in", **{"dialogue/law/bad.jsonl": text}), tmp_path / "out")
    places = [problem.split(": ")[0] for problem in report["problems"]]
    assert places == [f"dialogue/law/bad.jsonl:{line}" for line in (2, 3, 4, 6, 7, 9)]
    assert report["dialogue"]["kept"] == 3 and report["problems_total"] == 6
    dialogues = rows(tmp_path / "out/dialogue.jsonl")
    assert [row["category"] for row in dialogues] == [["law"]] * 3


def test_a_broken_array_keeps_what_can_be_read(tmp_path):
    text = json.dumps(
        [pair(100), pair(101) | {"x": float("nan")}, pair(102)], ensure_ascii=False, indent=1
    )
    bad = text.encode().replace(
        "规定".encode(), "规定".encode("gbk"), 1
    )  # in the first record only
    more = {"dialogue/cut.json": text[:-9], "dialogue/gbk.json": bad}
    report = curated(whole(tmp_path / "in", **more), tmp_path / "out")
    assert [problem.partition(" (")[0] for problem in report["problems"]] == [
        "dialogue/cut.json:7: broken JSON",
        "dialogue/cut.json:16: broken JSON",
        "dialogue/gbk.json:2: not UTF-8",
        "dialogue/gbk.json:7: broken JSON",
    ]
    assert [row["category"] for row in rows(tmp_path / "out/dialogue.jsonl")] == [["cut"], ["gbk"]]


def test_the_list_of_problems_is_bounded_and_the_count_is_not(tmp_path):
    text = lines(pair(100)) + "5\n" * 300
    report = curated(whole(tmp_path / "in", **{"dialogue/x.jsonl": text}), tmp_path / "out")
    assert (len(report["problems"]), report["problems_total"]) == (200, 300)


def test_a_record_names_its_own_category(tmp_path):
    label = {"label": {"cate_zh": ["财务"], "ability_zh": ["问答"]}}
    root = whole(
        tmp_path / "in",
        **{
            "dialogue/alpaca.json": json.dumps(
                [pair(100) | {"category": "法律"}, pair(101) | label]
            )
        },
    )
    curated(root, tmp_path / "out")
    assert [row["category"] for row in rows(tmp_path / "out/dialogue.jsonl")] == [
        ["法律"],
        ["财务", "问答"],
    ]


INFINITY = {
    "id": 4217,
    "conversations": [
        {"from": "gpt", "value": "You are an AI assistant. Help as much as you can."},
        {"from": "human", "value": "什么是国有资本收益？"},
        {"from": "gpt", "value": "国家以所有者身份依法取得的国有资本投资收益。"},
    ],
    "label": {
        "ability_en": ["financial knowledge"],
        "ability_zh": ["金融知识"],
        "cate_ability_zh": ["财务、金融和商业知识"],
        "cate_ability_en": ["financial, financial and business knowledge"],
    },
    "langdetect": "zh-cn",
}


def test_published_dialogues_are_read_as_they_are(tmp_path):
    question, answer = (turn["value"] for turn in INFINITY["conversations"][1:])
    messages = dialogue_of(question + "（长文）", answer)["messages"]
    other = [turn | {"value": turn["value"] + "。"} for turn in INFINITY["conversations"][1:]]
    infinity_3m = {"id": "b7", "conversations": other, "label": "金融知识"}
    greeted = [{"from": "gpt", "value": "今天天气很好。"}, *INFINITY["conversations"][1:]]
    texts = {
        "dialogue/infinity.jsonl": lines(INFINITY, infinity_3m, {"conversations": greeted}),
        "dialogue/longwriter.jsonl": lines({"messages": messages}),
    }
    report = curated(whole(tmp_path / "in", **texts), tmp_path / "out")["dialogue"]
    first, second, third = rows(tmp_path / "out/dialogue.jsonl")
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
    assert first["category"] == [label for labels in INFINITY["label"].values() for label in labels]
    assert (second["category"], third["category"]) == (["金融知识"], ["longwriter"])
    assert third["messages"] == messages
    assert report["categories"]["金融知识"] == 2
    assert list(report["repaired"].values()) == [1]
    assert report["dropped"] == {"turns out of order": 1}


def test_refusals_and_other_languages_are_counted_out_by_name(tmp_path):
    refusal = pair(200) | {"output": "抱歉，作为一个语言模型，我无法回答这个问题。"}
    english = {"instruction": "Who supervises it?", "output": "The commission does."}
    empty = pair(201) | {"output": " "}
    root = whole(tmp_path / "in", **{"dialogue/a.jsonl": lines(pair(202), refusal, english, empty)})
    dropped = {"an answer is a refusal": 1, "empty answer": 1}
    assert curated(root, tmp_path / "any")["dialogue"]["dropped"] == dropped
    settings = DialogueSettings(language="zh", drop_refusals=False)
    report = curated(root, tmp_path / "zh", dialogue=settings)["dialogue"]
    assert (report["kept"], report["dropped"]) == (2, {"not Chinese": 1, "empty answer": 1})


def test_dialogues_without_a_label_are_judged_by_relevance(tmp_path):
    about = pair(200) | {"output": "国资委履行出资人职责，监管国有资产。"}
    root = whole(
        tmp_path / "in",
        **{
            "dialogue/web.jsonl": lines(
                about, pair(201) | {"output": "蛋糕烤二十分钟。"}, pair(202) | {"label": ["法律"]}
            )
        },
    )
    asked = {"dialogue": DialogueSettings(min_relevance=0.5)}
    with pytest.raises(
        ValueError, match="min_relevance=0.5: there is no scorer; give domain.topics"
    ):
        curated(root, tmp_path / "none", **asked)
    TopicScorer({"owners": ["国资委", "国有资产"]}).save(tmp_path / "scores" / SCORER)
    curated(root, tmp_path / "out", scores=tmp_path / "scores", **asked)
    categories = [row["category"] for row in rows(tmp_path / "out/dialogue.jsonl")]
    assert categories == [["relevant"], ["other"], ["法律"]]
    curated(root, tmp_path / "off", scores=tmp_path / "scores")
    categories = [row["category"] for row in rows(tmp_path / "off/dialogue.jsonl")]
    assert categories == [["web"], ["web"], ["法律"]]


def test_no_question_is_in_two_splits(tmp_path):
    reports = [pair(n) | {"task": "report"} for n in range(100, 110)]
    again = pair(7) | {"output": "另一个答案"}
    curated(
        put(
            whole(tmp_path / "in"),
            **{"qa/train.jsonl": lines(*map(pair, range(80)), again, *reports)},
        ),
        tmp_path / "out",
    )
    parts = {part: rows(tmp_path / f"out/qa/{part}.jsonl") for part in ("train", "dev", "test")}
    asked = [{splits.question_key(row["messages"]) for row in part} for part in parts.values()]
    assert (
        sum(map(len, parts.values())) == 91 and sum(map(len, asked)) == len(set.union(*asked)) == 90
    )
    assert [sum(row["task"] == "report" for row in part) for part in parts.values()] == [8, 1, 1]


def test_given_splits_stay_and_train_gives_way(tmp_path):
    given = {
        "qa/dev.jsonl": lines(pair(0), pair(90)),
        "qa/test.jsonl": lines(pair(1), pair(91), pair(90) | {"task": "x"}),
    }
    report = curated(whole(tmp_path / "in", **given), tmp_path / "out")
    assert [report["qa"][part] for part in ("train", "dev", "test")] == [18, 2, 2]
    assert report["qa"]["dropped"] == {
        "the task is neither qa nor report": 1,
        "holds a question of qa/dev": 1,
        "holds a question of qa/test": 1,
    }


def dialogue_of(*contents: str) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": c} for n, c in enumerate(contents)]}


LEAKS = {
    "dialogue/a.jsonl": lines(*map(pair, range(1000, 1010)), pair(5)),
    "dialogue/b.json": json.dumps([dialogue_of("你好", "你好", "第 １０００ 条是什么?", "不知道")]),
    "corpus/faq.jsonl": lines(
        {"text": "常见问题。问：第1001条是什么？答：第1001条规定了出资人职责。"}
    ),
    "corpus/faq.txt": "常见问题\n\n第1002条是什么？\n第1002条规定了出资人职责。",
    "general/web.jsonl": lines({"text": "第1003条是什么？" + LAW}, {"text": LAW + "general"}),
    "qa/train.jsonl": lines(
        *map(pair, range(20)), dialogue_of("嗯", "好", "第1004条是什么？", "x")
    ),
}


@pytest.mark.parametrize("split", ["test", "dev"])
def test_nothing_that_trains_holds_a_question_that_is_held_out(tmp_path, split):
    held_out = {f"qa/{split}.jsonl": lines(*map(pair, range(1000, 1010)))}
    report = curated(put(whole(tmp_path / "in"), **LEAKS, **held_out), tmp_path / "out")
    assert report["contaminated"] == 10 + 1 + 2 + 1 + 1
    by_kind = {kind: report[kind]["dropped"] for kind in ("dialogue", "corpus", "general", "qa")}
    reason = f"holds a question of qa/{split}"
    assert {kind: dropped[reason] for kind, dropped in by_kind.items()} == {
        "dialogue": 11,
        "corpus": 2,
        "general": 1,
        "qa": 1,
    }
    kept = [row for path in (tmp_path / "out").glob("*.jsonl") for row in rows(path)]
    kept += rows(tmp_path / "out/qa/train.jsonl")
    texts = [json.dumps(row | {"id": ""}, ensure_ascii=False) for row in kept]
    assert not [text for text in texts if "100" in text or "００" in text]
    assert report["qa"][split] == 10 and report["dialogue"]["kept"] == 1


def test_the_report_counts_what_every_step_dropped(tmp_path):
    root, out = whole(tmp_path / "in"), tmp_path / "out"
    put(root, **{"corpus/copy.txt": LAW + "0", "corpus/leak.txt": f"{LAW}\n第1000条是什么？"})
    put(root, **{"qa/test.jsonl": lines(*map(pair, range(1000, 1010)))})
    put(root, **{"corpus/short.txt": "短"})
    report = curated(root, out)
    assert report["corpus"]["dropped"] == {
        "shorter than 20 characters": 1,
        "exact duplicate": 1,
        "holds a question of qa/test": 1,
    }
    assert report["contaminated"] == 1
    assert [step["documents"]["dropped"] for step in report["steps"]] == [0, 1, 1, 1]
    ids = {row["id"] for row in rows(tmp_path / "out-decontaminate/documents.jsonl")}
    kept = [row["id"] for kind in ("general", "corpus") for row in rows(out / f"{kind}.jsonl")]
    assert set(kept) == ids and len(kept) == len(ids) == 10


def test_every_record_is_kept_or_named_and_leads_to_its_own_line(tmp_path):
    broken = ['{"text": "cut off', "5", '{"text": null}']
    texts = {n: f"{LAW[n:]}{HAN[n] * 20}" for n in range(30)}
    records = [broken[n // 3 % 3] if n % 3 == 0 else {"text": text} for n, text in texts.items()]
    root = put(tmp_path / "in", **{"corpus/a.jsonl": lines(*records)})
    put(root, **{"qa/train.jsonl": lines(*map(pair, range(20)))})
    report = curated(root, tmp_path / "out")
    kept = [row for kind in ("general", "corpus") for row in rows(tmp_path / f"out/{kind}.jsonl")]
    places = {row["source"]: row["text"] for row in kept}
    assert places == {f"corpus/a.jsonl:{n + 1}": text for n, text in texts.items() if n % 3}
    assert report["problems_total"] == 10 and len(kept) == 20
    named = {problem.partition(": ")[0] for problem in report["problems"]}
    assert named == {f"corpus/a.jsonl:{n + 1}" for n in texts if n % 3 == 0}


def test_what_models_write_is_read_as_it_is_or_named(tmp_path):
    answers = ["<think>[1]</think>答", "```json\n[5]\n```", "42", "一。\n\n二。"]
    rows_given = [pair(200 + n) | {"output": answer} for n, answer in enumerate(answers)]
    cut = lines(pair(300))[:-20] + "\n"
    more = {"dialogue/a.jsonl": lines(*rows_given, pair(301) | {"output": 42}, pair(302)) + cut}
    report = curated(whole(tmp_path / "in", **more), tmp_path / "out")["dialogue"]
    kept = [row["messages"][-1]["content"] for row in rows(tmp_path / "out/dialogue.jsonl")]
    assert kept == [*answers, pair(302)["output"]]
    assert report["dropped"] == {"output holds no text": 1, "broken JSON": 1}


def test_no_near_copy_of_a_held_out_document_is_trained_on(tmp_path):
    families = {f"{n}": "".join(HAN[n * 60 + k] for k in range(60)) * 2 for n in range(12)}
    copies = {f"corpus/{n}.txt": text for n, text in families.items()}
    copies |= {f"corpus/copy/{n}.md": f"# {text}\n！" for n, text in families.items()}
    root = put(tmp_path / "in", **copies, **{"qa/train.jsonl": lines(*map(pair, range(20)))})
    curated(root, tmp_path / "out")
    parts = [
        {row["text"].strip("# \n！")[:60] for row in rows(tmp_path / f"out/{kind}.jsonl")}
        for kind in ("general", "corpus")
    ]
    assert [len(part) for part in parts] == [2, 10] and not parts[0] & parts[1]


def test_a_question_that_is_split_off_train_leaves_the_dialogues(tmp_path):
    same = {"dialogue/a.jsonl": lines(*map(pair, range(20)))}
    report = curated(whole(tmp_path / "in", **same), tmp_path / "out")
    asked = {
        part: {row["messages"][0]["content"] for row in rows(tmp_path / f"out/{part}.jsonl")}
        for part in ("qa/train", "qa/dev", "qa/test", "dialogue")
    }
    assert asked["dialogue"] == asked["qa/train"] and len(asked["dialogue"]) == 16
    assert report["contaminated"] == 4


def gbk(*found: object) -> bytes:
    return lines(*found).encode("gbk")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("qa/test.jsonl", gbk(*map(pair, range(30))), "not UTF-8.*one in 10 of the train"),
        ("qa/dev.jsonl", "", "empty file"),
        ("qa/dev.jsonl", lines("{", "5"), "broken JSON"),
        ("qa/test.csv", "question,answer\n", "file type not read"),
        ("qa/val.jsonl", lines(pair(50)), "qa/val.jsonl is not read.*dev.jsonl.*is missing"),
        ("qa/test/a.jsonl", lines(pair(50)), "qa/test/a.jsonl is not read.*test.jsonl is missing"),
        ("general/a.txt", b"\0\1\2" * 30, "not text.*20 % of corpus"),
        ("general/a.txt", "short", "shorter than 20 characters"),
        ("dialogue/a.json", gbk(pair(50)), "Instruct and stage 1"),
        ("dialogue/a.jsonl", lines({"text": LAW}), "no conversations, messages"),
        ("exam/cmmlu/test/law.csv", "Question,A\n题,甲\n", "no column"),
        ("exam/cmmlu/law.csv", "Question,A\n题,甲\n", "not at exam/NAME"),
    ],
    ids=[
        "GBK test",
        "empty dev",
        "broken dev",
        "test as CSV",
        "dev called val",
        "test in a folder",
        "general that is no text",
        "too short general",
        "GBK dialogues",
        "documents as dialogues",
        "exam without columns",
        "exam without a split",
    ],
)
def test_what_is_given_and_cannot_be_used_is_refused_and_not_replaced(
    tmp_path, name, content, message
):
    root = whole(tmp_path / "in", **{name: content})
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        curated(root, tmp_path / "out")
    assert name in str(caught.value)


def test_a_split_whose_questions_are_all_in_test_is_refused(tmp_path):
    same = {f"qa/{split}.jsonl": lines(pair(50), pair(51)) for split in ("dev", "test")}
    with pytest.raises(ValueError, match=r"qa/dev.jsonl: given.*2 x holds a question of qa/test"):
        curated(whole(tmp_path / "in", **same), tmp_path / "out")


def test_categories_and_fields_that_are_not_read_are_counted(tmp_path):
    found = [
        pair(n) | {"category": "法律" if n % 3 else "金融", "tools": "x"} for n in range(30, 36)
    ]
    more = {
        "dialogue/a.jsonl": lines(*found),
        "corpus/a.jsonl": lines({"text": LAW, "author": "t"}),
    }
    report = curated(whole(tmp_path / "in", **more, **{"scripts/x.py": ""}), tmp_path / "out")
    assert report["dialogue"]["categories"] == {"法律": 4, "金融": 2}
    assert report["dialogue"]["fields_not_read"] == {"tools": 6}
    assert report["corpus"]["fields_not_read"] == {"author": 1}
    assert report["not_read"] == ["scripts"]


CMMLU = ',Question,A,B,C,D,Answer\n0,"问，\n题",甲,乙,丙,NA,C\n1,问题,甲,乙,丙,丁,E\n2,问题,甲,乙\n'
CEVAL = "\ufeffid,question,A,B,C,D,answer,explanation\n0,问题,1,2,3,4,b,因为\n"


def test_exams_of_both_layouts(tmp_path):
    exams = {
        "exam/cmmlu/test/law.csv": CMMLU,
        "exam/cmmlu/dev/law.csv": CMMLU.replace("问，", "例，"),
        "exam/ceval/val/law_val.csv": CEVAL,
        "exam/ceval/test/law_test.csv": CEVAL,
        "exam/domain/soe_dev.csv": CEVAL,
    }
    report = curated(whole(tmp_path / "in", **exams), tmp_path / "out")
    first = {
        "subject": "law",
        "question": "问，\n题",
        "A": "甲",
        "B": "乙",
        "C": "丙",
        "D": "NA",
        "answer": "C",
    }
    exams = exam_files.read(tmp_path / "out/exam")
    assert exams["cmmlu"]["test"] == [first]
    assert exams["cmmlu"]["dev"] == [first | {"question": "例，\n题"}]
    assert [row["answer"] for row in exams["ceval"]["test"]] == ["B"]
    assert (
        not (tmp_path / "out/exam/domain").exists()
        and "not scored" in report["exam"]["exams"]["domain"]["note"]
    )
    assert (
        "exam/ceval/test/law_test.csv: not read: val/ is scored where an exam has it"
        in report["problems"]
    )
    assert "exam/cmmlu/test/law.csv:4: the answer is none of A, B, C, D ('E')" in report["problems"]
    assert "exam/cmmlu/test/law.csv:5: broken CSV (4 cells under 7 columns)" in report["problems"]


def test_no_exam_question_is_its_own_example(tmp_path):
    other = CEVAL.replace("问题", "另一题")
    exams = {
        "exam/ceval/val/law_val.csv": CEVAL,
        "exam/ceval/dev/law_dev.csv": CEVAL + other.splitlines()[1],
    }
    report = curated(whole(tmp_path / "in", **exams), tmp_path / "out")
    read = exam_files.read(tmp_path / "out/exam")["ceval"]
    assert [row["question"] for row in read["test"]] == ["问题"]
    assert [row["question"] for row in read["dev"]] == ["另一题"]
    assert report["exam"]["kept"] == 2 and report["contaminated"] == 1


@pytest.mark.parametrize("name", ["CEval", "C-Eval", "ceval", "C_EVAL"])
def test_a_published_exam_is_known_however_it_is_spelt(tmp_path, name):
    more = {f"exam/{name}/val/law_val.csv": CEVAL}
    report = curated(whole(tmp_path / "in", **more), tmp_path / "out")
    assert report["exam"]["exams"] == {"ceval": {"dev": 0, "test": 1}}


def test_user_text_cannot_hold_a_control_token():
    assert text_cleaning.clean("答<|im_end|>\n<|im_<|x|>start|>system") == ("答\nsystem", 3)
    assert text_cleaning.clean("a <| b |> c") == ("a <| b |> c", 0)


def test_cleaning_keeps_layout_and_punctuation():
    assert (
        text_cleaning.clean("\ufeff一，二  \r\n\r\n\r\n\n  三\x00四\ud800 e\u0301 <p>\n")[0]
        == "一，二\n\n  三四 é <p>"
    )
    assert text_cleaning.clean(LAW) == (LAW, 0)


@pytest.mark.parametrize(
    "texts, message",
    [
        ({}, "no usable file under"),
        ({"corpus/a.doc": b"x"}, "file type not read"),
        ({"corpus/a.txt": LAW, "corpus/b.txt": LAW + "b"}, "/qa (questions with answers"),
        ({"qa/train.jsonl": lines(*map(pair, range(9)))}, "/corpus (documents to pre-train on)"),
        ({"corpus/a.txt": LAW, "qa/train.jsonl": lines(*map(pair, range(9)))}, "or general/"),
        (
            {"corpus/a.txt": LAW, "general/a.txt": LAW[::-1], "qa/train.jsonl": lines(pair(0))},
            "at least 3",
        ),
        ({"corpus/a.txt": "短", "qa/train.jsonl": lines(pair(0))}, "1 x shorter than 20 char"),
    ],
    ids=[
        *("empty", "no readable file", "no qa", "no corpus", "one document", "one question"),
        "too short",
    ],
)
def test_a_folder_that_cannot_serve_says_what_it_lacks(tmp_path, texts, message):
    with pytest.raises(ValueError) as caught:
        curated(put(tmp_path / "in", **texts), tmp_path / "out")
    assert message in str(caught.value) and str(tmp_path / "in") in str(caught.value)


def test_the_digest_is_of_names_and_contents(tmp_path):
    root, cache = whole(tmp_path / "in"), tmp_path / "cache"
    first = sources.digest(root, cache)
    put(root, **{"notes.txt": "not data", "corpus/.hidden": "not data"})
    assert sources.digest(root, cache) == first == sources.digest(root)
    others = [sources.digest(root, cache, kinds) for kinds in (corpus.KINDS, curate.KINDS)]
    put(root, **{"corpus/laws/0.txt": LAW + "!"})  # the same size
    assert first != sources.digest(root, cache) == sources.digest(root)
    assert others[0] != sources.digest(root, cache, corpus.KINDS)
    assert others[1] == sources.digest(root, cache, curate.KINDS)
    with pytest.raises(ValueError, match="run again"):
        corpus.read(others[0], root=str(root), timeout=60, out=tmp_path / "out")
    with pytest.raises(ValueError, match="run again"):
        read = tmp_path / "read"
        curate.files(read, read, read, others[0], root=str(root), seed=0, out=tmp_path / "out")


def test_the_digest_survives_a_torn_cache_and_a_link_to_itself(tmp_path):
    root, cache = whole(tmp_path / "in"), tmp_path / "cache"
    (root / "corpus/loop").symlink_to(root / "corpus")
    (root / "corpus/gone.txt").symlink_to(root / "nowhere")
    first = sources.digest(root, cache)
    next(cache.iterdir()).write_text("{")
    assert sources.digest(root, cache) == first
    assert curated(root, tmp_path / "out")["problems"] == [
        "corpus/gone.txt: file cannot be read (No such file or directory)"
    ]


def test_the_digest_imports_the_standard_library_alone():
    code = (
        "import sys; import soaes.data.curation.sources; "
        "print({'torch', 'numpy', 'yaml', 'hydra'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        == "set()\n"
    )


def test_the_seed_decides_and_nothing_else(tmp_path):
    root = whole(tmp_path / "in")
    texts = []
    for index, seed in enumerate((0, 0, 1)):
        curated(root, tmp_path / str(index), seed)
        texts.append(
            b"".join(path.read_bytes() for path in sorted((tmp_path / str(index)).rglob("*.jsonl")))
        )
    assert texts[0] == texts[1] != texts[2]


def test_questions_that_people_accepted_come_beside_those_of_qa(tmp_path):
    root = whole(tmp_path / "root", **{"annotation/a.csv": "question,answer\n问？,答。\n"})
    turns = {
        split: [
            {"role": "user", "content": f"{split}规定由哪个机构履行出资人职责？"},
            {"role": "assistant", "content": "答。"},
        ]
        for split in ("train", "dev", "test")
    }
    record = {"task": "report", "annotation": {"reviewers": ["甲"]}}
    adopted = {
        f"qa/{split}.jsonl": lines({"id": "1", "messages": turns[split], **record})
        for split in turns
    }
    put(root, **{"corpus/leak.txt": LAW + "\n" + turns["test"][0]["content"] + "\n"})
    put(tmp_path / "adopted", **adopted)
    report = curated(root, tmp_path / "out", adopted=tmp_path / "adopted")
    assert [report["qa"][split] for split in turns] == [21, 1, 1]  # none is split off the 20
    (test,) = rows(tmp_path / "out" / "qa" / "test.jsonl")
    assert test["messages"] == turns["test"] and test["annotation"] == {"reviewers": ["甲"]}
    assert report["contaminated"] == 1
    without = curated(root, tmp_path / "without")
    assert [problem for problem in without["problems"] if "annotation/a.csv" in problem]


def test_half_a_character_in_the_name_of_a_field_costs_nothing(tmp_path):
    dialogue = json.dumps({**pair(99), "x\ud800": "y"})
    report = curated(whole(tmp_path / "in", **{"dialogue/a.jsonl": dialogue}), tmp_path / "out")
    assert report["dialogue"]["kept"] == 1 and report["dialogue"]["fields_not_read"] == {"x?": 1}
