"""Take the pictures of the pages that README and docs/ show.

python -m tests.helpers.pictures store/tables/tiny/report.html [NAME ...]
python -m tests.helpers.pictures store/curation/NAME.html curation
"""

import sys
import tempfile
from pathlib import Path

from tests.helpers.browser import Browser

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


OF_REPORT = {"verdicts": verdicts, "cell": cell, "curves": curves}
PICTURES = {**OF_REPORT, "curation": curation}


def take(page, folder, names):
    """Write NAME.png of each picture named."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        tab = Browser(Path(profile))
        for name in names:
            PICTURES[name](tab, page)
            tab.screenshot(folder / f"{name}.png")
        tab.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), FOLDER, sys.argv[2:] or OF_REPORT)
