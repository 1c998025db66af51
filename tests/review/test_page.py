"""The review page in a browser: keys, reload, two people, input methods, hostile documents."""

import re

import pytest

from soaes.data.annotation.item import review_item
from soaes.review.app import FILES
from tests.helpers import browser
from tests.helpers.reviews import (
    LocalService,
    document,
    label_item,
    pair_item,
    toy_items,
    wait_until,
)

pytestmark = pytest.mark.skipif(
    browser.executable() is None,
    reason="no Chromium here; apt-get install chromium, or CHROMIUM=PATH",
)

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<img src=x onerror=alert(3)>",
    "<svg onload=alert(4)>",
    "<svg><script>alert(5)</script></svg>",
    "<iframe srcdoc='<script>alert(6)</script>'></iframe>",
    "<a href='javascript:alert(7)'>x</a>",
    "<body onload=alert(8)>",
    "</textarea><script>alert(9)</script>",
    "</title><script>alert(10)</script>",
    "<style>@import 'http://evil.example/a.css';</style>",
    "<link rel=stylesheet href=http://evil.example/a.css>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<object data='javascript:alert(14)'></object>",
    "<form action=http://evil.example><input autofocus onfocus=alert(15)></form>",
    "{{7*7}} ${7*7} {% print 7*7 %}",
    "<math><mtext></mtext><mglyph><style><img src onerror=alert(17)></style></math>",
    "<!--><img src=x onerror=alert(18)>-->",
    "\u202ereversed\u202c \u200b\ufeff \x08 \U000e0041",
    "'\"><video><source onerror=alert(20)></video>",
]
VERDICT = "document.getElementById('state').textContent"
ITEM = "state.work && state.work.item.id"
HOSTILE_TAGS = (
    "main script, main img, main svg, main iframe, main style, main link, main a, main form"
)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    tab = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture
def serve(tmp_path):
    """Start the page over some items: `serve(items, ("li", "wang"))`."""
    started = []

    def start(items, people=("li",), **more):
        service = LocalService(tmp_path / "review.sqlite", items, people, **more)
        started.append(service)
        return service

    yield start
    for service in started:
        if service.thread.is_alive():
            service.stop()


def opened(tab, service, reviewer="li", **more):
    """A tab in which a person sees an item, with cookies of its own."""
    private = tab.another(alone=True)
    private.open(service.addresses[reviewer], **more)
    private.wait("document.querySelector('.actions')")
    return private


def decide(tab, *keys):
    """Press keys that decide, and wait until the decision is acknowledged."""
    before = tab.run(ITEM)
    for key in keys:
        tab.press(key)
    tab.wait(f"!state.pending && ({ITEM}) !== {before!r}")


def by_verdict(service):
    return [each["verdict"] for each in service.database.decisions()]


def test_a_person_works_by_keys_alone_and_a_reload_loses_nothing(tab, serve):
    service = serve(toy_items(9, tests=9, devs=0))
    page = opened(tab, service)
    first = page.run(ITEM)
    decide(page, "a")
    decide(page, "s")
    decide(page, "r", "2")
    assert page.run(VERDICT) == "Saved: Reject"

    page.press("r")  # a reason in one's own words, in which letters and digits decide nothing
    page.run("document.getElementById('remark').focus()")
    page.press("1")
    page.press("a")
    assert page.run("document.getElementById('remark').value") == "1a"
    decide(page, "Enter")

    page.press("e")
    page.write(" 另有一处。")
    page.wait("document.getElementById('state').dataset.state === 'draft'")
    item = page.run(ITEM)
    page.run("window.isOld = true")
    page.send("Page.reload")
    page.wait("!window.isOld && document.querySelector('textarea.answers')")
    assert page.run(ITEM) == item, "the item is kept for who has it"
    assert page.run("document.querySelector('textarea.answers').value").endswith("另有一处。")
    page.press("Enter", control=True)
    page.wait(f"({ITEM}) !== {item!r}")
    assert page.run(VERDICT) == "Saved: Edit"

    page.press("b")
    page.wait(f"({ITEM}) === {item!r}")
    assert page.run("document.querySelector('.answer-text').textContent").endswith("另有一处。")
    for _ in range(9):
        page.press("b")
        page.run("new Promise((resolve) => setTimeout(resolve, 20))")
    page.wait(f"({ITEM}) === {first!r}")
    decide(page, "r", "1")
    verdicts = {each["item"]: each for each in service.database.decisions()}
    assert verdicts[first]["verdict"] == "reject" and verdicts[first]["reason"] == "unsupported"
    assert sorted(by_verdict(service)) == ["edit", "reject", "reject", "reject", "skip"]
    assert {each["reason"] for each in verdicts.values()} == {"", "unsupported", "incomplete", "1a"}
    assert page.errors == []


