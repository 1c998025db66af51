"""Hostile inputs: each is right text, or one counted rejection that names file, place and reason.

All are read in one run of the stage, with sockets denied; numbers are those of the inputs.
"""

import gzip
import io
import json
import os
import socket
import subprocess
import sys
import zipfile

import pytest
import zstandard

from soaes.data.curation import sources
from soaes.data.curation.curation_report import printable
from soaes.data.readers import zip_files
from soaes.stages import corpus
from tests.helpers import office, pdfs

LAW = "国有资产监督管理机构代表本级人民政府履行出资人职责，依法享有资产收益等权利。"
RARE = "姓名：\U0002a6d6\u9fa6\u3403，任职于国有企业。"  # characters of 4 bytes in GB18030
PAGES = [f"第{number}章\n{LAW}" for number in range(20)]
DOCX = office.docx("".join(office.paragraph(line) for line in ("第一条", LAW)))


def page(body, head=""):
    return f"<html><head>{head}</head><body>{body}</body></html>"


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def text_of(*parts):
    return ("text", "\n".join(parts))


def rejected(reason, place=""):
    return ("rejection", reason, place)


ENTITY = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    f'<w:document xmlns:w="{office.WORD}"><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p>'
    "</w:body></w:document>"
)
LINKS = "".join(
    f'<li><a href="/{n}">国务院关于第{n}号事项的通知</a> 2024-01-02</li>' for n in range(500)
)
# Cells outside a table, of which a parser makes one text again and again.
ORPHANS = f"<tr><td class=a>{LAW[:18]}</td><td>1,234.00</td></tr>"
LINE = json.dumps({"text": LAW}, ensure_ascii=False)

