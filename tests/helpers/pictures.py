"""Take the pictures of a report that README shows: `python -m tests.helpers.pictures REPORT`."""

import sys
import tempfile
from pathlib import Path

from tests.helpers.browser import Browser

FOLDER = Path(__file__).parent.parent.parent / "docs" / "pictures"
WINDOW = {"width": 1280, "height": 800}


def take(report, folder):
    """Write verdicts.png, light and in English, and cell.png, dark and in Chinese."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        tab = Browser(Path(profile))
        tab.open(report, **WINDOW)
        tab.wait("document.querySelector('#verdicts summary')")
        tab.screenshot(folder / "verdicts.png")
        tab.open(report, scheme="dark", language="zh-CN", **WINDOW)
        tab.wait("document.querySelector('#table2 button.cell')")
        tab.run("location.hash = '#table2.full.rouge1'")
        tab.wait("document.querySelector('#panel article')")
        tab.run("document.querySelector('#panel .answers').scrollIntoView()")
        tab.screenshot(folder / "cell.png")
        tab.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), FOLDER)
