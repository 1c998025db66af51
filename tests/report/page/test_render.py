"""The page is one file: it names nothing outside itself, and data in it is never markup."""

import base64
import gzip
import hashlib
import json
import random
import re
from html.parser import HTMLParser

import pytest

from soaes.pipeline.store import read_json
from soaes.report import table_spec
from soaes.report.page import render
from soaes.report.page.single_file import ASSETS, pack
from tests.helpers.pages import words_of
from tests.helpers.reports import toy_report

HOSTILE = "</script><script>alert(1)</script><!--'\"\u2028&amp;<img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.script = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.script = dict(attrs).get("id", f"script-{len(self.scripts)}")
            self.scripts[self.script] = ""

    def handle_endtag(self, tag):
        self.script = None

    def handle_data(self, data):
        if self.script:
            self.scripts[self.script] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return toy_report(tmp_path_factory.mktemp("report") / "store", HOSTILE)


@pytest.fixture(scope="module")
def text(report):
    return render.render(report)


def test_the_same_report_gives_the_same_bytes(report, text):
    assert render.render(report) == text


def test_the_record_and_the_blocks_are_read_back_as_they_were(report, text):
    page = Page(text)
    assert json.loads(page.scripts["record"]) == json.loads(json.dumps(report.record))
    for name, value in report.blocks.items():
        packed = base64.b64decode(page.scripts[name])
        assert json.loads(gzip.decompress(packed)) == json.loads(json.dumps(value))


def test_hostile_text_adds_no_element(text, tmp_path):
    harmless = Page(render.render(toy_report(tmp_path / "store", "harmless")))
    tags = [tag for tag, _ in Page(text).elements]
    assert tags == [tag for tag, _ in harmless.elements] and "img" not in tags


def test_nothing_outside_the_page_is_named(text):
    for tag, attributes in Page(text).elements:
        for key in ("src", "href", "action", "srcset", "data"):
            target = attributes.get(key) or ""
            assert not target or target.startswith(("#", "data:")), (tag, key, target)
    assert "@import" not in text
    for name in ("base.css", "page.css"):
        assert "url(" not in (ASSETS / name).read_text("utf-8")


def test_the_policy_allows_the_pages_own_scripts_alone(text):
    page = Page(text)
    (policy,) = (
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    (allowed,) = re.findall("script-src ([^;]*)", policy)
    scripts = [script for name, script in page.scripts.items() if name.startswith("script-")]
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]


def test_ten_seeds_of_tiny_fit_into_fifteen_megabytes():
    """17 rows answer 650 questions in each of ten seeds, in words of a small vocabulary."""
    rng = random.Random(0)
    vocabulary = [chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(2000)]

    def sentence():
        return "".join(rng.choices(vocabulary, k=25))

    def question():
        reference = sentence()
        texts = [reference[:15] + sentence()[:10] for _ in range(17)]  # most of it is right
        scores = [[round(rng.uniform(0, 100), 1) for _ in range(5)] for _ in range(17)]
        return {
            "group": "qa (test)",
            "question": sentence(),
            "reference": reference,
            "texts": texts,
            "answers": list(range(17)),
            "scores": scores,
            "cut": [],
        }

    sheet = {"questions": [question() for _ in range(65)]}  # a tenth of a seed
    (packed,) = pack({"answers-0": sheet}).values()
    assert 100 * len(packed) < 14e6, "a megabyte is left for curves, tables and the chart library"


def test_every_word_has_both_languages():
    used, known = words_of(render.SCRIPTS)
    assert used <= known


def test_titles_questions_columns_and_claims_are_translated():
    chinese = read_json(ASSETS / "chinese.json")
    for name in table_spec.table_names():
        spec = table_spec.load(name)
        texts = [spec.title, spec.asks.strip()]
        texts += [claim.text for claim in spec.claims.values()]
        titles = [column.title for column in spec.all_columns.values()]
        texts += [title for title in titles if " " in title]  # any other is a name
        for text in texts:
            assert re.search(r"[\u4e00-\u9fff]", chinese.get(text, "")), (name, text)
