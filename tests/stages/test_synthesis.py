"""Questions by a model: every call is made once, every answer is an item or a named rejection."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from soaes.data.annotation import item as annotation
from soaes.data.curation.decontamination import HELD_OUT
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.jsonl import read_jsonl, write_jsonl
from soaes.data.synthesis.settings import (
    AskingSettings,
    EndpointAuthor,
    PromptSettings,
    RuleAuthor,
    ScreenSettings,
)
from soaes.pipeline.runtime import Endpoint, LoggerSettings, Runtime
from soaes.stages import synthesis
from tests.helpers.openai_server import answer_body, openai_server, rules

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-0123456789"
AUTHOR = EndpointAuthor(model="m")
BODIES = ("国有资产监督管理局", "审计局", "财政局", "税务局", "统计局", "商务局")
MATTERS = (
    "产权登记",
    "资产评估",
    "收益收取",
    "预算编制",
    "年度审计",
    "档案移交",
    "人员任免",
    "重大投资",
)


def law(number):
    """A law of 12 articles, each with facts and characters of its own."""
    articles = []
    rng = random.Random(number)
    for article in range(1, 13):
        body = BODIES[(number + article) % len(BODIES)]
        matter = MATTERS[(number * 5 + article) % len(MATTERS)]
        code = "".join(map(chr, rng.choices(range(0x4E00, 0x9F00), k=110)))
        days = 10 + (number * 31 + article * 7) % 89
        limit = f"{matter}应当在{days}日内办结，金额超过{days * article}万元的报送{body}批准"
        year = 2000 + article
        articles.append(f"第{article}条 第{number}号{code}区域的{limit}，由其于{year}年起施行。")
    return "\n".join(articles)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of data.select and that of data.held_out_questions."""
    folder = tmp_path_factory.mktemp("corpus")
    with StepOutput("select", folder / "select") as output:
        for number in range(24):
            source = f"corpus/laws/{number}.txt"
            name = f"第{number}号{MATTERS[number % 8]}{BODIES[number % 6]}办法"
            document = curated("corpus", source, SourceDocument(law(number), source, title=name))
            output.account.take(document)
            output.keep(document)
        text = SourceDocument(law(99), "general/a.txt", title="通用")
        document = curated("general", "general/a.txt", text)
        output.account.take(document)
        output.keep(document)
    write_jsonl(folder / "held" / HELD_OUT, [])
    return folder


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with openai_server() as running:
        yield running


def prompt():
    settings = yaml.safe_load((ROOT / "conf/prompt/zh.yaml").read_text("utf-8"))
    settings.pop("_target_")
    return PromptSettings(**settings)


def ask(corpus, tmp_path, name="ask", url="", qa=20, reports=2, author=AUTHOR, **settings):
    out = tmp_path / name
    out.mkdir()
    synthesis.ask(
        corpus / "select",
        prompt=prompt(),
        author=author,
        asking=AskingSettings(qa=qa, reports=reports, passage_chars=100),
        endpoint=Endpoint(base_url=url or "http://127.0.0.1:9/v1", backoff=0.001, **settings),
        call_log=tmp_path / "calls",
        out=out,
    )
    return out


def screen(corpus, calls, out, **settings):
    out.mkdir()
    synthesis.screen(
        calls,
        corpus / "select",
        corpus / "held",
        prompt=prompt(),
        screens=ScreenSettings(**settings),
        out=out,
    )
    return out


def account(folder):
    return json.loads((folder / "account.json").read_text("utf-8"))


def test_a_queue_of_200_items_and_10_reports_through_the_protocol(corpus, server, tmp_path):
    calls = ask(corpus, tmp_path, url=server.url, qa=230, reports=12, concurrency=32)
    rows = read_jsonl(calls / "calls.jsonl")
    assert len(rows) == len(server.bodies) == 242 == len({row["digest"] for row in rows})
    assert {row["document"] for row in rows} == {
        row["document"] for row in rows if row["task"] == "qa"
    }  # documents take turns, and general text is not asked about
    out = screen(corpus, calls, tmp_path / "screen")
    counts = account(out)
    assert counts["calls"] == counts["items"] + sum(counts["rejections"].values()) == 242
    items = annotation.read_items(out / "items.jsonl")
    tasks = Counter(item["task"] for item in items)
    assert tasks["qa"] >= 200 and tasks["report"] >= 10
    texts = {row["id"]: row["text"] for row in read_jsonl(corpus / "select" / "documents.jsonl")}
    for item in items:
        start, end = item["span"]
        document = item["document"]
        assert document["text"] == texts[document["id"]]
        facts = set(re.findall(r"\d+(?=[日万])", item["answer"]))
        assert facts <= set(re.findall(r"\d+", document["text"][start:end]))
    splits = {}
    for item in items:
        splits.setdefault(item["split_hint"], set()).add(item["document"]["id"])
    assert splits.keys() == {"", "dev", "test"}
    assert not splits["dev"] & splits["test"] and not splits[""] & (splits["dev"] | splits["test"])


