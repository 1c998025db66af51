"""PDF files with just what a test needs, written by hand: pages of text, or of a picture."""

import hashlib

PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
PICTURE = b"q 100 0 0 100 100 100 cm /X Do Q"


def document(pages, to_unicode=True, extra=b"", password=None, broken=()):
    """A PDF file.

    Args:
        pages: text of each page, a line each; None for a picture without text.
        to_unicode: whether the font says which characters its glyphs are; or a text of which it
            says so.
        extra: further entries of the catalog.
        password: bytes; the user password under which the file is encrypted.
        broken: indices of pages whose object is missing.
    """
    characters = sorted({char for page in pages for char in page or ""} - {"\n"})
    known = characters if to_unicode is True else [c for c in characters if c in (to_unicode or "")]
    numbers = {char: number for number, char in enumerate(characters, 1)}
    objects = [
        b"<</Type/Catalog/Pages 2 0 R %s>>" % extra,
        None,
        _font(bool(known)),
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/F/FontDescriptor 5 0 R"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>/DW 1000>>",
        b"<</Type/FontDescriptor/FontName/F/Flags 4/FontBBox[0 0 1000 1000]/ItalicAngle 0"
        b"/Ascent 800/Descent -200/CapHeight 700/StemV 80>>",
        _stream(_to_unicode({char: numbers[char] for char in known})),
        _stream(
            b"\0",
            b"/Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8"
            b"/ColorSpace/DeviceGray",
        ),
    ]
    kids = []
    for index, page in enumerate(pages):
        number = len(objects) + 1
        kids.append(b"%d 0 R" % (number + (9_000_000 if index in broken else 0)))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents %d 0 R"
            b"/Resources<</Font<</F 3 0 R>>/XObject<</X 7 0 R>>>>>>" % (number + 1)
        )
        objects.append(_stream(PICTURE if page is None else _content(page, numbers)))
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), len(kids))
    return _file(objects, password)


def _font(has_unicode):
    tail = b"/ToUnicode 6 0 R" if has_unicode else b""
    return (
        b"<</Type/Font/Subtype/Type0/BaseFont/F/Encoding/Identity-H/DescendantFonts[4 0 R]%s>>"
        % tail
    )


def _content(page, numbers):
    lines = []
    for index, line in enumerate(page.split("\n")):
        glyphs = "".join(f"{numbers[char]:04x}" for char in line)
        lines.append(f"BT /F 12 Tf 50 {750 - 20 * index} Td <{glyphs}> Tj ET")
    return "\n".join(lines).encode()


def _to_unicode(numbers):
    pairs = "\n".join(
        f"<{number:04x}> <{char.encode('utf-16-be').hex()}>" for char, number in numbers.items()
    )
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /U def "
        "1 begincodespacerange <0000> <ffff> endcodespacerange "
        f"{len(numbers)} beginbfchar\n{pairs}\nendbfchar endcmap end end"
    ).encode()


def _stream(content, entries=b""):
    return b"<</Length %d%s>>stream\n%s\nendstream" % (len(content), entries, content)


def _file(objects, password):
    """Objects with their table; streams are left as they are: encryption is only declared."""
    parts = [b"%PDF-1.4\n"]
    offsets = []
    encrypt = b""
    if password is not None:
        objects = [*objects, _encryption(password)]
        encrypt = b"/Encrypt %d 0 R/ID[<00><00>]" % len(objects)
    for number, content in enumerate(objects, 1):
        offsets.append(sum(map(len, parts)))
        parts.append(b"%d 0 obj%s endobj\n" % (number, content))
    start = sum(map(len, parts))
    parts.append(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    parts += [b"%010d 00000 n \n" % offset for offset in offsets]
    parts.append(b"trailer<</Size %d/Root 1 0 R%s>>\n" % (len(objects) + 1, encrypt))
    parts.append(b"startxref\n%d\n%%%%EOF" % start)
    return b"".join(parts)


def _encryption(password):
    """The dictionary of the standard handler, revision 2; algorithms 3.2 to 3.4 of PDF 1.4."""
    padded = (password + PADDING)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    permissions = (-4).to_bytes(4, "little", signed=True)
    key = hashlib.md5(padded + owner + permissions + b"\0").digest()[:5]
    user = _rc4(key, PADDING)
    return b"<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -4>>" % (
        owner.hex().encode(),
        user.hex().encode(),
    )


def _rc4(key, content):
    state = list(range(256))
    swap = 0
    for index in range(256):
        swap = (swap + state[index] + key[index % len(key)]) % 256
        state[index], state[swap] = state[swap], state[index]
    output = bytearray()
    first = second = 0
    for byte in content:
        first = (first + 1) % 256
        second = (second + state[first]) % 256
        state[first], state[second] = state[second], state[first]
        output.append(byte ^ state[(state[first] + state[second]) % 256])
    return bytes(output)
