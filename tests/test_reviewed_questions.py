"""From raw documents to stage 2: a server writes questions, and people review them in browsers."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from soaes.data.annotation import item as contract
from soaes.data.jsonl import read_jsonl
from tests.helpers import browser
from tests.helpers.openai_server import openai_server
from tests.helpers.reviews import Server

ROOT = Path(__file__).parents[1]
NUM_DOCUMENTS = 130
QUESTIONS, REPORTS = 230, 12
HOSTILE = "<script>window.isBroken = true</script><img src=x onerror='window.isBroken = true'>"
ITEM = "state.work && state.work.item.id"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(browser.executable() is None, reason="no Chromium here"),
]


def report_of(number):
    """A report of three passages with characters and figures of its own; every tenth is hostile."""
    rng = random.Random(number)
    own = "".join(map(chr, rng.choices(range(0x4E00, 0x9F00), k=1200)))
    name = own[:4]
    markup = HOSTILE if number % 10 == 0 else ""
    parts = []
    for part in range(3):
        words = own[4 + 390 * part : 4 + 390 * (part + 1)]
        income = f"{rng.randrange(10, 9000)}.{part + 1}亿元"
        growth = f"{number % 30 + part + 1}.{part}%"
        sentences = [
            f"{name}集团2025年{words[6:90]}实现收入{income}{markup}",
            words[90:190],
            f"{words[190:280]}，同比增长{growth}",
            words[280:380],
        ]
        parts.append(f"第{'一二三'[part]}节 {words[:6]}\n\n{'。'.join(sentences)}。")
    return f"# {name}集团2025年度报告\n\n" + "\n\n".join(parts) + "\n"


@pytest.fixture
def folder(tmp_path):
    for number in range(NUM_DOCUMENTS):
        path = tmp_path / "DIR" / "corpus" / "annual" / f"{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report_of(number), encoding="utf-8")
    return tmp_path


def run(folder, module, *words):
    """Run a command of the package in a folder."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SOAES_STORE": str(folder / "store"),
        "OPENAI_API_KEY": "none",
    }
    command = [sys.executable, "-m", module, *words]
    finished = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def decide(page, number):
    """Accept, reject or edit the item on the screen by keys; now and then reload in an edit."""
    before = page.run(ITEM)
    assert not page.run("Boolean(window.isBroken)")
    if number % 5 == 3:
        page.press("r")
        page.press("1")
    elif number % 5 == 4:
        page.press("e")
        page.compose("bu chong")
        page.press("Enter", control=True, composing=True)  # it ends the composition, no decision
        page.write("补充。")
        page.wait("document.getElementById('state').dataset.state === 'draft'")
        if number % 20 == 4:
            page.run("window.isOld = true")
            page.send("Page.reload")
            page.wait("!window.isOld && document.querySelector('textarea.answers')")
            assert page.run(ITEM) == before
        page.press("Enter", control=True)
    else:
        page.press("a")
    page.wait(f"!state.pending && ({ITEM}) !== {before!r}")


def test_questions_that_two_people_review_in_browsers_train_stage_2(folder, tmp_path_factory):
    with openai_server() as author:
        run(
            folder,
            "soaes.run",
            "goal=data.screen",
            "data=files",
            "data.root=DIR",
            "logger=none",
            "author.model=rules",
            f"endpoint.base_url={author.url}",
            f"data.ask.asking.qa={QUESTIONS}",
            f"data.ask.asking.reports={REPORTS}",
        )
        assert len(author.bodies) == QUESTIONS + REPORTS
    (screened,) = folder.glob("store/screen-*")
    items = contract.read_items(screened / "items.jsonl")
    tasks = Counter(item["task"] for item in items)
    assert tasks["qa"] >= 200 and tasks["report"] >= 10

    database = folder / "review.sqlite"
    server = Server(screened, database, reviewers=("li", "wang"))
    first = browser.Browser(tmp_path_factory.mktemp("profile"))
    pages = [first.another(alone=True) for _ in range(2)]
    for page, person in zip(pages, ("li", "wang"), strict=True):
        page.open(server.address(person))
        page.wait("document.querySelector('.actions')")
    num_decided = len(items) // 2
    for number in range(num_decided):
        decide(pages[number % 2], number)
    assert [page.errors for page in pages] == [[], []]
    first.close()
    server.stop()

    exported = folder / "DIR" / "annotation" / "reviewed"
    words = ["--database", str(database), "--export", str(exported)]
    run(folder, "soaes.review", str(screened), *words)
    decisions = contract.read_export(exported).decisions
    verdicts = Counter(decision["verdict"] for decision in decisions)
    assert sum(verdicts.values()) == num_decided
    assert verdicts["reject"] == sum(number % 5 == 3 for number in range(num_decided))
    edited = [each for each in decisions if each["verdict"] == "edit"]
    assert len(edited) == sum(number % 5 == 4 for number in range(num_decided))
    assert all(each["answer"].count("补充。") == 1 for each in edited)
    assert {decision["reviewer"] for decision in decisions} == {"li", "wang"}

    words = ["data=reviewed", "data.root=DIR", "logger=none", "chain@target=cpt_sft2"]
    run(folder, "soaes.run", "goal=evaluate", *words)
    (adopted,) = folder.glob("store/adopt-*")
    rows = [
        row
        for split in ("train", "dev", "test")
        for row in read_jsonl(adopted / "qa" / f"{split}.jsonl")
    ]
    metrics = json.loads((adopted / "metrics.json").read_text("utf-8"))
    assert len(rows) == metrics["adopted"] > num_decided / 2
    assert list(folder.glob("store/sft-*/metrics.json"))
    assert list(folder.glob("store/evaluate-*/metrics.json"))