def test_letters_are_dead_while_an_input_method_composes_and_while_a_key_is_held(tab, serve):
    service = serve(toy_items(3))
    page = opened(tab, service)
    for key in ("a", "s", "r", "e"):
        page.press(key, composing=True)
    page.press("a", repeat=True)
    page.press("a", control=True)
    assert page.run("state.mode") == "decide" and not by_verdict(service)

    page.press("e")
    page.compose("fei")
    page.press("Enter", control=True, composing=True)
    page.press("Escape", composing=True)
    assert page.run("state.mode") == "edit" and not by_verdict(service)
    page.write("非")
    page.press("Enter", control=True)
    wait_until(lambda: by_verdict(service) == ["edit"])
    assert service.database.decisions()[0]["answer"].endswith("非")

    page.wait("state.mode === 'decide' && !state.pending")
    page.press("r")
    page.run("document.getElementById('remark').focus()")
    page.compose("bu")
    page.press("Enter", composing=True)
    assert page.run("state.mode") == "reject"
    page.write("不对")
    page.press("Enter")
    wait_until(lambda: "reject" in by_verdict(service))
    assert "不对" in {each["reason"] for each in service.database.decisions()}


def test_progress_counts_what_others_decided_meanwhile(tab, serve):
    service = serve(toy_items(6, tests=6, devs=0), ("li", "wang"))
    li, wang = opened(tab, service), opened(tab, service, "wang")
    decide(wang, "a")
    li.press("3")
    li.wait("document.querySelector('.numbers')")
    assert li.run("document.querySelector('.numbers dd').textContent") == "1 / 6"
    assert "Question or report\tAccept" in li.run("document.getElementById('progress').innerText")


def test_where_all_is_read_there_is_no_rest(tab, serve):
    page = opened(tab, serve(toy_items(1, tests=0, devs=0)))
    decide(page, "a")
    page.press("3")
    page.wait("document.querySelector('.bound')")
    bound = page.run("document.querySelector('.bound').textContent")
    assert bound.endswith("skipped.All are read."), bound


def test_a_full_disk_is_said_and_the_decision_sent_again(tab, serve):
    service = serve(toy_items(4))
    page = opened(tab, service)
    database = service.database
    (row,) = database.rows("PRAGMA page_count")
    database.rows(f"PRAGMA max_page_count = {row[0]}")
    page.press("e")
    page.run("document.getElementById('answers').value = '答'.repeat(100000)")
    page.press("Enter", control=True)
    page.wait("state.failure")
    assert page.run("document.getElementById('state').title").startswith("The server cannot write")
    assert "Unsaved" in page.run(VERDICT)
    database.rows("PRAGMA max_page_count = 1000000")
    page.wait("document.getElementById('state').dataset.state === 'saved'")
    assert by_verdict(service) == ["edit"]


def test_two_people_and_two_tabs(tab, serve):
    service = serve(toy_items(6, tests=6, devs=0), ("li", "wang"))
    li, wang = opened(tab, service), opened(tab, service, "wang")
    assert li.run(ITEM) != wang.run(ITEM)
    second = li.another()
    second.open(service.base)
    second.wait("document.querySelector('.actions')")
    assert second.run(ITEM) == li.run(ITEM)
    decide(li, "a")
    second.press("r")
    second.press("1")
    second.wait("document.querySelector('.notice.bad')")
    assert "another tab" in second.run("document.querySelector('.notice').textContent")
    assert by_verdict(service) == ["accept"], "nothing is overwritten"
    second.run("document.querySelector('.notice button').click()")
    second.wait(f"({ITEM}) === {li.run(ITEM)!r}")
    for page in (wang, li, wang, li, wang):
        decide(page, "a")
    wang.wait("document.querySelector('.end')")
    decisions = service.database.decisions()
    assert len({each["item"] for each in decisions}) == len(decisions) == 6
    assert "li" not in wang.run("document.body.innerText").split()


def test_an_unsaved_decision_is_said_kept_and_sent_when_the_server_is_back(tab, serve, tmp_path):
    items = toy_items(4)
    service = serve(items)
    page = opened(tab, service)
    item, port = page.run(ITEM), service.port
    service.stop()
    page.press("a")
    page.wait("document.getElementById('state').dataset.state === 'unsaved'")
    assert "Unsaved" in page.run(VERDICT) and page.run(ITEM) == item
    page.press("r")
    assert page.run("state.pending.verdict") == "accept", "nothing else can be decided"
    back = serve(items, port=port)
    page.wait("document.getElementById('state').dataset.state === 'saved'")
    assert [each["item"] for each in back.database.decisions()] == [item]


def test_hostile_documents_are_text(tab, serve):
    items = []
    for number, payload in enumerate(PAYLOADS):
        about = document(payload * 3, payload, payload, id=str(number))
        span = (len(payload), 2 * len(payload))
        items.append(
            review_item(
                "qa",
                task="qa",
                split_hint="test",
                question=f"{payload} {number}",
                answer=payload,
                document=about,
                span=span,
                model=payload,
            )
        )
    pair = review_item("near_duplicate", document=items[0]["document"], other=items[2]["document"])
    service = serve([*items, pair])
    page = opened(tab, service)
    seen = 0
    while page.run("Boolean(state.work)"):
        assert page.run(f"document.querySelectorAll({HOSTILE_TAGS!r}).length") == 0
        text = page.run("document.querySelector('.document .text').textContent")
        item = page.run("state.work.item")
        if not re.search(r"[\u200b-\u202e\x08]", item["document"]["text"]):
            assert text == item["document"]["text"]
            assert item["kind"] != "qa" or item["answer"].strip() == page.run(
                "document.querySelector('mark.span').textContent.trim()"
            )
        else:
            assert "U+202E" in text and "U+0008" in text and "\u202e" not in text
        decide(page, "a" if item["kind"] == "qa" else "n")
        seen += 1
    assert seen == len(items) + 1
    page.press("2")
    page.wait("document.querySelector('#list tbody')")
    assert page.run(f"document.querySelectorAll({HOSTILE_TAGS!r}).length") == 0
    assert page.errors == []
    assert all(url.startswith((service.base, "data:")) for url in page.requests)


