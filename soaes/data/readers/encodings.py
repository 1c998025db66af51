"""Decode text of any encoding, or say why not: a wrong guess is worse than a rejection.

In this order: byte order mark, strict UTF-8, the charset that the file declares, then the encoding
under which most characters are common ones, of GB18030, Big5 and UTF-16, then a statistical guess.
GBK and GB2312 are read as GB18030, which contains both.

Characters that are broken (a byte lost in transfer) become U+FFFD where they are few; `repaired`
takes out the lines that hold one, so that the rest of the file is kept.
"""

from __future__ import annotations

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from resiliparse.parse.encoding import detect_encoding

from soaes.data.curation.document import REPLACEMENT, Rejection
from soaes.data.readers.base import Unreadable

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16 LE, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
LATIN = re.compile("[\x80-\xff]")
LETTER = re.compile("[^\\W\\d_]|[\x80-\xff]")
# Encodings under which any bytes are text, so that their declaration proves nothing.
SINGLE_BYTE = re.compile(r"^(us-)?ascii$|^iso-?8859|^latin|^(windows|cp)-?125|^koi8|^mac")
SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs"}

SAMPLE_CHARS = 2000  # by which an encoding is judged, at the beginning and in the middle
MIN_COMMON = 0.7  # share of common characters in text of the right encoding
MIN_FREQUENT = 0.04  # share of the most frequent Han characters among Han, in a longer text
LONG_CHARS = 200
MAX_BROKEN = 0.001  # share of characters
MAX_BROKEN_UTF8 = 0.1  # share of those that are not ASCII; another encoding has most of them broken
MAX_NUL = 0.01  # share of bytes; beyond it the text is UTF-16 or no text
MOJIBAKE = 0.25  # share of such characters
CHUNK = 1 << 20
FREQUENT = frozenset(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动"
)
FREQUENT |= frozenset("同工也能下过子说产种面而方后多定行学法所民得经十三之进着等部度家电力里如")
FREQUENT |= frozenset("這為個國時來們於對會發動過說產種後學經進著電")
ASCII = "".join(map(chr, range(32, 127))) + "\t\r\n"


@dataclass(frozen=True)
class Decoded:
    """A text and the encoding that it was in."""

    text: str
    encoding: str


def decode(raw: bytes, declared: str = "") -> Decoded:
    """Decode a text.

    Args:
        raw: The file's content.
        declared: The charset that the file names, such as that of a meta element; "" for none.

    Raises:
        Unreadable: No encoding is likely, or it is no text.
    """
    for mark, encoding in BOMS:
        if raw.startswith(mark):
            return _lenient(raw[len(mark) :], encoding)
    num_nul = raw.count(b"\0")
    if num_nul <= MAX_NUL * len(raw):
        try:
            return Decoded(raw.decode("utf-8"), "utf-8")
        except UnicodeDecodeError:
            pass
        text = raw.decode("utf-8", "replace")
        num_other = len(text) - len(text.encode("ascii", "ignore"))
        if text.count(REPLACEMENT) <= MAX_BROKEN_UTF8 * num_other:
            return Decoded(text, "utf-8")
        if decoded := _as_declared(raw, declared):
            return decoded
        if decoded := _likeliest(raw, ("gb18030", "big5hkscs", "utf-16-le", "utf-16-be")):
            return decoded
        return _guessed(raw)
    if decoded := _likeliest(raw, ("utf-16-le", "utf-16-be")):
        return decoded
    raise Unreadable("not text", "it holds NUL bytes; give the file the suffix of what it is")


def check_mojibake(text: str) -> None:
    """Check that a text was not decoded wrongly before it was stored.

    UTF-8 that was read as GBK turns 国有 into 鍥芥湁; GBK or UTF-8 that was read as Latin-1
    turns it into ¹úÓÐ or å›½æœ‰.

    Raises:
        Unreadable: It was.
    """
    sample = _sample(text)
    num_letters = len(LETTER.findall(sample))
    as_gbk = len(_utf8_as_gbk().findall(sample))
    as_latin = len(LATIN.findall(sample))
    if max(as_gbk, as_latin) > MOJIBAKE * num_letters:
        detail = f"{sample[:20].strip()!r}; save it anew from its source as UTF-8"
        raise Unreadable("decoded wrongly before it was saved", detail)


def repaired(text: str, source: str) -> tuple[str, Rejection | None]:
    """Take the lines out of a text that hold a broken character.

    Returns:
        The text, and what names these lines; None where there is none.

    Raises:
        Unreadable: More than half of the text would go.
    """
    if REPLACEMENT not in text:
        return text, None
    lines = text.split("\n")
    broken = [number for number, line in enumerate(lines, 1) if REPLACEMENT in line]
    kept = "\n".join(line for line in lines if REPLACEMENT not in line)
    if 2 * len(kept) < len(text):
        count = text.count(REPLACEMENT)
        detail = f"{count:,} broken characters in {len(broken):,} of {len(lines):,} lines"
        raise Unreadable("broken characters", f"{detail}; save it anew from its source")
    detail = f"{len(broken):,} of {len(lines):,} lines are left out"
    return kept, Rejection(f"{source}:{broken[0]}", "broken characters", detail)