def test_calls_that_are_known_are_not_made_again_and_other_screens_cost_none(
    corpus, server, tmp_path
):
    first = ask(corpus, tmp_path, "a", server.url)
    more = ask(corpus, tmp_path, "b", server.url, qa=30)
    assert len(server.bodies) == 32  # 22, and 10 more
    rows = read_jsonl(more / "calls.jsonl")
    assert read_jsonl(first / "calls.jsonl") == [*rows[:2], *rows[2:22]]
    some = screen(corpus, more, tmp_path / "c", max_question_chars=50)
    every = screen(corpus, more, tmp_path / "d")
    assert account(some)["rejections"]["question too long"] > 0
    assert account(some)["items"] < account(every)["items"]
    assert len(server.bodies) == 32


def test_after_an_invalid_answer_every_span_is_in_its_own_document(corpus, server, tmp_path):
    server.faults = lambda number, body: (200, {}, answer_body("{")) if number % 3 == 0 else None
    out = screen(corpus, ask(corpus, tmp_path, url=server.url), tmp_path / "screen")
    assert sum(account(out)["rejections"].values()) >= 7
    for item in annotation.read_items(out / "items.jsonl"):
        start, end = item["span"]
        number = re.search(r"第(\d+)号", item["document"]["title"])[1]
        assert f"第{number}号" in item["document"]["text"][start:end]


def test_a_kill_costs_the_call_under_way_alone(corpus, server, tmp_path):
    """After k calls and kill -9, the same stage makes n - k calls."""
    killed = []

    def kill(number, body):
        if number == 6:
            killed.append(process.pid)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    server.faults = kill
    code = (
        "import sys; from pathlib import Path; from tests.stages import test_synthesis as t;"
        "t.ask(Path(sys.argv[1]), Path(sys.argv[2]), 'a', sys.argv[3], concurrency=1)"
    )
    words = [sys.executable, "-c", code, str(corpus), str(tmp_path), server.url]
    process = subprocess.Popen(words, cwd=ROOT)
    process.wait(timeout=60)
    assert killed and len(server.bodies) == 6
    server.faults = lambda number, body: None
    ask(corpus, tmp_path, "b", server.url)
    assert len(server.bodies) == 6 + (22 - 5)


def test_the_budget_ends_a_command_and_the_next_one_goes_on(corpus, server, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"max_tokens=600: used up.*5 of 22 calls are answered"):
        settings = {"max_tokens": 600, "concurrency": 1, "prompt_price": 10.0}
        ask(corpus, tmp_path, "a", server.url, **settings)
    shown = capsys.readouterr().out
    assert "5/22 calls (5 new), 600 of 600 tokens, cost 0.0050" in shown
    ask(corpus, tmp_path, "b", server.url)
    assert len(server.bodies) == 22


def test_one_call_that_fails_keeps_the_others(corpus, server, tmp_path):
    server.faults = lambda number, body: (503, {}, b"down") if number >= 10 else None
    with pytest.raises(ValueError, match=r"down.*9 of 22 calls are answered and kept"):
        ask(corpus, tmp_path, "a", server.url, attempts=2, concurrency=1)
    server.faults = lambda number, body: None
    num_before = len(server.bodies)
    ask(corpus, tmp_path, "b", server.url)
    assert len(server.bodies) - num_before == 22 - 9


