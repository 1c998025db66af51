"""Laws of the readers: what a file says is read as it stands, whatever its format or encoding."""

import re
from importlib import metadata
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import base, docx_numbering, encodings
from soaes.data.readers.registry import Readers
from tests.helpers import office, pdfs

LAW = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"
ARTICLES = [f"第{docx_numbering.chinese(n)}条 {LAW}" for n in range(1, 31)]
TRADITIONAL = "國有資產監督管理機構代表本級人民政府履行出資人職責，依法享有資產收益等權利。"


def read(tmp_path, name, content, own=None):
    """What a file is read as."""
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(Readers(own).read(path, f"corpus/{name}"))


def text(tmp_path, name, content):
    """The text of the one document of a file."""
    (document,) = read(tmp_path, name, content)
    assert isinstance(document, SourceDocument), document
    return document.text.strip()


# ---------------------------------------------------------------- encodings


@pytest.mark.parametrize("size", [12, 40, 400, 4000])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "big5"]
)
def test_a_text_of_any_size_is_read_in_any_encoding(encoding, size):
    plain = (TRADITIONAL if encoding == "big5" else LAW + "1,234.5元\r\n") * (size // 12)
    for start in range(0, len(plain) - size + 1, max(1, len(plain) // 9)):
        part = plain[start : start + size]
        assert encodings.decode(part.encode(encoding)).text == part


@pytest.mark.parametrize("declared", ["gb2312", "GBK", "gb18030", "utf-8", "iso-8859-1", "", "x"])
def test_a_declared_charset_that_is_narrow_or_wrong_costs_nothing(declared):
    plain = f"{LAW}\u3403\U0002a6d6"  # not in GB 2312, not in GBK
    for encoding in ("gb18030", "utf-8"):
        assert encodings.decode(plain.encode(encoding), declared).text == plain


def test_another_language_is_guessed_or_rejected_and_never_read_as_chinese():
    korean = "대한민국의 주권은 국민에게 있고, 모든 권력은 국민으로부터 나온다. " * 20
    french = "Les hommes naissent et demeurent libres et égaux en droits. " * 5
    for plain, encoding in ((korean, "euc-kr"), (french, "cp1252")):
        try:
            assert encodings.decode(plain.encode(encoding)).text == plain
        except base.Unreadable as error:
            assert error.reason == "encoding unknown"
    encodings.check_mojibake(french)


@pytest.mark.parametrize(
    "written", ["2018年12月1日", "2018-12-01T08:00:00", "2018/12/1", "2018.12.01", "公布于20181201"]
)
def test_dates_are_iso_dates(written):
    assert base.iso_date(written) == "2018-12-01"
    assert base.iso_date(written.replace("12", "13")) == ""
    assert base.iso_date(f"2018年2月30日 20180230 {written}") == "2018-12-01"


def test_the_lock_file_of_an_open_document_is_named_as_one(tmp_path):
    (tmp_path / "~$law.docx").write_bytes(b"\x04user")
    (rejection,) = Readers().read(tmp_path / "~$law.docx", "corpus/~$law.docx")
    assert rejection.reason == "lock file"


# ---------------------------------------------------------------- text and HTML


def test_one_law_is_the_same_text_in_every_format(tmp_path):
    paragraphs = "".join(map(office.paragraph, ARTICLES))
    formats = {
        "a.txt": "\r\n".join(ARTICLES).encode("gb18030"),
        "a.md": "\n".join(ARTICLES),
        "a.html": "<html><body>" + "".join(f"<p>{line}</p>" for line in ARTICLES),
        "a.pdf": pdfs.document(["\n".join(ARTICLES[:15]), "\n".join(ARTICLES[15:])]),
        "a.docx": office.docx(paragraphs),
    }
    texts = {name: text(tmp_path, name, content) for name, content in formats.items()}
    lines = {name: re.sub("\n+", "\n", found).split("\n") for name, found in texts.items()}
    assert lines == {name: ARTICLES for name in formats}


def test_front_matter_and_headings_give_title_date_and_url(tmp_path):
    matter = "---\ntitle: 公司法\ndate: 2023-12-29\nlink: http://a\nx: y\n---\n# 别的\n正文"
    (document,) = read(tmp_path, "a.md", matter)
    assert (document.title, document.date, document.url) == ("公司法", "2023-12-29", "http://a")
    assert document.text == "# 别的\n正文"
    (document,) = read(tmp_path, "a.md", "# 公司法 #\n正文")
    assert (document.title, document.text) == ("公司法", "# 公司法 #\n正文")


HEAD = (
    "<title>网站</title><meta name=ArticleTitle content=公司法>"
    "<meta name=PubDate content='2023-12-29 10:00'><link rel=canonical href='http://a'>"
)


def test_a_page_is_its_main_content_once_and_its_head_says_what_it_is(tmp_path):
    menu = "".join(f"<a href=/{n}>栏目{n}</a>" for n in range(30))
    paragraphs = "".join(f"<p>{line}</p>" for line in ARTICLES[:5])
    body = f"<nav>{menu}</nav><article>{paragraphs}</article><footer>版权所有</footer>"
    (document,) = read(tmp_path, "a.html", f"<html><head>{HEAD}</head><body>{body}</body></html>")
    assert (document.title, document.date, document.url) == ("公司法", "2023-12-29", "http://a")
    assert [line for line in document.text.split("\n") if line.strip()] == ARTICLES[:5]


def test_short_navigation_is_no_text_unless_a_page_has_no_other(tmp_path):
    menu = "<nav><a href=/>首页</a> 政策</nav><div role=navigation>上一篇</div>"
    assert text(tmp_path, "a.html", f"<body>{menu}<p>{LAW}</p><NAV>下一篇</NAV></body>") == LAW
    assert "上一篇" in text(tmp_path, "b.html", f"<body>{menu}</body>")


@pytest.mark.parametrize(
    "body, date",
    [
        (f"<p>发布时间：<span>2021-03-04 10:20</span>　来源：国资委</p><p>{LAW}</p>", "2021-03-04"),
        (f"<p>{LAW}</p><p>成文日期:&nbsp;2019年3月4日</p>", "2019-03-04"),
        (f"<p>发布日期：未知</p><p>发布日期：2018/1/2</p><p>{LAW}</p>", "2018-01-02"),
        (f"<p>{LAW}2021年3月4日</p>", ""),
    ],
    ids=["span", "at the end", "second label", "no label"],
)
def test_a_page_whose_head_has_no_date_may_say_it_in_its_body(tmp_path, body, date):
    (document,) = read(tmp_path, "a.html", f"<html><body>{body}</body></html>")
    assert document.date == date


def test_a_short_page_is_not_read_twice(tmp_path):
    assert text(tmp_path, "a.html", f"<html><body><p>{LAW}</p></body></html>") == LAW


# ---------------------------------------------------------------- Word

DEFINITIONS = office.definition(1, ("chineseCounting", "第%1条"), ("decimal", "%1.%2"))
RESTART = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride>'
LISTS = DEFINITIONS + office.listed(1, 1) + office.listed(2, 1) + office.listed(3, 1, RESTART)


def test_articles_numbered_by_word_keep_their_numbers(tmp_path):
    body = "".join(office.numbered(LAW, 1) for _ in range(30))
    assert text(tmp_path, "a.docx", office.docx(body, numbering=LISTS)).split("\n") == ARTICLES


def test_numbers_go_on_after_plain_paragraphs_and_start_anew_where_told(tmp_path):
    body = [
        office.numbered("甲", 1),
        office.paragraph("第二章"),
        office.numbered("乙", 2),  # another list of the same definition counts on
        office.numbered("细则", 2, 1),
        office.numbered("细则", 2, 1),
        office.numbered("丙", 1),
        office.numbered("细则", 1, 1),
        office.numbered("丁", 3),
        office.numbered("无", 0),
    ]
    lines = text(tmp_path, "a.docx", office.docx("".join(body), numbering=LISTS)).split("\n")
    assert lines == [
        "第一条 甲",
        "第二章",
        "第二条 乙",
        "二.1 细则",
        "二.2 细则",
        "第三条 丙",
        "三.1 细则",
        "第一条 丁",
        "无",
    ]


def test_a_style_numbers_its_paragraphs(tmp_path):
    styles = (
        '<w:style w:styleId="A"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
        '<w:style w:styleId="B"><w:basedOn w:val="A"/></w:style>'
    )
    body = "".join(office.paragraph(LAW, f'<w:pStyle w:val="{style}"/>') for style in "AB")
    content = office.docx(body, numbering=LISTS, styles=styles)
    assert text(tmp_path, "a.docx", content).split("\n") == ARTICLES[:2]


SPELT = {
    0: "零",
    10: "十",
    19: "十九",
    20: "二十",
    101: "一百零一",
    110: "一百一十",
    1001: "一千零一",
    1260: "一千二百六十",
}


def test_numbers_are_counted_in_chinese():
    assert {number: docx_numbering.chinese(number) for number in SPELT} == SPELT


RUN = "<w:r><w:t>{}</w:t></w:r>"


def test_insertions_stay_and_deletions_go(tmp_path):
    deleted = "<w:del><w:r><w:delText>旧</w:delText></w:r></w:del>"
    moved = f"<w:moveFrom>{RUN.format('移走')}</w:moveFrom>"
    inserted = f"<w:ins>{RUN.format('新')}</w:ins><w:moveTo>{RUN.format('移来')}</w:moveTo>"
    body = f"<w:p>{RUN.format('甲')}{deleted}{moved}{inserted}<w:r><w:tab/></w:r></w:p>"
    assert text(tmp_path, "a.docx", office.docx(body)) == "甲新移来"


def test_text_boxes_notes_tables_and_controls_are_read_once(tmp_path):
    box = f"<w:txbxContent>{office.paragraph('框')}</w:txbxContent>"
    choice = (
        '<mc:AlternateContent xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        f"<mc:Choice>{box}</mc:Choice><mc:Fallback>{box}</mc:Fallback></mc:AlternateContent>"
    )
    note = '<w:r><w:footnoteReference w:id="7"/></w:r>'
    cells = "".join(f"<w:tc>{office.paragraph(cell)}</w:tc>" for cell in "甲乙")
    nested = f"<w:tbl><w:tr><w:tc>{office.paragraph('内')}</w:tc></w:tr></w:tbl>"
    table = f"<w:tbl><w:tr>{cells}<w:tc>{nested}</w:tc></w:tr></w:tbl>"
    control = f"<w:sdt><w:sdtContent>{office.paragraph('控件')}</w:sdtContent></w:sdt>"
    body = f"<w:p>{RUN.format('文')}{note}<w:r>{choice}</w:r></w:p>{table}{control}"
    notes = f'<w:footnote w:id="7">{office.paragraph("注")}</w:footnote>'
    lines = text(tmp_path, "a.docx", office.docx(body, footnotes=notes)).split("\n")
    assert lines == ["文[1]", "框", "甲\t乙\t内", "控件", "[1] 注"]


# ---------------------------------------------------------------- tables


def test_records_are_the_same_documents_in_every_table(tmp_path):
    header, row = ["标题", "发布日期", "正文", "作者"], ["公司法", "2023年12月29日", LAW, "x"]
    record = dict(zip(header, row, strict=True))
    parquet.write_table(pyarrow.Table.from_pylist([record, record]), tmp_path / "p")
    lines = [",".join(header), ",".join(row), ",".join(row)]
    line = str(record).replace("'", '"')
    formats = {
        "a.csv": ("\r\n".join(lines).encode("gbk"), ":2"),
        "a.jsonl": (f"{line}\n{line}\n", ":1"),
        "a.xlsx": (office.xlsx(空=[], 法=[header, row, row]), "#法:2"),
        "a.parquet": ((tmp_path / "p").read_bytes(), ":1"),
    }
    for name, (content, place) in formats.items():
        documents = read(tmp_path, name, content)
        assert [document.text for document in documents] == [LAW] * 2
        first = documents[0]
        assert (first.title, first.date) == ("公司法", "2023-12-29")
        assert first.source == f"corpus/{name}{place}"
        assert first.unread == (() if name == "a.parquet" else ("作者",))


def test_a_table_without_text_is_one_rejection_of_each_sheet(tmp_path):
    found = read(tmp_path, "a.xlsx", office.xlsx(一=[["a"], ["1"], ["2"]], 二=[["b"], ["1"]]))
    assert [(item.source, item.reason) for item in found] == [
        ("corpus/a.xlsx#一:2", "no text or content field"),
        ("corpus/a.xlsx#二:2", "no text or content field"),
    ]


def test_a_text_field_that_is_null_has_no_text(tmp_path):
    content = b'{"text": null, "title": "a"}\n{"title": "b"}'
    found = read(tmp_path, "a.jsonl", content)
    assert [item.reason for item in found] == ["no text", "no text or content field"]


# ---------------------------------------------------------------- readers of one's own


def read_reversed(path, name):
    for line in path.read_text("utf-8").split():
        yield SourceDocument(line[::-1], name)
    raise RuntimeError("broken")


def test_a_reader_of_ones_own_is_named_by_suffix_and_its_failure_is_a_rejection(tmp_path):
    own = {"sql": f"{__name__}.read_reversed"}
    *documents, last = read(tmp_path, "a.sql", "ab cd", own)
    assert [document.text for document in documents] == ["ba", "dc"]
    assert last == Rejection("corpus/a.sql", "reader failed", "RuntimeError: broken")
    with pytest.raises(ValueError, match="data.read.readers: no.such cannot be imported"):
        Readers({"sql": "no.such"})


def read_nothing_of_use(path, name):
    if path.read_text("utf-8") == "None":
        yield SourceDocument("text", name, title=None)
    yield {"text": "text"}


@pytest.mark.parametrize(
    "content, detail",
    [
        ("None", 'TypeError: title is NoneType: give text, "" where it is unknown'),
        ("dict", "TypeError: it yields dict: yield SourceDocument or Rejection"),
    ],
)
def test_what_a_reader_of_ones_own_gives_is_checked_where_it_is_read(tmp_path, content, detail):
    own = {"sql": f"{__name__}.read_nothing_of_use"}
    (failure,) = read(tmp_path, "a.sql", content, own)
    assert failure == Rejection("corpus/a.sql", "reader failed", detail)


DUMP = (
    "INSERT INTO pages (id, title, html) VALUES (1, '公司法', '<p>It''s law (a, b).</p>\\n"
    "<p>第二段，在此。</p>');\nINSERT INTO pages (id, title, html) VALUES (2, '', '<p>x</p>');\n"
)


def test_the_reader_that_is_documented_reads_a_dump(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs/own_data.md").read_text("utf-8")
    codes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (code,) = [code for code in codes if "def read_sql" in code]
    (tmp_path / "documented.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    first, second = read(tmp_path, "a.sql", DUMP, {"sql": "documented.read_sql"})
    assert (first.source, first.title) == ("corpus/a.sql:1", "公司法")
    assert first.text.split() == ["It''s", "law", "(a,", "b).", "第二段，在此。"]
    assert (second.source, second.title, second.text) == ("corpus/a.sql:2", "", "x")


def test_no_library_of_a_reader_has_a_licence_that_binds_its_users():
    """Those of GPL and AGPL do; what they say in full may name other licences."""
    libraries = ("resiliparse", "fastwarc", "pypdfium2", "lxml", "python-calamine", "zstandard")
    for name in (*libraries, "rensa", "scikit-learn", "pyarrow"):
        entries = metadata.metadata(name)
        short = f"{entries.get('License-Expression')} {entries.get('License')}"[:80]
        assert re.search("Apache|MIT|BSD", short), (name, short)
        assert "GPL" not in short, (name, short)
