"""What the scripts of a page say."""

import re

from soaes.report.page.single_file import ASSETS


def words_of(scripts):
    """The words that the scripts of a page say, and those that they have in both languages."""
    text = "\n".join((ASSETS / name).read_text("utf-8") for name in scripts)
    used = set(re.findall(r'say\("([^"]+)"\)', text))
    sections = re.search(r"^const SECTIONS = \{(.*?)^\};", text, re.M | re.S)[1]
    for key in re.findall(r"^  (\w+)[:,]", sections, re.M):
        used |= {key, f"{key}Text"}
    entries = re.findall(r'^  "?([^"\n]+?)"?: \[(.*?)\],$', text, re.M | re.S)
    return used, {
        key for key, texts in entries if re.search(r"[\u3000-\u9fff\uff00-\uffef]", texts)
    }
