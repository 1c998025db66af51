"""Rules of cleaning about single characters: a table of what is unified, and what no one sees.

NFC and an explicit table, not NFKC, which turns ，：；（） into ASCII and ① into 1. What is unified
means the same to every reader: letters and digits in full width, blanks, the radicals that fonts of
PDF files put for whole characters (⼲ for 干).
"""

from __future__ import annotations

import re
import unicodedata

# ⺁ and what follows it: the Unified Ideographs that Unicode holds equivalent
# (EquivalentUnifiedIdeograph.txt), by ranges of neighbouring code points.
RADICALS_SUPPLEMENT = {
    0x2E80: "冫厂乛乚乙亻冂几刀刂卜㔾小小兀尣",
    0x2E90: "尢尢巳幺彑彐忄㣺扌攵",
    0x2E9B: "旡日月歺母",
    0x2EA0: "民氵氺灬爫爫丬牛犭王疋罒示礻竹糹",
    0x2EB0: "纟罓罒㓁㓁罓羊羊羊耂肀聿月臼艹艹",
    0x2EC0: "艹虎衤覀西见角角讠贝足车辶辶辶邑",
    0x2ED0: "钅長镸长门阜阝雨青韦页风飞食飠飠",
    0x2EE0: "饣首马骨鬼鱼鸟卤麦黄黾斉齐歯齿竜",
    0x2EF0: "龙龜亀龟",
}
RADICALS = range(0x2E80, 0x2FE0)
KANGXI = range(0x2F00, 0x2FD6)
FULL_WIDTH_OFFSET = 0xFEE0
FULL_WIDTH = [*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B)]
BLANKS = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f"
WIDE_BLANKS = "\u205f\u3000"

# Bidirectional controls, zero width, tag characters, noncharacters; control characters except tab,
# line break and form feed; lone surrogates, which no UTF-8 file can hold. Joiners stay between
# letters of scripts that need them, and in emoji.
BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
ZERO_WIDTH = "\u200b\u2060-\u2064\ufeff\u00ad"
TAGS = "\U000e0000-\U000e007f"
CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"
LAYOUT = "\n\t\f\u3000\xa0"  # not printable either, and common
PLAIN = "\x00-\x7f\u3000-\u9fff\uff00-\uffef"
# What colours a terminal or names its window: \x1b[31m, \x1b]0;name\x07
ESCAPE_SEQUENCE = "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b\n]*(?:\x07|\x1b\\\\)"
INVISIBLE = re.compile(
    f"{ESCAPE_SEQUENCE}|[{BIDI}{ZERO_WIDTH}{TAGS}{CONTROLS}]"
    f"|(?<![^{PLAIN}])[\u200c\u200d]|[\u200c\u200d](?![^{PLAIN}])"
)


def without_invisible(text: str) -> str:
    """Remove the characters that no one sees."""
    rest = text
    for blank in LAYOUT:
        rest = rest.replace(blank, "")
    return text if rest.isprintable() else INVISIBLE.sub("", text)


def unified(text: str) -> str:
    """Return a text in NFC, with the characters of the table replaced one for one.

    Code points among the radicals that Unicode has not assigned are removed.
    """
    text = unicodedata.normalize("NFC", text)
    for character in sorted(TABLE.keys() & set(text)):  # few, and much faster than str.translate
        text = text.replace(character, TABLE[character])
    return text


def _table() -> dict[str, str]:
    """Return what `unified` puts for each character."""
    table = {chr(point): "" for point in RADICALS}
    for start, ideographs in RADICALS_SUPPLEMENT.items():
        for index, ideograph in enumerate(ideographs):
            table[chr(start + index)] = ideograph
    for point in KANGXI:
        table[chr(point)] = unicodedata.normalize("NFKC", chr(point))
    for point in FULL_WIDTH:
        table[chr(point)] = chr(point - FULL_WIDTH_OFFSET)
    for blank in BLANKS + WIDE_BLANKS:
        table[blank] = " "
    return table


TABLE = _table()
