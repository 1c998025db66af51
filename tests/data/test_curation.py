"""Laws of reading users' files: what carries meaning is read, or named and counted."""

import json
import time
from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from soaes.data import chat
from soaes.data.curation import chat_formats, decontamination, parsing, sources, text_cleaning

QUESTION = {"role": "user", "content": "央企是什么？"}
ANSWER = {"role": "assistant", "content": "由国资委监管的企业。"}


def records(path):
    """The records that a file is read as, and the places of its problems."""
    values = list(parsing.objects(path))
    problems = [(line, value) for line, value in values if isinstance(value, parsing.ParseError)]
    return [value for _, value in values if isinstance(value, dict)], problems


# ---------------------------------------------------------------- JSON

WRITERS = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "array": lambda rows: json.dumps(rows) + "\n",
    "indented array": lambda rows: json.dumps(rows, indent=1) + "\n",
    "array of a record a line": lambda rows: (
        "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    ),
    "indented objects": lambda rows: "".join(json.dumps(row, indent=2) + "\n" for row in rows),
    "objects on one line": lambda rows: " ".join(json.dumps(row) for row in rows) + "\n",
}


def numbered(start, count):
    """Records with objects, lists, brackets and line breaks in them."""
    return [
        {"n": number, "messages": [{"content": f"[{number}]\n{{,"}, {"content": ""}], "more": []}
        for number in range(start, start + count)
    ]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("second", [*WRITERS, "nothing"])
@pytest.mark.parametrize("first", WRITERS)
def test_however_records_are_written_and_joined_all_are_read(tmp_path, first, second, suffix):
    rows = numbered(0, 3)
    text = WRITERS[first](rows)
    if second != "nothing":
        more = numbered(3, 4)
        text += WRITERS[second](more)
        rows += more
    path = tmp_path / f"all{suffix}"
    path.write_text(text, encoding="utf-8")
    assert records(path) == (rows, [])


@pytest.mark.parametrize("layout", ["lines", "indented array", "array of a record a line"])
@pytest.mark.parametrize("broken", [0, 1, 4])
@pytest.mark.parametrize("lost", ['": ', "}"], ids=["colon", "closing brace"])
def test_a_broken_record_costs_itself_alone(tmp_path, layout, broken, lost):
    rows = numbered(0, 5)
    texts = [WRITERS[layout]([row]) for row in rows]
    if "array" in layout:
        texts = [text.strip().removeprefix("[").removesuffix("]").strip("\n") for text in texts]
    before, _, after = texts[broken].rpartition(lost)
    texts[broken] = before + after
    text = "".join(texts) if layout == "lines" else "[\n" + ",\n".join(texts) + "\n]"
    path = tmp_path / "all.json"
    path.write_text(text, encoding="utf-8")
    read, problems = records(path)
    assert read == [row for row in rows if row["n"] != broken] and len(problems) == 1


@pytest.mark.parametrize(
    "text, lost",
    [
        ('[{"n": 0}, {"n": 1, {"n": 2}, {"n": 3}]', "28 characters are lost"),
        ('[{"n": 0},', "an array is not closed"),
        ('{"n": 0} and more', "Expecting value"),
        ('{"n": 0, "n": 1}', "two values of n"),
        ('{"n": 0}\n7\n', "it is int"),
    ],
    ids=["rest of a line", "cut array", "text after a record", "key twice", "number"],
)
def test_what_is_no_record_is_named(tmp_path, text, lost):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    _, problems = records(path)
    assert len(problems) == 1 and lost in problems[0][1].detail


# ---------------------------------------------------------------- fields


def as_messages(record):
    return chat_formats.messages(record).messages


def contents(record):
    return [turn["content"] for turn in as_messages(record)]


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_the_system_prompt_is_read_wherever_it_stands(field):
    system = {"role": "system", "content": "你是顾问。"}
    expected = ["你是顾问。", QUESTION["content"], ANSWER["content"]]
    beside = {"system": "你是顾问。", field: [QUESTION, ANSWER]}
    assert contents(beside) == contents({field: [system, QUESTION, ANSWER]}) == expected
    assert contents(beside | {field: [system, QUESTION, ANSWER]}) == expected
    with pytest.raises(chat_formats.RecordFormatError, match="two different system prompts"):
        contents({"system": "你是记者。", field: [system, QUESTION, ANSWER]})


def test_null_and_empty_columns_of_merged_tables_do_not_count():
    alpaca = {"instruction": QUESTION["content"], "output": ANSWER["content"]}
    share = {"conversations": [{"from": "human", "value": QUESTION["content"]}]}
    share["conversations"].append({"from": "gpt", "value": ANSWER["content"]})
    layouts = [alpaca, share, {"messages": [QUESTION, ANSWER]}]
    columns = {field for layout in layouts for field in layout} | {"input", "history", "system"}
    for layout in layouts:
        for absent in (None, ""):
            merged = {column: absent for column in columns} | layout
            assert as_messages(merged) == [QUESTION, ANSWER]
            assert chat_formats.messages(merged).unread == set()
    turns = [{"from": None, "value": None} | turn for turn in (QUESTION, ANSWER)]
    assert as_messages({"conversations": turns}) == [QUESTION, ANSWER]


