"""Files are UTF-8 whatever the locale: no text file is opened in an encoding of the machine."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "soaes"

# Functions that read or write text, and the place of `encoding` among their arguments.
TEXT_CALLS = {"read_text": 0, "write_text": 1, "open": 2, "fdopen": 3}


def calls_without_encoding(source):
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        keywords = {keyword.arg for keyword in node.keywords}
        owner = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        if name in ("run", "Popen") and owner == "subprocess":
            if "text" in keywords and "encoding" not in keywords:
                yield ast.unparse(node)
        elif name in TEXT_CALLS and owner not in ("os", "store", "gzip", "tarfile", "zipfile"):
            binary = any("b" in mode for mode in modes(node))
            is_ours = name == "write_text" and not owner  # soaes.pipeline.store.write_text
            is_url = "timeout" in keywords  # of urllib, which gives bytes
            given = "encoding" in keywords or len(node.args) > TEXT_CALLS[name]
            if not (binary or is_ours or is_url or given):
                yield ast.unparse(node)


def modes(call):
    """The constant words among a call's arguments that look like a mode."""
    for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            if set(argument.value) <= set("rwaxbt+"):
                yield argument.value


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text()", 1),
        ("path.read_text('utf-8')", 0),
        ("open(name)", 1),
        ("open(name, 'rb')", 0),
        ("path.open('w')", 1),
        ("path.open('w', encoding='utf-8')", 0),
        ("opener.open(request, timeout=5)", 0),
        ("subprocess.run(words, text=True)", 1),
    ],
)
def test_the_check_finds_what_depends_on_the_locale(source, count):
    assert len(list(calls_without_encoding(source))) == count


def test_no_text_depends_on_the_locale():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        calls = list(calls_without_encoding(path.read_text(encoding="utf-8")))
        if calls:
            found[str(path.relative_to(PACKAGE))] = calls
    assert not found
