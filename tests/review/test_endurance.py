"""Many people, many kills, many items. Each test prints what it measured (`pytest -s`)."""

import http.client
import json
import random
import threading
import time
from statistics import median

import pytest

from soaes.review.database import Database
from tests.helpers import browser
from tests.helpers.reviews import LocalService, Server, toy_items, write_data

pytestmark = pytest.mark.nightly
needs_browser = pytest.mark.skipif(browser.executable() is None, reason="no Chromium here")

# presses a key whenever an item is on the screen, until none is left; counts acknowledgements
DRIVE = """
window.acknowledgements = 0;
window.isDone = false;
(async () => {
  const original = acknowledged;
  acknowledged = (body) => { window.acknowledgements += 1; original(body); };
  while (state.work) {
    if (!state.pending)
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true }));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  window.isDone = true;
})();
0
"""


@pytest.fixture
def tab(tmp_path_factory):
    tab = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


class Client:
    """One person without a browser: the page's requests over one connection."""

    def __init__(self, name, address):
        self.name = name
        self.base, _, path = address.partition("/?")
        self.host = self.base.removeprefix("http://")
        status, headers, _ = self.request("GET", f"/?{path}", None)
        assert status == 303
        self.cookie = headers["set-cookie"].partition(";")[0]

    def request(self, method, path, body):
        """Send a request; raises OSError or HTTPException where the server is away."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        headers = {"Origin": self.base, "Cookie": getattr(self, "cookie", "")}
        content = None if body is None else json.dumps({"reviewer": self.name, **body})
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read()
        lines = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, lines, text

    def ask(self, path, body):
        """Ask until there is an answer, as the page does."""
        while True:
            try:
                status, _, text = self.request("POST", path, body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
                continue
            assert status == 200, (status, text)
            return json.loads(text)

    def decide(self, work, key):
        """Accept an item."""
        item = work["item"]
        body = {
            "item": item["id"],
            "again": work["again"],
            "version": work["version"],
            "key": key,
            "verdict": "accept",
            "reason": "",
            "question": item["question"],
            "answer": item["answer"],
            "seconds": 1.0,
        }
        return self.ask("/api/decide", body)


@needs_browser
def test_sixteen_browsers_at_once_lose_nothing_and_double_nothing(tab, tmp_path):
    people = [f"p{number:02}" for number in range(16)]
    items = toy_items(480, tests=480, devs=0)
    service = LocalService(tmp_path / "a.sqlite", items, people, twice=0.25)
    pages = [tab.another(alone=True) for _ in people]
    for page, person in zip(pages, people, strict=True):
        page.open(service.addresses[person])
        page.wait("document.querySelector('.actions')")
    start = time.monotonic()
    for page in pages:
        page.run(DRIVE)
    for page in pages:
        page.wait("window.isDone", seconds=900)
    seconds = time.monotonic() - start
    acknowledged = sum(page.run("window.acknowledgements") for page in pages)
    rows = service.database.rows("SELECT needed, given FROM items")
    decisions = service.database.decisions()
    service.stop()
    print(f"\n16 browsers: {len(decisions)} decisions in {seconds:.1f} s")
    assert all(row["given"] == row["needed"] for row in rows)
    assert len(decisions) == acknowledged == sum(row["needed"] for row in rows)
    assert len({(each["item"], each["reviewer"]) for each in decisions}) == len(decisions)
    assert all(page.errors == [] for page in pages)


def test_twenty_kills_in_a_burst_lose_no_acknowledged_decision(tmp_path):
    people = [f"p{number}" for number in range(4)]
    data = write_data(tmp_path / "data", toy_items(4000, tests=4000, devs=0))
    path = tmp_path / "a.sqlite"
    server = Server(data, path, "--twice", "0", reviewers=people)
    clients = [Client(person, server.address(person)) for person in people]
    acknowledged, is_over = [], threading.Event()

    def work(client, person):
        count = 0
        answer = client.ask("/api/next", {})
        while answer["work"] and not is_over.is_set():
            key = f"{person}/{count}"
            item = answer["work"]["item"]["id"]
            answer = client.decide(answer["work"], key)
            acknowledged.append((item, person, key))
            count += 1

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(clients, people, strict=True)
    ]
    for thread in threads:
        thread.start()
    chance = random.Random(0)
    for _ in range(20):
        before = len(acknowledged)
        while len(acknowledged) == before:  # the burst goes on after the last kill
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.15))
        server.kill()
        server = Server(data, path, port=server.port, reviewers=people)
    is_over.set()
    for thread in threads:
        thread.join()
    server.stop()
    database = Database(path)
    rows = database.rows("SELECT item, reviewer, key FROM decisions")
    database.close()
    written = {tuple(row) for row in rows}
    print(f"\n20 kills: {len(acknowledged)} decisions acknowledged, {len(rows)} written")
    assert set(acknowledged) <= written
    assert len(written) - len(acknowledged) <= len(people), "at most one in flight for each"
    assert len({row["item"] for row in rows}) == len(rows), "none twice"


@needs_browser
def test_33000_items_are_quick(tab, tmp_path):
    items = toy_items(33_000, tests=3000, devs=3000)
    start = time.monotonic()
    service = LocalService(tmp_path / "a.sqlite", items)
    loaded = time.monotonic() - start
    start = time.monotonic()
    tab.open(service.addresses["li"])
    tab.wait("document.querySelector('.actions')")
    opened = time.monotonic() - start
    measure = """(async () => {
      const times = [];
      for (let count = 0; count < 60; count++) {
        const before = state.work.item.id;
        const start = performance.now();
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true }));
        while (state.pending || state.work.item.id === before)
          await new Promise((resolve) => setTimeout(resolve, 0));
        document.body.getBoundingClientRect();
        times.push(performance.now() - start);
      }
      return times;
    })()"""
    times = tab.run(measure)
    start = time.monotonic()
    tab.press("2")
    tab.wait("document.querySelectorAll('#list tbody tr').length === 50")
    listed = time.monotonic() - start
    searched = "state.query.words = '32999'; const start = performance.now(); "
    searched += "await drawList(); return performance.now() - start;"
    search = tab.run(f"(async () => {{ {searched} }})()")
    start = time.monotonic()
    tab.press("3")
    tab.wait("document.querySelector('#progress table')")
    progress = time.monotonic() - start
    service.stop()
    print(
        f"\n33,000 items: read in {loaded:.1f} s, page opened in {opened:.2f} s, decided and next "
        f"item shown in {median(times):.0f} ms at the median (slowest {max(times):.0f}), list "
        f"{listed:.2f} s, search {search / 1000:.2f} s, progress {progress:.2f} s"
    )
    assert median(times) < 100 and listed < 1 and search < 1000 and progress < 1


@needs_browser
def test_thirty_items_by_keyboard(tab, tmp_path):
    """Keys as a person presses them, one after the other, without the time for reading."""
    service = LocalService(tmp_path / "a.sqlite", toy_items(30, tests=30, devs=0))
    tab.open(service.addresses["li"])
    tab.wait("document.querySelector('.actions')")
    start = time.monotonic()
    keys = 0
    for number in range(30):
        before = tab.run("state.work.item.id")
        for key in ("a", "a", "r1", "a", "s", "e")[number % 6]:
            tab.press(key)
            keys += 1
        if number % 6 == 5:
            tab.write("。补充。")
            tab.press("Enter", control=True)
            keys += 1
        tab.wait(f"!state.pending && (state.work || {{ item: {{}} }}).item.id !== {before!r}")
    seconds = time.monotonic() - start
    counts = [each["verdict"] for each in service.database.decisions()]
    service.stop()
    print(f"\n30 items by keyboard: {keys} keys, {seconds:.1f} s")
    assert sorted(set(counts)) == ["accept", "edit", "reject", "skip"] and len(counts) == 30
