"""How the report of a curation names files."""

import os

from soaes.data.curation.curation_report import printable


def test_a_name_is_one_line_in_one_direction_and_two_names_stay_two():
    assert printable("corpus/年报　（2025）.md") == "corpus/年报　（2025）.md"
    first, second = (os.fsdecode(b"corpus/" + byte + b".txt") for byte in (b"\xff", b"\xfe"))
    assert [printable(first), printable(second)] == [r"corpus/\xff.txt", r"corpus/\xfe.txt"]
    assert printable("a\n\x1b[2Jb\u202etxt.c") == r"a\n\x1b[2Jb\u202etxt.c"