@contextmanager
def utf8_file(path: Path) -> Iterator[Path]:
    """Give a file in UTF-8, converted where it is in another encoding.

    Its memory does not grow with the file.

    Raises:
        Unreadable: Its encoding is not found, or not kept to.
    """
    with open(path, "rb") as handle:
        beginning = handle.read(CHUNK)
    # the last character of the beginning may be cut
    encoding = decode(beginning).encoding if len(beginning) < CHUNK else _encoding_of(beginning)
    if encoding == "utf-8":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / path.name[:100]
        try:
            with open(path, encoding=encoding, newline="") as source:
                with open(converted, "w", encoding="utf-8", newline="") as target:
                    while text := source.read(CHUNK):
                        target.write(text.removeprefix("\ufeff"))
        except UnicodeDecodeError as error:
            detail = f"byte {error.start:,} of a block is no {encoding}; convert it to UTF-8"
            raise Unreadable("broken characters", detail) from None
        yield converted


def _encoding_of(beginning: bytes) -> str:
    """Return the encoding of a file by its beginning, which may end within a character."""
    for cut in range(4):
        try:
            decoded = decode(beginning[: len(beginning) - cut])
        except Unreadable:
            if cut == 3:
                raise
        else:
            if REPLACEMENT not in decoded.text:
                return decoded.encoding
    return decode(beginning).encoding


def _as_declared(raw: bytes, declared: str) -> Decoded | None:
    name = declared.strip().strip("\"'").lower()
    if not name or SINGLE_BYTE.match(name):
        return None
    try:
        name = codecs.lookup(name).name
    except LookupError:
        return None
    name = SUPERSETS.get(name, name)
    text = raw.decode(name, "replace")
    return Decoded(text, name) if _is_whole(text) else None


def _likeliest(raw: bytes, encodings: tuple[str, ...]) -> Decoded | None:
    """Return the text under the encoding that gives the most common characters, if they suffice."""
    best = None
    best_share = MIN_COMMON
    for encoding in encodings:
        text = raw.decode(encoding, "replace")
        if not _is_whole(text):
            continue
        share = _common_share(_sample(text), encoding)
        if share > best_share:
            best, best_share = Decoded(text, encoding), share
    return best


def _common_share(sample: str, encoding: str) -> float:
    """Return the share of common characters: of all in UTF-16, else of those that are not ASCII."""
    judged = sample
    if not encoding.startswith("utf-16"):
        judged = "".join(char for char in sample if char > "\x7f")
    han = [char for char in judged if "\u4e00" <= char <= "\u9fff"]
    num_frequent = sum(char in FREQUENT for char in han)
    if len(han) > LONG_CHARS and num_frequent < MIN_FREQUENT * len(han):
        return 0.0  # common characters in no language: such as Korean that was read as GB18030
    common = _common(encoding)
    return sum(char in common for char in judged) / max(1, len(judged))


@cache
def _common(encoding: str) -> frozenset[str]:
    """Return what is common in text of an encoding.

    The first levels of GB 2312 (3,755 characters) and of Big5 (5,401) are the characters in common
    use; row 1 of GB 2312 and the symbols of Big5 are the punctuation.
    """
    simplified = _decodable("gb2312", range(0xB0, 0xD8)) + _decodable("gb2312", (0xA1, 0xA3))
    traditional = _decodable("big5", range(0xA1, 0xA3)) + _decodable("big5", range(0xA4, 0xC6))
    by_encoding = {"gb18030": simplified, "big5hkscs": traditional}
    return frozenset(by_encoding.get(encoding, simplified + traditional + ASCII))


def _decodable(encoding: str, rows: range | tuple[int, ...]) -> str:
    pairs = [bytes((row, cell)) for row in rows for cell in range(0x40, 0xFF)]
    return "".join(pair.decode(encoding, "ignore") for pair in pairs)


def _guessed(raw: bytes) -> Decoded:
    """Return the text under the encoding that statistics of bytes suggest."""
    name = detect_encoding(raw) or ""
    advice = "convert it: iconv -f ENCODING -t UTF-8"
    try:
        encoding = codecs.lookup(name).name
        text = raw.decode(encoding, "strict")
    except (LookupError, UnicodeDecodeError):
        raise Unreadable("encoding unknown", advice) from None
    if encoding == "utf-8" or any("\x80" <= char < "\xa0" for char in _sample(text)):
        raise Unreadable("encoding unknown", advice)
    return Decoded(text, encoding)


def _lenient(raw: bytes, encoding: str) -> Decoded:
    text = raw.decode(encoding, "replace")
    if not _is_whole(text):
        detail = f"it begins with the mark of {encoding} and is none; convert it to UTF-8"
        raise Unreadable("broken characters", detail)
    return Decoded(text, encoding)


def _is_whole(text: str) -> bool:
    """Tell whether few characters of a text are broken; one may be cut at the end."""
    return text.count(REPLACEMENT) <= max(1, MAX_BROKEN * len(text))


def _sample(text: str) -> str:
    middle = len(text) // 2
    if len(text) <= 2 * SAMPLE_CHARS:
        return text
    return text[:SAMPLE_CHARS] + text[middle : middle + SAMPLE_CHARS]


@cache
def _utf8_as_gbk() -> re.Pattern[str]:
    """Match the characters that GBK makes of the first two bytes of a Han character's UTF-8."""
    pairs = [bytes((lead, trail)) for lead in range(0xE4, 0xEA) for trail in range(0x80, 0xC0)]
    characters = "".join(pair.decode("gbk", "ignore") for pair in pairs)
    return re.compile(f"[{characters}]")
