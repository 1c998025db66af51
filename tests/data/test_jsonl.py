"""JSON lines are read back as written, and a damaged file is named."""

import pytest

from soaes.data.jsonl import read_jsonl, write_jsonl


def test_what_is_written_is_read(tmp_path):
    records = [{"text": "国资委\u2028"}, {"text": ""}]
    write_jsonl(tmp_path / "rows.jsonl", records)
    assert read_jsonl(tmp_path / "rows.jsonl") == records
    assert read_jsonl(tmp_path / "absent.jsonl") == []


def test_a_file_that_ends_in_the_middle_is_named(tmp_path):
    path = tmp_path / "predictions.jsonl"
    write_jsonl(path, [{"prediction": "国资委"}])
    whole = path.read_bytes()
    for length in (len(whole) - 3, len(whole) - 6):  # within the line, within a character
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            read_jsonl(path)
