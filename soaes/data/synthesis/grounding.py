"""Is what an answer says in the text that it cites?

Every fact of an answer must stand in the span of the text that it quotes
(soaes.data.annotation.quotes):

| fact | equal are |
|---|---|
| date | 2020年1月1日, 二〇二〇年一月一日, 2020-01-01; a part of a date is in the whole |
| percentage | 5%, 5％, 百分之五 |
| number with its unit | 30万元, 300,000元, 三十万元 |
| 《title》 | the same letters, in the span or in the document's title |
| organisation | the same characters, from a function word or the text's edge up to its last word |
| Latin word or name | the same letters |

A paraphrase in other words passes; a figure or name that is not there does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from soaes.data.curation import ngrams

DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
UNITS = {"十": 10, "百": 100, "千": 1000}
LARGE = {"万": 10**4, "亿": 10**8}
NUMERAL = "〇零一二两三四五六七八九十百千万亿"
DIGIT = "〇零一二两三四五六七八九十"

YEAR = r"(?P<year>\d{4}|[〇零一二三四五六七八九]{4})"
TWO = r"\d{1,2}|[一二三四五六七八九十]{1,3}"
DATE = re.compile(
    rf"{YEAR}\s*年(?:\s*(?P<month>{TWO})\s*月(?:\s*(?P<day>{TWO})\s*[日号])?)?(?!度?期)"
    rf"|(?P<month2>{TWO})\s*月\s*(?P<day2>{TWO})\s*[日号]"
    r"|(?<!\d)(?P<year3>\d{4})[-/.](?P<month3>\d{1,2})[-/.](?P<day3>\d{1,2})(?!\d)"
)
MONTHS = (
    "January February March April May June July August September October November December"
).split()
MONTH = "|".join(MONTHS)
ENGLISH_DATE = re.compile(
    rf"(?P<month>{MONTH})\s+(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+)?(?P<year>\d{{4}})"
    rf"|(?P<day2>\d{{1,2}})(?:st|nd|rd|th)?\s+(?P<month2>{MONTH}),?\s+(?P<year2>\d{{4}})"
)
ARABIC = r"\d{1,3}(?:[,，]\d{3})+(?:[.．]\d+)?|\d+(?:[.．]\d+)?"
PERCENT = re.compile(
    rf"(?P<value>{ARABIC})\s*(?P<sign>%|％|‰|个百分点|per\s?cent)|百分之(?P<chinese>[{NUMERAL}点]+|{ARABIC})"
)
MEASURE = (
    "美元|港元|欧元|元|人民币|公里|千米|平方米|立方米|公顷|公斤|千克|毫升|分钟|小时|工作日|个月|周岁|"
    "个|家|人|名|位|户|项|条|款|章|节|编|次|件|份|批|种|类|年|月|日|天|周|倍|岁|米|吨|克|升|度|"
    "亩|股|票|级|届|期|省|市|县|区|号|部|张|台|套|所|组|层|页|字|勺|片|只|颗|根|块|碗|杯|斤|两|秒|"
    "分之"
)
NUMBER = re.compile(
    rf"(?P<arabic>{ARABIC})\s*(?P<large>[十百千]?[万亿]|百|千)?\s*(?P<unit>余?(?:{MEASURE})|多)?"
    rf"|(?P<chinese>[{NUMERAL}]*[{DIGIT}][{NUMERAL}]*(?:点[{DIGIT}]+)?)(?P<unit2>{MEASURE})?"
)
# Words with a numeral that count nothing.
NUMERAL_WORDS = re.compile(
    rf"(?<![第{NUMERAL}])(?:一般|一律|一定|一切|一致|统一|唯一|之一|一起|一旦|一直|一方面|另一方面|一并|"
    "一体|一次性|万一|逐一|同一|单一|进一步|一样|一些|一系列|一贯|一道|一同|一经|一时|一边|一线|一流|"
    "一手|一带一路|十分(?!之)|千方百计|四川|九江|三峡|百姓)|第一时间"
)
ARTICLES = ("个", "种", "项", "类", "份", "名", "位", "家", "次", "部", "件", "条")
ENGLISH_NUMBERS = {
    word: value
    for value, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty".split(),
        start=2,
    )
} | {
    word: 10 * value
    for value, word in enumerate(
        "thirty forty fifty sixty seventy eighty ninety hundred".split(), start=3
    )
}
ENGLISH_NUMBER = re.compile(rf"\b(?:{'|'.join(ENGLISH_NUMBERS)})\b", re.IGNORECASE)

BOOK_TITLE = re.compile("《([^《》]{1,80})》|〈([^〈〉]{1,80})〉")

ORGANISATION = (
    "有限责任公司|股份有限公司|有限公司|公司|集团|委员会|管理局|办公厅|办公室|国资委|发改委|监委|"
    "法院|检察院|研究院|学院|国务院|银行|大学|协会|学会|商会|工会|研究所|交易所|事务所|证券|"
    "总局|局|部门?|厅|署|中心"
)
# Words that end like an organisation and are none.
NO_ORGANISATION = re.compile(
    "全部|内部|外部|干部|部分|局部|局面|结局|署名|部署|签署|布局|格局|部件|俱乐部|总部|本部|"
    "有关部门|主管部门|相关部门|各部门|本部门|部门"
)
ORGANISATION_END = re.compile(ORGANISATION)
HAN_RUN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+")
MAX_NAME = 30  # characters of an organisation
# Where a name cannot go on: what stands in front of it.
BEFORE_NAME = re.compile(
    "[的由向经对和与及或在是为报请应须将把被给让使从到至于并且等各该本其有设交归按据依因当则即若但而就"
    "也均都未不可能需再又、]$"
    "|(?:负责|授权|委托|批准|根据|按照|依照|隶属|属于|成立|设立|包括|作为|通过|报送|提交|会同|联合|代表|"
    "任命|监督|要求|指导|组织|协调|申请|接受|收购|持有|控股|担任|加入|来自|制定|规定|管理|出资|其他|所属|"
    "同级|上级|下级|本级|有关|相关|主管|发布|公布|印发|提出|建立|撤销|改组|合并|支持|推动|推进|督促|必须|"
    "履行|开展|实施|称为|简称|分别)$"
)
LATIN = re.compile(r"[A-Za-z][A-Za-z0-9&-]*[A-Za-z0-9]")
SENTENCE_START = re.compile(r"(?:^|[.!?:;\n\"“(*#-]\s*)$")
ENUMERATION = re.compile(
    rf"^[\s#>*-]*(?:第?[{DIGIT}]{{1,3}}[、.．，,：:]|\d{{1,2}}[、.．)）](?=\D))"
    rf"|[（(](?:[{DIGIT}]{{1,3}}|\d{{1,2}})[)）]"
    rf"|(?<=[。；;：:\n])\s*第?[{DIGIT}]{{1,3}}[、，,：:]"
    rf"|第[{DIGIT}]{{1,2}}(?=[，,、：:])",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Fact:
    """What must stand in the span.

    Attributes:
        kind: date, percentage, number, title, organisation or name.
        text: As it is written.
        key: What is equal for equal facts.
        start: Where it begins in its text.
    """

    kind: str
    text: str
    key: tuple[object, ...]
    start: int


def ungrounded(answer: str, span: str, title: str = "") -> list[Fact]:
    """Return the facts of an answer that neither its span nor, of titles, the title holds.

    Args:
        answer: The text whose facts are looked for.
        span: The text that it rests on.
        title: The document's title; names and 《titles》 may stand there.
    """
    body = ENUMERATION.sub(lambda found: " " * len(found[0]), answer)
    known = {fact.key for fact in facts(span)}
    letters = ngrams.text_of(ngrams.folded(f"{span}\n{title}"))
    missing = []
    for fact in facts(body):
        if fact.kind in ("title", "name"):
            is_there = str(fact.key[1]) in letters
        else:
            is_there = any(_equal(fact.key, other) for other in known)
            is_there = is_there or _is_article(fact, known)
        if not is_there:
            missing.append(fact)
    missing += _organisations_missing(body, f"{span}\n{title}")
    return missing


def facts(text: str) -> list[Fact]:
    """Return the dates, percentages, numbers, titles and Latin names of a text."""
    found: list[Fact] = []
    rest = NUMERAL_WORDS.sub(lambda word: "#" * len(word[0]), text)
    for pattern, read in ((DATE, _date), (ENGLISH_DATE, _english_date), (PERCENT, _percent)):
        for match in pattern.finditer(rest):
            kind, key = read(match)
            written = text[match.start() : match.end()]
            found.append(Fact(kind, written, key, match.start()))
        rest = pattern.sub(lambda match: "#" * len(match[0]), rest)
    found += _numbers(rest, text)
    for match in BOOK_TITLE.finditer(text):
        letters = ngrams.text_of(ngrams.folded(match[1] or match[2]))
        found.append(Fact("title", match[0], ("title", letters), match.start()))
    found += _names(text)
    return sorted(found, key=lambda fact: fact.start)


def organisations(text: str) -> Iterator[tuple[int, int]]:
    """Yield where organisations may stand in a Chinese text: from the run's start to their end."""
    for run in HAN_RUN.finditer(text):
        start = run.start()
        excluded: set[int] = set()
        for word in NO_ORGANISATION.finditer(run[0]):
            excluded.update(range(*word.span()))
        for end in ORGANISATION_END.finditer(run[0]):
            if end.end() - 1 not in excluded:
                last = start + end.end()
                yield max(start, last - MAX_NAME), last


