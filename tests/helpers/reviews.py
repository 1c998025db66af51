"""Toy items of a review, and a server of the page as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from soaes.data.annotation.item import ITEMS, review_item, write_items
from soaes.review.database import Database, NewDecision
from soaes.review.plan import ReviewSettings
from soaes.review.service import Service

ROOT = Path(__file__).parent.parent.parent

REPORT = """第一节 公司简介

清源能源集团有限公司（以下简称“清源能源”）成立于2003年，由清河省国有资产监督管理委员会履行出资人职责，注册资本120亿元，\
主营业务为风力发电、水力发电和电网侧储能。截至2025年末，集团拥有全资及控股企业46家，职工18,240人。

第二节 经营情况

2025年，清源能源实现营业收入386.5亿元，同比增长7.2%；利润总额41.3亿元，同比增长9.8%；全年研发投入12.6亿元，占营业收入的3.3%。\
新增风电装机215万千瓦，可再生能源发电量占比提高到61.4%，较上年提高4.1个百分点。

集团严格执行《清河省企业国有资产交易监督管理办法》，全年完成产权转让项目9宗，全部在省产权交易机构公开进行，成交金额7.8亿元，\
较评估值增值5.6%。

第三节 改革进展

集团纳入“双百企业”综合改革后，完成董事会应建尽建，外部董事占多数的子企业达到38家。经理层成员全部签订任期制和契约化管理协议，\
2025年末等调整和不胜任退出人员比例为6.5%。

第四节 风险与应对

电价市场化改革使售电收入的波动加大。集团以年度双边合同锁定八成电量，并建立了覆盖全部子企业的风险监测指标体系。"""

QUESTIONS = [
    (
        "清源能源集团2025年的研发投入是多少，占营业收入的比例如何？",
        "2025年清源能源研发投入12.6亿元，占营业收入386.5亿元的3.3%。",
        (REPORT.index("2025年，清源能源实现"), REPORT.index("新增风电装机")),
    ),
    (
        "清源能源集团2025年完成了多少宗产权转让，依据什么办法进行？",
        "全年完成产权转让项目9宗，依据《清河省企业国有资产交易监督管理办法》公开进行，成交金额8.7亿元，较评估值增值5.6%。",
        (REPORT.index("集团严格执行"), REPORT.index("第三节") - 2),
    ),
    (
        "清源能源集团如何应对电价市场化改革带来的收入波动？",
        "集团以年度双边合同锁定八成电量，并建立覆盖全部子企业的风险监测指标体系。",
        (REPORT.index("电价市场化"), len(REPORT)),
    ),
]


def document(text=REPORT, title="清源能源集团2025年度报告", source="annual/qingyuan.md", **more):
    """A document of an item."""
    fields = {"id": "qingyuan", "title": title, "source": source, "offset": 0, "text": text}
    return {**fields, **more}


def toy_items(num=12, tests=3, devs=3, task="qa", text=REPORT):
    """Questions: test and dev items first in the file, then those to train on."""
    items = []
    for number in range(num):
        question, answer, span = QUESTIONS[number % len(QUESTIONS)]
        hint = "test" if number < tests else "dev" if number < tests + devs else ""
        item = review_item(
            "qa",
            task=task,
            split_hint=hint,
            question=question if number < len(QUESTIONS) else f"{question}（{number}）",
            answer=answer,
            document=document(text),
            span=span if text is REPORT else (0, len(text)),
            model="author-7b",
        )
        items.append(item)
    return items


def pair_item():
    """Two versions of one report."""
    other = REPORT.replace("386.5", "386.4").replace("由清河省", "经清河省").replace("9宗", "11宗")
    return review_item(
        "near_duplicate",
        document=document(),
        other=document(other, source="crawl/qingyuan-2025.html", id="qingyuan-2"),
    )


def label_item():
    """A passage whose relevance is asked for."""
    return review_item(
        "relevance", document=document(), span=(REPORT.index("第三节"), REPORT.index("第四节"))
    )


def write_data(folder, items):
    """Write a folder to review."""
    folder.mkdir(parents=True, exist_ok=True)
    write_items(folder / ITEMS, items)
    return folder


def decision(work, verdict="accept", **more):
    """What the page would send."""
    item = work.item
    fields = {"item": item["id"], "again": work.again, "version": work.version, "verdict": verdict}
    texts = {"question": item["question"], "answer": item["answer"]}
    reason = "unsupported" if verdict == "reject" else ""
    defaults = {"key": f"key {time.perf_counter_ns()}", "reason": reason, "seconds": 2.0}
    return NewDecision(**{**fields, **texts, **defaults, **more})


def decide_all(database, reviewer, verdict="accept"):
    """Decide until nothing is left; return the items."""
    done = []
    while work := database.next(reviewer):
        database.decide(reviewer, decision(work, verdict))
        done.append(work.item["id"])
    return done


class LocalService:
    """The page in a thread of this process, with a new address for whoever asks."""

    def __init__(self, path, items, people=("li",), port=0, rubric="", **settings):
        self.database = Database(path)
        self.database.use(ReviewSettings(**{"twice": 0, **settings}))
        self.database.load(items)
        self.addresses = {}
        announce = self.addresses.__setitem__
        self.service = Service(self.database, people, port, "toy", announce, rubric)
        self.port = self.service.port
        self.base = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.service.run, daemon=True)
        self.thread.start()

    def stop(self):
        self.service.stop()
        self.thread.join()
        self.database.close()


class Server:
    """`python -m soaes.review`, until `stop` or `kill`."""

    def __init__(self, data, database, *options, reviewers=("li",), port=0):
        words = ["--database", str(database), "--port", str(port), *options]
        for name in reviewers:
            words += ["--reviewer", name]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "soaes.review", str(data), *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines, self.addresses = [], {}
        while len(self.addresses) < len(reviewers):
            self.read_line()
        self.port = int(re.search(r":(\d+)/", next(iter(self.addresses.values())))[1])
        self.base = f"http://127.0.0.1:{self.port}"

    def read_line(self):
        """Read a line of the server; an address is kept by its person's name."""
        line = self.process.stdout.readline()
        assert line, "the server ended: " + "".join(self.lines)
        self.lines.append(line)
        if found := re.match(r"(.+): (http\S+token=\S+)\n", line):
            self.addresses[found[1]] = found[2]

    def address(self, reviewer):
        """The address that opens the page for a person; it is used up, and the next one read."""
        return self.addresses.pop(reviewer)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def wait_until(condition, seconds=20):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "never true"
        time.sleep(0.01)