@pytest.mark.parametrize("value", [0, 12, False, 0.0, ["x"]], ids=str)
@pytest.mark.parametrize("field", ["input", "system", "history", "output", "instruction"])
def test_a_value_that_is_no_text_is_refused_whatever_it_is(field, value):
    record = {"instruction": "求平方。", "output": "144", field: value}
    with pytest.raises(chat_formats.RecordFormatError, match=field):
        contents(record)


@pytest.mark.parametrize("flag", chat_formats.LOSS_FLAGS)
@pytest.mark.parametrize("out, left_in", [(0, 1), (False, True), (0.0, 1.0)], ids=str)
def test_an_answer_taken_out_of_the_loss_bears_none(flag, out, left_in):
    def conversation(first, second):
        answers = [{**ANSWER, flag: value} for value in (first, second)]
        return {"messages": [QUESTION, answers[0], QUESTION, answers[1]]}

    words = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: n for n, word in enumerate([*words, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(words)

    whole = as_messages(conversation(left_in, left_in))
    assert whole == [QUESTION, ANSWER] * 2
    ids_T, all_T = chat.encode(tokenizer, whole)
    flagged_ids_T, flagged_T = chat.encode(tokenizer, as_messages(conversation(out, left_in)))
    assert np.array_equal(ids_T, flagged_ids_T) and all_T.sum() == 2 * flagged_T.sum()
    assert not flagged_T[: len(ids_T) // 2].any()
    for bad, reason in (((out, out), "no answer bears loss"), ((left_in, 0.5), "neither 0 nor 1")):
        with pytest.raises(chat_formats.RecordFormatError, match=reason):
            as_messages(conversation(*bad))


def test_fields_that_are_not_read_are_named():
    turns = [QUESTION | {"name": "a", "weight": 0}, ANSWER | {"tool_calls": [{}], "weight": 1}]
    record = {"messages": turns, "tools": ["x"], "instruction": "又", "id": 1, "category": "c"}
    assert chat_formats.messages(record).unread == {
        "tools",
        "instruction",
        "messages[].name",
        "messages[].tool_calls",
    }


# ---------------------------------------------------------------- encodings and time

CHINESE = "国有资产监督管理机构代表本级人民政府履行出资人职责。\n" * 20


@pytest.mark.parametrize(
    "encoding, advice",
    [
        ("gb18030", "iconv -f GB18030"),
        ("utf-16", "iconv -f UTF-16 "),
        ("utf-16-le", "iconv -f UTF-16LE"),
        ("utf-16-be", "iconv -f UTF-16BE"),
        ("utf-32", "iconv -f UTF-32"),
        ("big5", "iconv -f"),
    ],
)
def test_an_encoding_is_judged_by_the_whole_file(tmp_path, encoding, advice):
    text = CHINESE.replace("监督", "") if encoding == "big5" else CHINESE
    if encoding == "big5":
        text = "國有資產機構代表本級人民政府履行出資人職責。\n" * 20
    ascii_rows = '{"text": "only ASCII"}\n' * 20
    rows = "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in text.split())
    contents = {
        "a.jsonl": ascii_rows + rows,
        "a.json": json.dumps([{"text": text}], ensure_ascii=False),
        "a.csv": "question,answer\n" + ascii_rows.replace(",", "") + text.replace("\n", ",A\n"),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content.encode(encoding))
        ((line, error),) = (parsing.table if path.suffix == ".csv" else parsing.objects)(path)
        assert line == 0 and error.reason == "not UTF-8" and advice in error.detail
        assert "lines are lost" in error.detail


@pytest.mark.parametrize("rows", ["说明", "plain"], ids=["Chinese", "ASCII"])
def test_a_few_broken_bytes_cost_their_rows_alone(tmp_path, rows):
    good = json.dumps({"text": rows * 30}, ensure_ascii=False).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([good, b'{"text": "\xff\xfe"}', good]))
    read, problems = records(path)
    assert len(read) == 2 and [line for line, _ in problems] == [2]


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "表头" + " " * n + "1",
        lambda n: "\u3000\t" * n + "x",
        lambda n: "<|a" * n + "|>" * n,
        lambda n: "\r\n" * n,
        lambda n: "<|" * n,
    ],
    ids=["blanks", "wide blanks", "nested tokens", "breaks", "openings"],
)
def test_cleaning_takes_time_linear_in_the_text(make):
    text = make(100_000)
    began = time.process_time()
    text_cleaning.clean(text)
    assert time.process_time() - began < 2  # quadratic: minutes