def _organisations_missing(answer: str, span: str) -> list[Fact]:
    """Return the organisations of an answer that do not stand in a span.

    The longest end of a name that stands in the span must be the whole name: what is in front of it
    in the answer must end with a word that no name goes on from.
    """
    missing = []
    for start, end in organisations(answer):
        aligned = end
        while aligned > start and answer[aligned - 1 : end] in span:
            aligned -= 1
        before = answer[start:aligned]
        if before and BEFORE_NAME.search(before) is None:
            name = answer[max(start, aligned - 8) : end]
            missing.append(Fact("organisation", name, ("organisation", name), start))
    return missing


def _equal(key: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Tell whether two facts agree as far as both say something."""
    if key[0] != other[0]:
        return _date_part(key, other)
    if key[0] == "date":
        pairs = zip(key[1:], other[1:], strict=True)
        return all(part is None or part == whole for part, whole in pairs)
    if key[0] == "number":
        _, value, unit = key
        _, other_value, other_unit = other
        return value == other_value and (unit == other_unit or not unit or not other_unit)
    return key == other


def _date_part(key: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Tell whether a number with a unit is the year of a date, such as 2020 of 2020年1月."""
    if key[0] != "number" or other[0] != "date":
        return False
    return key[1] == other[1] and key[2] in ("", "年")


def _is_article(fact: Fact, known: set[tuple[object, ...]]) -> bool:
    """Tell whether 一个 counts nothing: the span counts nothing of this unit either."""
    if fact.kind != "number" or fact.key[1] != 1 or fact.key[2] not in ARTICLES:
        return False
    if not fact.text.startswith("一"):
        return False
    return not any(key[0] == "number" and key[2] == fact.key[2] for key in known)


def _date(match: re.Match[str]) -> tuple[str, tuple[object, ...]]:
    year = match["year"] or match["year3"]
    month = match["month"] or match["month2"] or match["month3"]
    day = match["day"] or match["day2"] or match["day3"]
    values = [_whole(part) if part else None for part in (year, month, day)]
    return "date", ("date", *values)


def _english_date(match: re.Match[str]) -> tuple[str, tuple[object, ...]]:
    month = MONTHS.index(match["month"] or match["month2"]) + 1
    day = match["day"] or match["day2"]
    year = int(match["year"] or match["year2"])
    return "date", ("date", year, month, int(day) if day else None)


def _percent(match: re.Match[str]) -> tuple[str, tuple[object, ...]]:
    if match["chinese"]:
        written = match["chinese"]
        value = _arabic(written) if written[0].isascii() else _chinese(written)
        return "percentage", ("percentage", value, "%")
    sign = "‰" if match["sign"] == "‰" else "%"
    return "percentage", ("percentage", _arabic(match["value"]), sign)


def _numbers(rest: str, text: str) -> Iterator[Fact]:
    for match in NUMBER.finditer(rest):
        written = text[match.start() : match.end()]
        if match["arabic"]:
            value = _arabic(match["arabic"]) * _chinese("一" + (match["large"] or ""))
            unit = (match["unit"] or "").removeprefix("余")
            unit = "" if unit == "多" else unit
        else:
            numeral = match["chinese"]
            unit = match["unit2"] or ""
            is_ordinal = match.start() > 0 and rest[match.start() - 1] == "第"
            if len(numeral) == 1 and not unit and not is_ordinal:
                continue  # as in 三方
            value = _chinese(numeral)
        yield Fact("number", written, ("number", value, unit), match.start())
    for match in ENGLISH_NUMBER.finditer(rest):
        value = Decimal(ENGLISH_NUMBERS[match[0].lower()])
        yield Fact("number", match[0], ("number", value, ""), match.start())


def _names(text: str) -> Iterator[Fact]:
    """Yield Latin words with a capital that starts no sentence; in Chinese text all of them."""
    has_han = HAN_RUN.search(text) is not None
    for match in LATIN.finditer(text):
        word = match[0]
        is_acronym = len(word) > 1 and word.isupper()
        is_name = word[0].isupper() and not _starts_sentence(text, match.start())
        if (has_han or is_acronym or is_name) and word not in MONTHS and word != "I":
            letters = ngrams.text_of(ngrams.folded(word))
            yield Fact("name", word, ("name", letters), match.start())


def _starts_sentence(text: str, index: int) -> bool:
    return SENTENCE_START.search(text[max(0, index - 12) : index]) is not None


def _whole(numeral: str) -> int:
    return int(numeral) if numeral.isdecimal() else int(_chinese(numeral))


def _arabic(number: str) -> Decimal:
    try:
        return Decimal(number.replace(",", "").replace("，", "").replace("．", "."))
    except InvalidOperation:
        return Decimal(0)


def _chinese(numeral: str) -> Decimal:
    """Return the value of a Chinese numeral: 三十五万, 二〇二〇, 三点五."""
    whole, _, fraction = numeral.partition("点")
    value = _chinese_whole(whole)
    digits = "".join(str(DIGITS.get(digit, 0)) for digit in fraction)
    return value + Decimal(f"0.{digits}") if digits else value


def _chinese_whole(numeral: str) -> Decimal:
    if len(numeral) > 1 and all(digit in DIGITS for digit in numeral):
        return Decimal("".join(str(DIGITS[digit]) for digit in numeral))
    total = section = digit = 0
    for character in numeral:
        if character in DIGITS:
            digit = DIGITS[character]
        elif character in UNITS:
            section += (digit or 1) * UNITS[character]
            digit = 0
        elif character in LARGE:
            section = (section + digit) or 1
            is_outer = character == "亿"  # 万 before it counts hundred millions, too
            total = (total + section) * LARGE[character] if is_outer else total + section * 10**4
            section = digit = 0
    return Decimal(total + section + digit)
