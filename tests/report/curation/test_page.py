"""The page of a curation in a browser: silent, self-contained, in two languages, by keyboard."""

import pytest

from soaes.report.curation import page as curation_page
from soaes.report.curation import record
from tests.helpers import browser
from tests.helpers.curations import toy_curation
from tests.helpers.pages import words_of

HOSTILE = "</script><script>alert(1)</script><!--'\"\u2028&amp;<img src=x onerror=alert(2)>"
DRAWN = "document.querySelector('.pair') && document.querySelector('#drop-list article')"


def test_every_word_has_both_languages():
    used, known = words_of(curation_page.SCRIPTS)
    assert used <= known


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a toy curation whose every text is hostile."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "curation.html"
    text = curation_page.render(record.gather(*toy_curation(folder, HOSTILE)))
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if browser.executable() is None:
        pytest.skip("no Chromium here; apt-get install chromium, or CHROMIUM=PATH")
    tab = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def opened(tab, page):
    """The page, open and drawn to its end."""
    tab.open(page)
    tab.wait(DRAWN)
    return tab


def test_it_is_drawn_without_errors_and_asks_for_nothing(opened, page):
    opened.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert opened.errors == []
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [page.resolve().as_uri()]


def test_text_from_data_stays_text(opened):
    assert opened.run("document.querySelectorAll('img, main script').length") == 0
    opened.run("showDrops({rule: 'near-duplicate', step: {step: 'deduplicate'}})")
    opened.wait("document.querySelector('#drop-list .text')")
    for place in (".pair mark", "#contamination .text", "#drop-list .text", "#rules .text"):
        texts = opened.run(
            f"[...document.querySelectorAll({place!r})].map((each) => each.textContent)"
        )
        assert any(HOSTILE[-12:] in text for text in texts), place


def test_what_was_dropped_is_chosen_by_keyboard(opened):
    link = "document.querySelector('#rules a[href=\"#drops\"]')"
    rule = opened.run(f"{link}.closest('details').querySelector('b').textContent")
    opened.run(f"{link}.closest('details').open = true")
    opened.run(f"{link}.closest('details').querySelector('summary').focus()")
    opened.press("Tab")
    opened.press("Enter")
    opened.wait("location.hash === '#drops'")
    chosen = "document.querySelector('#drop-list select').selectedOptions[0].textContent"
    opened.wait(f"{chosen}.includes({rule!r})")
    opened.run("document.querySelector('#drop-list select').focus()")
    opened.press("ArrowDown")
    opened.wait(f"!{chosen}.includes({rule!r})")
    assert opened.run("document.activeElement.tagName") == "SELECT"


def test_blanks_and_shapeless_characters_are_seen(opened):
    assert opened.run("visible('a\\u200b \\n\\u3000')") == "a⟨U+200B⟩␣⏎\n□"


def test_it_reads_on_a_narrow_screen_in_chinese_and_dark(tab, page):
    tab.open(page, width=360, language="zh-CN", scheme="dark")
    tab.wait(DRAWN)
    tab.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert tab.run("document.documentElement.scrollWidth") <= 360
    assert tab.run("document.querySelector('#rules h2').textContent") == "规则"
    names = tab.run("[...document.querySelectorAll('.rule b')].map((each) => each.textContent)")
    assert "汉字间空格" in names and "含有 exam/toy 的题" in names
    assert tab.errors == []


TURNED = """
(() => {
  const warning = { rule: "x", origin: "corpus/a\\u202egpj", unit: "documents", share: 0.5 };
  const line = warningLine([warning]);
  document.querySelector("main").append(line);
  const text = [...line.querySelectorAll("b")].at(-1).firstChild;
  const left = (place) => {
    const range = document.createRange();
    range.setStart(text, place);
    range.setEnd(text, place + 1);
    return range.getBoundingClientRect().left;
  };
  const [first, second] = [left(0), left(1)];
  line.remove();
  return first > second;
})()
"""


def test_a_name_turns_nothing_around_but_itself(tab, page):
    tab.open(page, width=360, language="zh-CN")  # in Chinese, the share stands behind the name
    tab.wait(DRAWN)
    assert tab.run(TURNED) is False
    assert tab.run("named('constructor')") == "constructor"


def test_numbers_and_ticks_stay_whole_on_a_narrow_screen(tab, page):
    counts = []
    for width in (1280, 360):
        tab.open(page, width=width)
        tab.wait(DRAWN)
        counts.append(tab.run("everyFitting([...'abcdefghijkl']).length"))
    assert counts == [12, 6]
    assert tab.run("getComputedStyle(document.querySelector('.plain .number')).whiteSpace") == (
        "nowrap"
    )


def test_documents_of_which_the_beginnings_are_equal_are_not_called_equal(opened):
    document = "{source: 'a', title: '', date: '', length: 99999, text: ''}"
    comparison = "{rows: [{same: 'a'}], more: 0, cut: true}"
    pair = f"{{rule: 'x', dropped: {document}, kept: {document}, comparison: {comparison}}}"
    text = opened.run(f"pairCard({pair}).textContent")
    assert "Only their beginnings" in text and "texts are equal" not in text
