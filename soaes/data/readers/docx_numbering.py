"""The numbers that Word shows in front of paragraphs and does not store in their text: 第X条.

A paragraph names a list (numId) and a level, by itself or through its style. The list has for each
level a number format, a text such as `第%1条`, in which %1 is the number of level 1, and a start.
Lists of one definition count on, unless they override the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lxml import etree

WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
NUM_LEVELS = 9
DIGITS = "零一二三四五六七八九"
LEGAL_DIGITS = "零壹贰叁肆伍陆柒捌玖"
UNITS = ("", "十", "百", "千")
LEGAL_UNITS = ("", "拾", "佰", "仟")
STEMS = "甲乙丙丁戊己庚辛壬癸"
ROMAN = {
    "m": 1000,
    "cm": 900,
    "d": 500,
    "cd": 400,
    "c": 100,
    "xc": 90,
    "l": 50,
    "xl": 40,
    "x": 10,
    "ix": 9,
    "v": 5,
    "iv": 4,
    "i": 1,
}
MAX_SPELT = 9999  # beyond it, numbers are decimal


def chinese(number: int, digits: str = DIGITS, units: tuple[str, ...] = UNITS) -> str:
    """Return a number as it is counted in Chinese: 十, 二十一, 一百零五."""
    if number == 0 or number > MAX_SPELT:
        return digits[0] if number == 0 else str(number)
    parts: list[str] = []
    places = [int(digit) for digit in str(number)]
    for index, digit in enumerate(places):
        unit = units[len(places) - 1 - index]
        if digit:
            parts.append(digits[digit] + unit)
        elif parts and parts[-1] != digits[0]:
            parts.append(digits[0])
    spelt = "".join(parts).rstrip(digits[0])
    return spelt.removeprefix(digits[1]) if 10 <= number < 20 else spelt


def _roman(number: int) -> str:
    parts = []
    for letters, value in ROMAN.items():
        parts.append(letters * (number // value))
        number %= value
    return "".join(parts)


def _letter(number: int) -> str:
    """Return a to z, then aa to zz."""
    return chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)


def _circled(number: int) -> str:
    return chr(0x2460 + number - 1) if 1 <= number <= 20 else str(number)


def _full_width(number: int) -> str:
    return "".join(chr(ord(digit) + 0xFEE0) for digit in str(number))


FORMATS: dict[str, Callable[[int], str]] = {
    "decimalZero": lambda number: f"{number:02}",
    "upperRoman": lambda number: _roman(number % 4000).upper(),
    "lowerRoman": lambda number: _roman(number % 4000),
    "upperLetter": lambda number: _letter(number).upper(),
    "lowerLetter": _letter,
    "chineseCounting": chinese,
    "chineseCountingThousand": chinese,
    "taiwaneseCounting": chinese,
    "taiwaneseCountingThousand": chinese,
    "japaneseCounting": chinese,
    "ideographDigital": lambda number: "".join(DIGITS[int(digit)] for digit in str(number)),
    "chineseLegalSimplified": lambda number: chinese(number, LEGAL_DIGITS, LEGAL_UNITS),
    "ideographTraditional": lambda number: STEMS[(number - 1) % 10],
    "decimalEnclosedCircle": _circled,
    "decimalEnclosedCircleChinese": _circled,
    "decimalFullWidth": _full_width,
    "decimalFullWidth2": _full_width,
    "none": lambda number: "",
}


@dataclass
class _Level:
    """One level of a list."""

    start: int = 1
    format: str = "decimal"
    text: str = ""
    style: str = ""  # paragraphs of this style are of the level
    suffix: str = "tab"
    restarts: bool = True  # after a paragraph of a level above
    is_legal: bool = False  # all numbers of its text are decimal

    def number(self, value: int) -> str:
        """Return a number in the format of the level."""
        spell = FORMATS.get(self.format, str)
        return spell(value) if value > 0 else str(value)


@dataclass
class _List:
    """A list, that is a numId: its levels, whose counters it shares, and where it starts anew."""

    levels: list[_Level]
    counters: list[int | None]
    starts: dict[int, int] = field(default_factory=dict)


class Numbering:
    """Counts the numbered paragraphs of a file, in their order.

    Args:
        numbering: Root of word/numbering.xml, if there is one.
        styles: Root of word/styles.xml, if there is one.
    """

    def __init__(self, numbering: etree._Element | None, styles: etree._Element | None) -> None:
        self._lists: dict[str, _List] = {}
        self._styles: dict[str, tuple[str, str, str]] = {}  # style -> numId, level, its parent
        if numbering is not None:
            self._read_lists(numbering)
        if styles is not None:
            for style in styles.iter(f"{WORD}style"):
                properties = style.find(f"{WORD}pPr")
                identifier = style.get(f"{WORD}styleId", "")
                based_on = _value(style, "basedOn")
                self._styles[identifier] = (*_list_and_level(properties), based_on)

    def label(self, properties: etree._Element | None) -> str:
        """Return what stands in front of the next paragraph.

        Args:
            properties: The paragraph's w:pPr, if it has one.
        """
        identifier, level = self._place(properties)
        numbered = self._lists.get(identifier)
        if numbered is None or not 0 <= level < NUM_LEVELS:
            return ""
        self._count(numbered, level)
        definition = numbered.levels[level]
        if definition.format == "bullet":
            return "• "
        text = definition.text
        for index, counter in enumerate(numbered.counters):
            other = numbered.levels[index]
            value = other.start if counter is None else counter
            number = str(value) if definition.is_legal else other.number(value)
            text = text.replace(f"%{index + 1}", number)
        return text if definition.suffix == "nothing" or not text else text + " "

    def _count(self, numbered: _List, level: int) -> None:
        counters = numbered.counters
        start = numbered.starts.pop(level, None)
        if start is not None:
            counters[level] = start
        elif (counter := counters[level]) is not None:
            counters[level] = counter + 1
        else:
            counters[level] = numbered.levels[level].start
        for below in range(level + 1, NUM_LEVELS):
            if numbered.levels[below].restarts:
                counters[below] = None

    def _place(self, properties: etree._Element | None) -> tuple[str, int]:
        """Return the list and the level of a paragraph; ("", 0) for none."""
        identifier, level = _list_and_level(properties)
        style = "" if properties is None else _value(properties, "pStyle")
        seen = set()
        current = style
        while not (identifier and level) and current in self._styles and current not in seen:
            seen.add(current)
            of_style, level_of_style, based_on = self._styles[current]
            identifier = identifier or of_style
            level = level or level_of_style
            current = based_on
        if identifier in self._lists and not level:
            levels = self._lists[identifier].levels
            styles = [item.style for item in levels]
            level = str(styles.index(style)) if style and style in styles else "0"
        return identifier, int(level) if level.isdigit() else 0

    def _read_lists(self, numbering: etree._Element) -> None:
        definitions: dict[str, tuple[list[_Level], list[int | None]]] = {}
        for abstract in numbering.iter(f"{WORD}abstractNum"):
            levels = [_Level() for _ in range(NUM_LEVELS)]
            for element in abstract.iter(f"{WORD}lvl"):
                _set_level(levels, element)
            key = abstract.get(f"{WORD}abstractNumId", "")
            definitions[key] = (levels, [None] * NUM_LEVELS)
        for num in numbering.iter(f"{WORD}num"):
            levels, counters = definitions.get(_value(num, "abstractNumId"), ([], []))
            if not levels:
                continue
            numbered = _List(list(levels), counters)
            for override in num.iter(f"{WORD}lvlOverride"):
                index = _whole(override.get(f"{WORD}ilvl", ""), 0)
                if start := _value(override, "startOverride"):
                    numbered.starts[index] = _whole(start, 1)
                for element in override.iter(f"{WORD}lvl"):
                    _set_level(numbered.levels, element)
            self._lists[num.get(f"{WORD}numId", "")] = numbered


def _set_level(levels: list[_Level], element: etree._Element) -> None:
    index = _whole(element.get(f"{WORD}ilvl", ""), -1)
    if not 0 <= index < NUM_LEVELS:
        return
    levels[index] = _Level(
        start=_whole(_value(element, "start"), 1),
        format=_value(element, "numFmt") or "decimal",
        text=_value(element, "lvlText"),
        style=_value(element, "pStyle"),
        suffix=_value(element, "suff") or "tab",
        restarts=_value(element, "lvlRestart") != "0",
        is_legal=element.find(f"{WORD}isLgl") is not None,
    )


def _list_and_level(properties: etree._Element | None) -> tuple[str, str]:
    """Return numId and ilvl of paragraph properties, "" where they name none."""
    numbers = None if properties is None else properties.find(f"{WORD}numPr")
    if numbers is None:
        return "", ""
    return _value(numbers, "numId"), _value(numbers, "ilvl")


def _value(parent: etree._Element, name: str) -> str:
    element = parent.find(f"{WORD}{name}")
    return "" if element is None else element.get(f"{WORD}val", "")


def _whole(text: str, otherwise: int) -> int:
    try:
        return int(text)
    except ValueError:
        return otherwise