def test_what_stands_in_the_documents_is_shown(tab, serve):
    """A span counts characters as Python does; facts that it lacks; differences of a pair."""
    text = "𠮷野家😀的收入为12亿元。𠮷"
    span = (text.index("收入"), text.index("。"))
    about = document(text, id="1")
    fields = {"task": "qa", "split_hint": "test", "question": "?"}
    astral = review_item("qa", answer="《办\u200b法》", document=about, span=span, **fields)
    page = opened(tab, serve([astral, toy_items(2)[1], pair_item()]))
    assert page.run("document.querySelector('mark.span').textContent") == "收入为12亿元"
    facts = "[...document.querySelectorAll('.answer-text .fact{}')].map((each) => each.textContent)"
    assert page.run(facts.format(".missing")) == ["《办U+200B法》"], "nothing hides in a fact"
    decide(page, "a")

    assert page.run(facts.format(".missing")) == ["8.7亿元"]
    assert "《清河省企业国有资产交易监督管理办法》" in page.run(facts.format(":not(.missing)"))
    decide(page, "a")

    marks = "[...pane.querySelectorAll('mark')].map((mark) => mark.textContent)"
    shown = page.run(f"[...document.querySelectorAll('.document')].map((pane) => {marks})")
    assert shown == [["由", "386.5", "9"], ["经", "386.4", "11"]]
    decide(page, "y")
    page.wait("document.querySelector('.end')")
    page.press("b")
    page.wait("document.querySelector('.work.pair .notice')")


def test_a_passage_is_judged_before_its_document_is_seen(tab, serve):
    page = opened(tab, serve([label_item()]))
    shown = "document.querySelector('.document').textContent"
    alone = page.run(shown)
    assert "第三节" in alone and "第四节" not in alone and "年度报告" not in alone
    page.press("d")
    assert "第四节" in page.run(shown) and "年度报告" in page.run(shown)
    decide(page, "y")
    page.wait("document.querySelector('.end')")


def test_the_rubric_is_folded_text_that_one_key_opens(tab, serve):
    rubric = "# 判断标准\n\n| 是 | 用量 |\n" + "\n".join(PAYLOADS[:18])
    page = opened(tab, serve([label_item(), *toy_items(2), pair_item()], rubric=rubric))
    box = "document.getElementById('rubric')"
    assert page.run(f"{box}.open") is False
    page.press("g")
    assert page.run(f"{box}.open && {box}.querySelector('.text').checkVisibility()")
    assert page.run(f"{box}.querySelector('.text').textContent") == rubric
    assert page.run(f"document.querySelectorAll({HOSTILE_TAGS!r}).length") == 0
    kinds = []
    while page.run("Boolean(state.work)"):
        kind = page.run("state.work.item.kind")
        kinds.append((kind, page.run(f"{box} && {box}.open")))
        decide(page, "a" if kind == "qa" else "y")
    assert kinds.count(("qa", True)) == 2, "it stays open from item to item"
    assert ("relevance", True) in kinds and ("near_duplicate", None) in kinds
    assert page.errors == []


def test_nothing_scrolls_sideways_in_either_language(tab, serve):
    page = opened(
        tab, serve([*toy_items(2), pair_item()], rubric="字" * 400 + "w" * 400), language="zh-CN"
    )
    assert page.run("document.documentElement.lang") == "zh-CN"
    assert page.run("document.querySelector('.choice').textContent").startswith("接受")
    page.press("g")
    for width in (360, 1280):
        window = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.send("Emulation.setDeviceMetricsOverride", **window)
        for view in "1l23":
            page.press(view)
            page.wait("document.querySelector('.actions, #list table, #progress table')")
            assert page.run("document.documentElement.scrollWidth") <= width, (width, view)
        page.press("1")
    assert page.run("document.documentElement.lang") == "zh-CN"


def test_every_word_of_the_page_has_both_languages():
    text = FILES["review.js"].read_text("utf-8")
    words = text.partition("assign(WORDS, {")[2].partition("\n});")[0]
    known = set(re.findall(r"^  (\w+): \[", words, re.M))
    used = set(re.findall(r'say\("(\w+)"\)', text))
    assert used <= known
    entries = re.findall(r"^  \w+: \[(.*?)\],\n", words + "\n", re.M | re.S)
    assert len(entries) == len(known)
    untranslated = [entry for entry in entries if not re.search("[\u4e00-\u9fff]", entry)]
    assert untranslated == ['": ", "："']
