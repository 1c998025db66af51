"""The page in a browser: silent, self-contained, readable by keyboard and on a narrow screen."""

import pytest

from soaes.report.page import render
from tests.helpers import browser
from tests.helpers.reports import toy_report

HOSTILE = "</script><script>alert(1)</script><!--'\"\u2028&amp;<img src=x onerror=alert(2)>"
CELL = "document.querySelector('#table0 button.cell')"
PANEL = "document.getElementById('panel')"

pytestmark = pytest.mark.skipif(
    browser.executable() is None,
    reason="no Chromium here; apt-get install chromium, or CHROMIUM=PATH",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a toy report whose every text is hostile."""
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render.render(toy_report(folder / "store", HOSTILE, 30)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    tab = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture
def opened(tab, page):
    """The page, open and drawn to its end."""
    tab.open(page)
    tab.wait("document.querySelectorAll('#curves figure').length")
    tab.wait("document.querySelector('#answers article')")
    return tab


def test_it_is_drawn_without_errors_and_asks_for_nothing(opened, page):
    assert opened.errors == []
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [page.resolve().as_uri()]


def test_text_from_data_stays_text(opened):
    opened.run(f"{CELL}.click()")
    opened.wait(f"{PANEL}.querySelector('article')")
    assert opened.run("document.querySelectorAll('img, main script, dialog script').length") == 0
    for place in ("#table0 .asks", "#panel pre", "#panel .answer:not(.reference)", "#failures td"):
        texts = opened.run(
            f"[...document.querySelectorAll({place!r})].map((each) => each.textContent)"
        )
        assert any(HOSTILE in text for text in texts), place
    assert opened.errors == []


def test_a_cell_is_opened_and_closed_by_keyboard(opened):
    opened.run(f"{CELL}.focus()")
    opened.press("ArrowRight")
    second = opened.run("document.activeElement.textContent")
    assert "BLEU-4" in second, "arrows move between the cells"
    opened.press("Enter")
    opened.wait(f"{PANEL}.open && {PANEL}.contains(document.activeElement)")
    assert "BLEU-4" in opened.run(f"{PANEL}.querySelector('h2').textContent")
    opened.press("Escape")
    opened.wait(f"!{PANEL}.open")
    assert opened.run("document.activeElement.textContent") == second


def test_a_value_stands_beside_the_stage_that_measured_it_alone(opened):
    """The row's `speed` is not built; it has measured nothing of the cell."""
    opened.run(f"{CELL}.click()")
    opened.wait(f"{PANEL}.querySelector('article')")
    lines = opened.run(
        f"[...{PANEL}.querySelectorAll('table.plain tbody tr')].map((line) => line.innerText)"
    )
    assert len(lines) == 1 and "33.25" in lines[0] and "evaluate-" in lines[0]
    assert "speed-" not in opened.run(f"{PANEL}.innerText")


def test_a_table_is_one_tab_stop(opened):
    stops = opened.run("document.querySelectorAll('#table0 button.cell[tabindex=\"0\"]').length")
    assert stops == 1


def test_what_became_of_the_data_is_counted(opened):
    text = opened.run("document.getElementById('data').textContent")
    for shown in ("dialogue + qa", "4,321", "3 empty answer", "qa/train.jsonl:3: no question"):
        assert shown in text, shown


@pytest.mark.parametrize("width", [pytest.param(360, id="phone"), pytest.param(1280, id="desktop")])
def test_the_page_never_scrolls_sideways(tab, page, width):
    tab.open(page, width=width)
    tab.wait("document.querySelector('#answers article')")
    measured = "document.documentElement.scrollWidth"
    assert tab.run(measured) <= width
    tab.run(f"{CELL}.click()")
    tab.wait(f"{PANEL}.querySelector('article')")
    assert tab.run(f"{PANEL}.scrollWidth") <= width


def test_the_language_is_the_readers_and_can_be_switched(tab, page):
    tab.open(page, language="zh-CN")
    tab.wait("document.querySelector('#answers article')")
    heading = "document.querySelector('#verdicts h2').textContent"
    assert tab.run(heading) == "结论" and tab.run("document.documentElement.lang") == "zh-CN"
    tab.run("document.getElementById('language').click()")
    assert tab.run(heading) == "Verdicts"
    tab.run("localStorage.clear()")


def test_the_theme_is_the_readers_and_can_be_switched(tab, page):
    tab.open(page, scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.run(ground)
    tab.run("document.getElementById('theme').click()")
    assert tab.run(ground) != dark
    tab.run("localStorage.clear()")


def test_answers_are_filtered_by_what_the_other_row_lost(opened):
    """Each answer of one row scores 33.3, of the other 44.5."""
    opened.run(f"{CELL}.click()")
    opened.wait(f"{PANEL}.querySelector('article')")
    count = f"{PANEL}.querySelectorAll('article').length"
    change = f"{PANEL}.querySelectorAll('select')[3]"
    assert opened.run(count) == 20, "a page of the 30 questions"
    for choice, number in (("gained", 0), ("lost", 20), ("same", 0)):
        opened.run(f"{change}.value = {choice!r}; {change}.dispatchEvent(new Event('change'))")
        assert opened.run(count) == number


def test_marks_are_around_the_words_that_differ(opened):
    marked = opened.run(
        "(marked('营业收入为210亿元', '营业收入为2300亿元').map((part) => part.outerHTML || part))"
    )
    assert "<mark>210</mark>" in marked and not any("营业" in part for part in marked[1:])


def test_the_browser_waits_while_one_page_takes_anothers_place(tab, page):
    redirect = page.parent / "redirect.html"
    redirect.write_text("<script>setTimeout(() => location = 'report.html#end', 200)</script>")
    tab.open(redirect)
    tab.wait("location.hash || new Promise(() => {})")
    assert tab.run("location.hash") == "#end"


def test_an_address_opens_its_cell_and_a_cell_has_an_address(tab, page):
    address = page.parent / "address.html"
    address.write_text("<script>location = 'report.html#table0.trained.bleu4'</script>")
    tab.open(address)
    tab.wait(f"location.hash && document.readyState === 'complete' && {PANEL}?.open")
    assert "BLEU-4" in tab.run(f"{PANEL}.querySelector('h2').textContent")
    tab.press("Escape")
    tab.wait(f"!{PANEL}.open && !location.hash")
    tab.run(f"{CELL}.click()")
    assert tab.run("location.hash") == "#table0.plain.rouge1"