# name -> content and what is expected: all of its text, or its rejections
INPUTS = {
    "1.txt": (RARE.encode("gb18030"), [text_of(RARE)]),
    "2.txt": (
        f"{LAW}\n坏行".encode() + b"\xe5\x9b" + f"坏\n{LAW}".encode(),
        [rejected("broken characters", ":2"), text_of(LAW, LAW)],
    ),
    "3-le.txt": (LAW.encode("utf-16-le"), [text_of(LAW)]),
    "3-be.txt": (LAW.encode("utf-16-be"), [text_of(LAW)]),
    "4.html": (page(f"<p>{LAW}</p>", "<meta charset=gb2312>").encode(), [text_of(LAW)]),
    "4-declared.html": (
        page(f"<p>{RARE}</p>", "<meta charset='gb2312'>").encode("gb18030"),
        [text_of(RARE)],
    ),
    "5.txt": (
        LAW.encode().decode("gbk", "ignore").encode(),
        [rejected("decoded wrongly before it was saved")],
    ),
    "5-latin.txt": (
        LAW.encode("gbk").decode("latin-1").encode(),
        [rejected("decoded wrongly before it was saved")],
    ),
    "6.txt": (LAW[:12].encode("gbk"), [text_of(LAW[:12])]),
    "8-cut.txt.gz": (gzip.compress(os.urandom(99) + LAW.encode())[:-20], [rejected("cut short")]),
    "8-bomb.txt.gz": (gzip.compress(b"a" * (8 << 20)), [rejected("expands beyond its limit")]),
    "8-bomb.txt.zst": (
        zstandard.compress(b"a" * (8 << 20)),
        [rejected("expands beyond its limit")],
    ),
    "8.txt.gz": (gzip.compress(LAW.encode()), [text_of(LAW)]),
    "8.md.zst": (zstandard.compress(LAW.encode()), [text_of(LAW)]),
    "8.jsonl.zst": (
        zstandard.compress(LINE.encode()) + zstandard.compress(f"\n{LINE}".encode()),
        [text_of(LAW), text_of(LAW)],
    ),
    "8-broken.zst": (b"not compressed", [rejected("file type not read")]),
    "8-broken.txt.zst": (b"not compressed", [rejected("broken compression")]),
    "9-bomb.docx": (
        zipped(word__document=b"", **{"word__document.xml": b" " * (33 << 20)}),
        [rejected("expands beyond its limit")],
    ),
    "9-entity.docx": (zipped(**{"word__document.xml": ENTITY}), [rejected("XML with entities")]),
    "10.docx": (zip_files.OLE + b"\0" * 600, [rejected("not a docx file")]),
    "10-cut.docx": (DOCX[:-30], [rejected("broken zip archive")]),
    "10.wps": (zip_files.OLE, [rejected("file type not read")]),
    "10.ofd": (b"PK\3\4", [rejected("file type not read")]),
    "10-pdf.txt": (b"%PDF-1.4 ...", [rejected("not text")]),
    "11.pdf": (pdfs.document([LAW], password=b"secret"), [rejected("encrypted")]),
    "12.pdf": (pdfs.document([None, None]), [rejected("no text layer")]),
    "13.pdf": (
        pdfs.document([*PAGES, "张三"], to_unicode="".join({*"".join(PAGES)})),
        [rejected("font without characters", "#page 21"), text_of(*PAGES)],
    ),
    "13-all.pdf": (pdfs.document([LAW], to_unicode=False), [rejected("font without characters")]),
    "15.pdf": (
        pdfs.document([PAGES[0]] * 500, broken=(250,)),
        [rejected("broken page", "#page 251"), text_of(*[PAGES[0]] * 499)],
    ),
    "16.pdf": (
        pdfs.document([LAW], extra=b"/OpenAction<</S/JavaScript/JS(app.alert(1))>>"),
        [text_of(LAW)],
    ),
    "17.html": (
        page("<div>" * 50_000 + LAW + "</div>" * 50_000).encode(),
        [rejected("nested too deeply")],
    ),
    "17-deep.html": (page("<div>" * 400 + LAW + "</div>" * 400).encode(), [text_of(LAW)]),
    "17-orphans.html": (page(ORPHANS * 20_000).encode(), [rejected("too complex")]),
    "17-open.html": (
        page(("<li>" * 40 + LAW) * 99).encode(),
        [("text", "\n  ".join([f"• {LAW}"] * 99))],
    ),
    "18.html": (
        page("<script>var x = 1;</script><iframe srcdoc='<p>text</p>'></iframe>").encode(),
        [rejected("no text")],
    ),
    "19.html": (page(f"<ul>{LINKS}</ul>").encode(), [rejected("index page")]),
    "24-twice.json": (b'{"text": "a", "text": "b"}', [rejected("broken JSON", ":1")]),
    "24-nan.jsonl": (
        f'{{"text": NaN}}\n{LINE}'.encode(),
        [rejected("broken JSON", ":1"), text_of(LAW)],
    ),
    "24-deep.jsonl": (
        b"[" * 10**6 + f"\n{LINE}\n".encode(),
        [rejected("broken JSON", ":1"), text_of(LAW)],
    ),
    "24-half.jsonl": (
        f'{{"text": "{LAW}\\n\\ud800"}}'.encode(),
        [rejected("broken characters", ":1:2"), text_of(LAW)],
    ),
    "24-halves.jsonl": (
        f'{{"text": "{LAW}", "url": "\\ud800", "\\ud800": 1}}\n{{"\\udc00": 1}}'.encode(),
        [rejected("no text or content field", ":2"), text_of(LAW)],
    ),
    "25.jsonl": (
        f'{{"text": "{LAW}\u2028续"}}\r\n{LINE}\r\n{LINE}'.encode(),
        [text_of(f"{LAW}\u2028续"), text_of(LAW), text_of(LAW)],
    ),
    "26.csv": (
        f'标题,正文\r\n=cmd(),"{LAW}\r\n第二行"\r\n'.encode("gbk"),
        [text_of(LAW, "第二行")],
    ),
    "26-none.csv": (b"a,b\n1,2\n3,4\n", [rejected("no text or content field", ":2")]),
    "27-\n😀.txt": (LAW.encode(), [text_of(LAW)]),
    "27-" + "长" * 82 + "x.txt": (LAW.encode(), [text_of(LAW)]),
    "28.txt": ("正文<|im_end|>\u202e\u200b".encode(), [text_of("正文<|im_end|>\u202e\u200b")]),
    "lines.txt": (b"a\n" * 300_001, [rejected("too many lines")]),
    "breaks.jsonl": (
        json.dumps({"text": "a\u2028" * 300_001}).encode() + f"\n{LINE}".encode(),
        [rejected("too many lines", ":1"), text_of(LAW)],
    ),
    "empty.txt": (b" \n", [rejected("empty file")]),
    "binary.md": (bytes(range(256)) * 9, [rejected("encoding unknown")]),
    "nul.md": (b"a\0\0\0" * 99, [rejected("not text")]),
    "broken.xlsx": (zipped(a="b"), [rejected("broken workbook")]),
    "broken.parquet": (b"PAR1....PAR1", [rejected("broken parquet file")]),
    "none": (b"x", [rejected("file type not read")]),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each input: file -> texts and rejections."""
    root = tmp_path_factory.mktemp("in")
    (root / "corpus/deep/er").mkdir(parents=True)
    for name, (content, _) in INPUTS.items():
        (root / "corpus" / name).write_bytes(content)
    os.mkfifo(root / "corpus/27-pipe.txt")
    (root / "corpus/27-loop.txt").symlink_to(root / "corpus/27-loop.txt")
    (root / "corpus/deep/er/loop").symlink_to(root / "corpus/deep")
    secret = tmp_path_factory.mktemp("outside") / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    (root / "corpus/27-outside.txt").symlink_to(secret)
    (root / "corpus/27-outside").symlink_to(secret.parent)  # one rejection, whatever lies there
    (root / "corpus/deep/root").symlink_to(root)
    out = tmp_path_factory.mktemp("out")
    real_socket = socket.socket
    socket.socket = None  # whoever opens one fails
    try:
        digest = sources.digest(root, kinds=corpus.KINDS)
        corpus.read(digest, root=str(root), timeout=60, out=out)
    finally:
        socket.socket = real_socket
    found = {}
    for name in ("drops.jsonl", "documents.jsonl"):
        for line in (out / name).read_text("utf-8").split("\n")[:-1]:
            item = json.loads(line)
            shown = {file: f"corpus/{printable(file)}" for file in names()}
            file = next(file for file in names() if item["source"].startswith(shown[file]))
            place = item["source"].removeprefix(shown[file])
            if "rule" in item:
                outcome = ("rejection", item["rule"], place)
            else:
                outcome = ("text", item["text"].strip())
            found.setdefault(file, []).append(outcome)
    return found


def names():
    others = ("27-pipe.txt", "27-loop.txt", "27-outside.txt", "27-outside")
    return sorted([*INPUTS, *others], key=len, reverse=True)


@pytest.mark.parametrize("name", INPUTS, ids=lambda name: ascii(name)[1:30])
def test_a_hostile_file_is_right_text_or_named(outcomes, name):
    assert sorted(outcomes.get(name, [])) == sorted(INPUTS[name][1])


@pytest.mark.parametrize(
    "name, reason",
    [
        ("27-pipe.txt", "not a file"),
        ("27-loop.txt", "file cannot be read"),
        ("27-outside.txt", "link to outside the data root"),
        ("27-outside", "link to outside the data root"),
    ],
)
def test_what_is_no_file_of_the_folder_is_not_opened(outcomes, name, reason):
    assert outcomes[name] == [("rejection", reason, "")]


# The peak is that of the process alone: ru_maxrss would include its parent's before exec. Beside it
# counts that of the process which it forks to read.
LARGE = """
import re, resource, sys
from pathlib import Path
from soaes.data.curation import sources
from soaes.stages import corpus
root, out = map(Path, sys.argv[1:])
corpus.read(sources.digest(root, kinds=corpus.KINDS), root=str(root), timeout=60, out=out)
own = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_stays_below_300_mb(tmp_path):
    """200 MB in one line, and texts just above and below the limit of 32 MB."""
    folder = tmp_path / "in/corpus"
    folder.mkdir(parents=True)
    for name, head, size in (("a.txt", b"", 33), ("a.jsonl", b'{"text": "', 200)):
        with open(folder / name, "wb") as handle:
            handle.write(head)
            for _ in range(size):
                handle.write(b"a" * (1 << 20))
    (folder / "large.txt").write_bytes(f"{LAW}\n".encode() * ((31 << 20) // 118))
    command = [sys.executable, "-c", LARGE, str(tmp_path / "in"), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONIOENCODING": "gbk", "LC_ALL": "C"}
    result = subprocess.run(command, check=True, capture_output=True, env=environment)
    assert int(result.stdout) * 1024 < 300e6
    drops = (tmp_path / "out/drops.jsonl").read_text("utf-8").splitlines()
    places = [(json.loads(line)["source"], json.loads(line)["rule"]) for line in drops]
    assert places == [("corpus/a.jsonl:1", "too large"), ("corpus/a.txt", "too large")]
