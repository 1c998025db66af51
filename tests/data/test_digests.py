"""A digest is of every byte of every file, and a cache never hides a change."""

import os

import pytest

from soaes.data import digests


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    (root / "a").write_bytes(bytes(range(256)) * 20)
    (root / "b").write_bytes(b"")
    return root


def chunked(root, cache=None):
    return digests.digest(root, ["a", "b"], cache, digests.chunked_sha256)


@pytest.mark.parametrize("place", [0, 1023, 1024, 5119], ids=["first", "end", "next", "last"])
def test_every_byte_of_every_chunk_counts(folder, monkeypatch, place):
    monkeypatch.setattr(digests, "CHUNK", 1024)
    monkeypatch.setattr(digests, "PIECE", 256)
    before = chunked(folder)
    content = bytearray((folder / "a").read_bytes())
    content[place] ^= 1
    (folder / "a").write_bytes(content)
    assert chunked(folder) != before
    content[place] ^= 1
    (folder / "a").write_bytes(content)
    assert chunked(folder) == before
    (folder / "a").write_bytes(content + b"\0")
    assert chunked(folder) != before


def test_order_of_chunks_and_names_count(folder, monkeypatch):
    monkeypatch.setattr(digests, "CHUNK", 1024)
    monkeypatch.setattr(digests, "PIECE", 256)
    (folder / "a").write_bytes(b"x" * 1024 + b"y" * 1024)
    before = chunked(folder)
    (folder / "a").write_bytes(b"y" * 1024 + b"x" * 1024)
    assert chunked(folder) != before
    (folder / "b").write_bytes((folder / "a").read_bytes())
    (folder / "a").write_bytes(b"")
    assert chunked(folder) != before


def test_an_unchanged_file_is_read_once(folder, tmp_path, monkeypatch):
    read = []

    def hash_file(path):
        read.append(path.name)
        return digests.sha256(path)

    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    cache = tmp_path / "cache"
    first = digests.digest(folder, ["a", "b"], cache, hash_file)
    assert digests.digest(folder, ["a", "b"], cache, hash_file) == first
    assert read == ["a", "b"]
    content = (folder / "a").read_bytes()
    other = tmp_path / "other"
    other.write_bytes(b"!" + content[1:])
    stamp = os.stat(folder / "a").st_mtime_ns
    os.utime(other, ns=(stamp, stamp))
    other.replace(folder / "a")  # the same size and time of change, another inode
    assert digests.digest(folder, ["a", "b"], cache, hash_file) != first
    assert read == ["a", "b", "a"]


def test_a_file_that_was_just_written_is_read_again(folder, tmp_path):
    read = []
    cache = tmp_path / "cache"
    for _ in range(2):
        digests.digest(folder, ["a"], cache, lambda path: read.append(path) or "digest")
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert chunked(folder, tmp_path / "file" / "cache") == chunked(folder)


def test_a_digest_of_some_files_forgets_no_others(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    read = []

    def hash_file(path):
        read.append(path.name)
        return digests.sha256(path)

    for names in (["a"], ["b"], ["a", "b"]):
        digests.digest(folder, names, tmp_path / "cache", hash_file)
    assert read == ["a", "b"]


def test_reading_gigabytes_is_announced_and_kept_when_it_is_broken_off(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    monkeypatch.setattr(digests, "LONG", 1000)
    read = []

    def hash_file(path):
        read.append(path.name)
        if read == ["a", "b"]:
            raise KeyboardInterrupt
        return digests.sha256(path)

    with pytest.raises(KeyboardInterrupt):
        digests.digest(folder, ["a", "b"], tmp_path / "cache", hash_file)
    assert "reading 0 GB for their digest" in capsys.readouterr().err
    digests.digest(folder, ["a", "b"], tmp_path / "cache", hash_file)
    assert read == ["a", "b", "b"] and not capsys.readouterr().err