def test_a_server_that_refuses_all_requests_is_asked_no_more(corpus, server, tmp_path):
    server.faults = lambda number, body: (400, {}, b"max_model_len is 512")
    refused = "refused the first 20 requests.*400: max_model_len is 512.*20 of 22 calls"
    with pytest.raises(ValueError, match=refused):
        ask(corpus, tmp_path, "a", server.url, concurrency=1)
    assert len(server.bodies) == 20
    server.faults = lambda number, body: (400, {}, b"no") if number == 21 else None
    rows = read_jsonl(ask(corpus, tmp_path, "b", server.url, concurrency=1) / "calls.jsonl")
    assert [row["reply"]["finish_reason"] for row in rows].count("refused: 400") == 1
    assert len(server.bodies) == 20 + 22


def test_a_changed_document_or_prompt_never_reuses_an_answer(corpus, server, tmp_path):
    rows = read_jsonl(ask(corpus, tmp_path, "a", server.url) / "calls.jsonl")
    other = tmp_path / "other"
    lines = (corpus / "select" / "documents.jsonl").read_text("utf-8")
    (other / "select").mkdir(parents=True)
    (other / "select" / "documents.jsonl").write_text(lines.replace("办结", "完成"), "utf-8")
    changed = read_jsonl(ask(other, tmp_path, "b", server.url) / "calls.jsonl")
    assert len(server.bodies) == 44
    assert {row["digest"] for row in rows}.isdisjoint(row["digest"] for row in changed)


def test_no_item_is_an_error_with_the_three_commonest_reasons(corpus, server, tmp_path):
    answers = ["", "抱歉，我无法回答。", "42", "{}"]

    def fault(number, body):
        return 200, {}, answer_body(answers[(number > 10) + (number > 16) + (number > 20)])

    server.faults = fault
    calls = ask(corpus, tmp_path, url=server.url, concurrency=1)
    reasons = "none of 22 answers.*10 x empty, 6 x refusal, 4 x no object; read"
    with pytest.raises(ValueError, match=reasons):
        screen(corpus, calls, tmp_path / "screen")
    assert not (tmp_path / "screen" / "items.jsonl").exists()


def test_the_key_stands_nowhere(corpus, server, tmp_path, capfd, monkeypatch):
    """Not in the folders, the log, the output, the errors, nor in what the runtime writes."""
    echo = {"error": {"message": f"Incorrect API key provided: {KEY}"}}
    server.faults = lambda number, body: (400, {}, echo) if number == 3 else None
    calls = ask(corpus, tmp_path, "a", server.url)
    screen(corpus, calls, tmp_path / "screen")
    server.faults = lambda number, body: (401, {}, echo)
    with pytest.raises(ValueError) as error:
        ask(corpus, tmp_path, "b", server.url, qa=40)
    runtime = Runtime(store=tmp_path, logger=LoggerSettings(), endpoint=Endpoint(server.url))
    (tmp_path / "runtime.json").write_text(json.dumps(runtime.to_plain()))
    shown = capfd.readouterr()
    texts = [shown.out, shown.err, repr(error.value), repr(error.getrepr(style="long"))]
    texts += [str(error.getrepr(style="long", funcargs=True))]
    texts += [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 8 and not any(KEY in text for text in texts)
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)


def test_the_rules_need_no_server_and_write_what_the_server_got_from_them(corpus, server, tmp_path):
    here = read_jsonl(ask(corpus, tmp_path, "a", author=RuleAuthor()) / "calls.jsonl")
    assert len(here) == 22 and not server.bodies
    there = read_jsonl(ask(corpus, tmp_path, "b", url=server.url) / "calls.jsonl")
    assert [row["span"] for row in here] == [row["span"] for row in there]
    contents = {rules(body) for body in server.bodies}
    assert {row["reply"]["content"] for row in there} == contents


def test_a_local_model_is_named_where_it_is_run(corpus, tmp_path):
    from soaes.data.synthesis.settings import TransformersAuthor

    with pytest.raises(ValueError, match="data.ask.model is null"):
        ask(corpus, tmp_path, author=TransformersAuthor())


def test_a_budget_that_the_last_call_uses_up_stops_nothing(corpus, server, tmp_path):
    settings = {"url": server.url, "qa": 3, "reports": 0, "concurrency": 1}
    calls = ask(corpus, tmp_path, max_tokens=360, **settings)
    assert len(read_jsonl(calls / "calls.jsonl")) == len(server.bodies) == 3
