"""Take the pictures of the pages that README and docs/ show.

python -m tests.helpers.pictures store/tables/tiny/report.html [NAME ...]
python -m tests.helpers.pictures store/curation/NAME.html curation
python -m tests.helpers.pictures - review
"""

import sys
import tempfile
from pathlib import Path

from tests.helpers.browser import Browser
from tests.helpers.reviews import LocalService, toy_items

FOLDER = Path(__file__).parent.parent.parent / "docs" / "pictures"
WINDOW = {"width": 1280, "height": 800}


def verdicts(tab, report):
    """The verdicts, light and in English."""
    tab.open(report, **WINDOW)
    tab.wait("document.querySelector('#verdicts summary')")


def cell(tab, report):
    """A cell of Table 2, dark and in Chinese."""
    tab.open(report, scheme="dark", language="zh-CN", **WINDOW)
    tab.wait("document.querySelector('#table2 button.cell')")
    tab.run("location.hash = '#table2.full.rouge1'")
    tab.wait("document.querySelector('#panel article')")
    tab.run("document.querySelector('#panel .answers').scrollIntoView()")


def curves(tab, report):
    """The curves of the last kind of stage, light and in English."""
    tab.open(report, **WINDOW)
    tab.wait("document.querySelector('#curves figure')")
    tab.run("document.querySelector('#curves').scrollIntoView({behavior: 'instant'})")


def curation(tab, page):
    """The steps of a curation, light and in English."""
    tab.open(page, **WINDOW)
    tab.wait("document.querySelector('#data table')")


def review(tab, _):
    """A question of the review page whose answer is wrong, light and in English; to be stopped."""
    items = toy_items(40)
    service = LocalService(Path(tempfile.mkdtemp()) / "review.sqlite", items)
    tab.open(service.addresses["li"], width=1280, height=720)
    tab.wait("document.querySelector('.actions')")
    for _ in range(3):
        item = tab.run("state.work.item.id")
        if "8.7" in tab.run("state.work.item.answer"):
            break
        tab.press("a")
        tab.wait(f"!state.pending && state.work.item.id !== {item!r}")
    tab.run("new Promise((resolve) => setTimeout(resolve, 500))")
    return service.stop


OF_REPORT = {"verdicts": verdicts, "cell": cell, "curves": curves}
PICTURES = {**OF_REPORT, "curation": curation, "review": review}


def take(page, folder, names):
    """Write NAME.png of each picture named."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        tab = Browser(Path(profile))
        for name in names:
            finish = PICTURES[name](tab, page)
            tab.screenshot(folder / f"{name}.png")
            if finish:
                finish()
        tab.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), FOLDER, sys.argv[2:] or OF_REPORT)