def test_cleaning_removes_control_tokens_until_there_are_none():
    parts = ["<", "|", ">", "<|", "|>", "a", "x y", " ", "<|x|>", "\n", "\u3000"]
    rng = Random(0)
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randint(1, 25)))
        plain, count = text, 0
        while text_cleaning.CONTROL_TOKEN.search(plain):
            plain, found = text_cleaning.CONTROL_TOKEN.subn("", plain)
            count += found
        assert text_cleaning.remove_control_tokens(text) == (plain, count)
        assert all(line == line.rstrip() for line in text_cleaning.clean(text)[0].split("\n"))


# ---------------------------------------------------------------- held-out questions


def turns(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


EXAM = {
    "subject": "law",
    "question": "下列哪一项正确？",
    **dict(zip("ABCD", ("甲一", "乙二", "丙三", "丁四"), strict=True)),
    "answer": "A",
}


@pytest.fixture
def held_out():
    questions = decontamination.HeldOutQuestions()
    questions.add("qa/test", turns("第１000条 是什么？", "出资人职责。"))
    questions.add("qa/dev", turns("甲公司是什么？", "央企。", "它在哪里？", "北京。"))
    questions.add("qa/dev", turns("为何？", "因为。"))
    questions.add_exam("exam/ceval", EXAM)
    return questions


HOLDING = {
    "the question": turns("第1000条是什么？", "别的答案"),
    "other width, case and space": turns(" 第1000条是\n什么? ", "x"),
    "without its mark": turns("第1000条是什么", "x"),
    "a later turn": turns("你好", "你好", "第1000条是什么？", "x"),
    "below a system prompt": [{"role": "system", "content": "s"}, *turns("第1000条是什么？", "x")],
    "two turns": turns("甲公司是什么？", "央企。", "它在哪里？", "x", "好", "好"),
    "a short turn": turns("为何？", "x"),
    "an exam question": turns("下列哪一项正确？\nA. 丁四\nB. 丙三\nC. 乙二\nD. 甲一", "A"),
}
NOT_HOLDING = {
    "another number": turns("第10001条是什么？", "x"),
    "a longer question": turns("请问条例第1000条是什么？", "x"),
    "the last turn alone": turns("它在哪里？", "x"),
    "an exam's words with other options": turns("下列哪一项正确？\nA. 1\nB. 2", "A"),
    "the answer": turns("什么？", "出资人职责。"),
}


@pytest.mark.parametrize("name", [*HOLDING, *NOT_HOLDING])
def test_a_conversation_holds_a_question_if_a_turn_equals_it(held_out, name):
    messages = (HOLDING | NOT_HOLDING)[name]
    assert bool(held_out.in_messages(messages)) == (name in HOLDING)


@pytest.mark.parametrize(
    "text, split",
    [
        ("第1000条是什么？", "qa/test"),
        ("前言。\n问：第1000条是什么？\n答：出资人职责。", "qa/test"),
        ("1. 第1000条是什么？2. 另一问？", "qa/test"),
        ("FAQ\n\n- 第１０００条 是什么\n\n出资人职责。", "qa/test"),
        ("问：“第1000条是什么”？", "qa/test"),
        ("甲公司是什么？\n央企。\n它在哪里？\n北京。", "qa/dev"),
        ("题：下列哪一项正确？\nA. 甲一\nB. 乙二\nC. 丙三\nD. 丁四", "exam/ceval"),
        ("为何？这里有一篇很长的文章。", ""),
        ("公司法第1000条是什么？", ""),
        ("第1000条是什么？内容的开头", "qa/test"),
        ("第1000条是什么意思", ""),
        ("下列哪一项正确？\nA. 甲一\nB. 乙二\nC. 丙三\nD. 别的", ""),
    ],
    ids=[
        "the whole",
        "labels",
        "numbers",
        "a line of its own",
        "quotes",
        "turns of a conversation",
        "exam with options",
        "a short question is no sign",
        "the end of a longer question",
        "a sentence among others",
        "the beginning of a longer question",
        "exam with other options",
    ],
)
def test_a_document_holds_a_question_if_its_sentences_equal_it(held_out, text, split):
    assert held_out.in_text(text) == split


LONG_EXAM = EXAM | {"question": "根据《企业国有资产法》，下列哪一项不属于出资人的权利（　　）。"}
DISGUISES = {
    "verbatim": lambda text: text,
    "punctuation": lambda text: (
        text.replace("，", ",").replace("（　　）。", "____ ?").replace("《", "")
    ),
    "spacing": lambda text: " ".join(text),
    "full width": lambda text: text.replace("A. ", "Ａ．").replace("B. ", "Ｂ．"),
    "broken lines": lambda text: "\n".join(
        text[start : start + 9] for start in range(0, len(text), 9)
    ),
    "markup": lambda text: f"12**{text}**",
    "without options": lambda text: text.partition("\n")[0] + "答案：甲一",
}


@pytest.mark.parametrize(
    "order", ["甲一 乙二 丙三 丁四", "丁四 乙二 甲一 丙三"], ids=["same", "turned"]
)
@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_question_is_known_under_every_disguise(held_out, disguise, order):
    held_out.add_exam("exam/cmmlu", LONG_EXAM)
    options = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", order.split()))
    leak = DISGUISES[disguise](f"{LONG_EXAM['question']}\n{options}")
    law = "《企业国有资产法》规定了出资人的权利。\n"
    for questions in (held_out, held_out.from_rows(held_out.rows())):
        assert questions.in_text(f"{law}{leak}\n{law}") == "exam/cmmlu"
        assert questions.in_text(law * 3) == ""
    assert held_out.in_messages(turns(f"请回答：\n{leak}", "甲一")) == "exam/cmmlu"


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_question_of_a_long_text_is_found_wherever_the_text_is_cut(held_out, monkeypatch, piece):
    law = "《企业国有资产法》规定了出资人的权利。\n" * 3
    leak = f"第1000条是什么？\n{law}甲公司是什么？央企。它在哪里？\n{EXAM['question']}"
    texts = [law, leak, f"{law}{leak}{law}", f"{law}在{leak[:-2]}", f"{law}第1000条是什么呢{law}"]
    whole = [[question.stem for question in held_out._held(text)] for text in texts]
    assert whole[0] == whole[4] == [] and whole[1] == whole[2] != []
    monkeypatch.setattr(decontamination, "PIECE", piece)
    monkeypatch.setattr(decontamination, "MARGIN", 60)
    assert [[question.stem for question in held_out._held(text)] for text in texts] == whole


@pytest.mark.parametrize(
    "text",
    [
        "本规定根据企业国有资产法下列哪一项不属于出资人的权利的规定制定。",
        "根据《企业国有资产法》，下列哪一项不属于出资人的权利义务？",
        "根据《企业国有资产法》，下列哪一项属于出资人的权利？",
    ],
    ids=["within a sentence", "longer", "other"],
)
def test_a_shared_run_of_characters_is_no_question(held_out, text):
    held_out.add_exam("exam/cmmlu", LONG_EXAM)
    assert held_out.in_text(text) == ""


def test_words_that_several_questions_share_need_the_options(held_out):
    other = LONG_EXAM | dict(zip("ABCD", ("戊五", "己六", "庚七", "辛八"), strict=True))
    held_out.add_exam("exam/cmmlu", LONG_EXAM)
    held_out.add_exam("exam/ceval", other)
    question = LONG_EXAM["question"]
    assert held_out.in_text(f"{question}\nA. 壬九 B. 癸十") == ""
    assert held_out.in_text(f"{question}\nA. 辛八 B. 庚七 C. 己六 D. 戊五") == "exam/ceval"


def test_short_turns_are_told_apart_by_their_signs(held_out):
    held_out.add("qa/test", turns("3-2=?", "1"))
    assert held_out.in_messages(turns(" 3-2=？", "1")) == "qa/test"
    assert held_out.in_messages(turns("32=?", "1")) == ""


def test_an_exam_example_is_no_test_question_in_any_order_of_options(held_out):
    turned = EXAM | dict(zip("ABCD", ("丁四", "甲一", "乙二", "丙三"), strict=True))
    assert held_out.in_exam_example(EXAM) == held_out.in_exam_example(turned) == "exam/ceval"
    assert held_out.in_exam_example(EXAM | {"D": "别的"}) == ""


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name, kind",
    [
        ("dialogues", "dialogue"),
        ("Dialog", "dialogue"),
        ("exams", "exam"),
        ("General", "general"),
        ("QA", "qa"),
        ("corpus.jsonl", "corpus"),
    ],
)
def test_a_misnamed_folder_is_refused_before_anything_is_planned(tmp_path, name, kind):
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is not read, {kind}/ is: rename it"):
        sources.digest(tmp_path)


def test_every_misnamed_folder_is_named_at_once(tmp_path):
    for name in ("dialogues", "General"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="General is not read, general/ is; dialogues is not read"):
        sources.digest(tmp_path)


def test_other_names_are_listed_and_change_nothing(tmp_path):
    (tmp_path / "corpus").mkdir()
    before = sources.digest(tmp_path)
    for name in ("scripts", "corpus_old", ".git"):
        (tmp_path / name).mkdir()
    assert sources.digest(tmp_path) == before
    assert sources.unread_names(tmp_path) == ["corpus_old", "scripts"]
