"""Results travel without models: what was packed is read elsewhere as the same table."""

import io
import json
import lzma
import tarfile

import pytest
import yaml

from soaes import archive, run
from soaes.pipeline.store import RESULTS_ONLY, Store
from soaes.report import results

WORDS = ["scale=smoke", "logger=none"]
FACTS = {"files": {}, "seconds": 1.0, "made": "now", "commit": "a", "source": "b", "machine": "c"}


@pytest.fixture(scope="module", autouse=True)
def one_table():
    """Table 1 stands for all: composing them takes half a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive.table_spec, "table_names", lambda: ["table1"])
        yield


def words_at(store):
    return [*WORDS, f"runtime.store={store}"]


def write_stage(store, recipe, value=60.0):
    """A stage as it is found in a store, of a model with its weights."""
    folder = store / recipe.name
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.written))
    (folder / "manifest.json").write_text(json.dumps(FACTS))
    (folder / "metrics.json").write_text(json.dumps({"cmmlu": value, "ceval": value}))
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture(scope="module")
def goals(tmp_path_factory):
    return list(archive._goals(words_at(tmp_path_factory.mktemp("none"))).values())


def store_of(folder, goals, value=60.0):
    for recipe in {name: each for goal in goals for name, each in goal.ancestry().items()}.values():
        write_stage(folder, recipe, value)
    return folder


def packed(folder, goals, value=60.0):
    out = folder.with_suffix(".tar.xz")
    archive.pack(words_at(store_of(folder, goals, value)), out)
    return out


def test_a_table_of_two_machines_is_one_table(tmp_path, goals, capsys):
    half = len(goals) // 2
    ours, theirs = packed(tmp_path / "a", goals[:half]), packed(tmp_path / "b", goals[half:])
    said = archive.unpack([ours, theirs], tmp_path / "together")
    assert ", " in said and "other results" not in said
    assert not list((tmp_path / "together").rglob("*.safetensors"))
    whole = results.read_table("table1", words_at(store_of(tmp_path / "whole", goals)))
    table = results.read_table("table1", words_at(tmp_path / "together"))
    assert {key: row.values for key, row in table.rows.items()} == {
        key: row.values for key, row in whole.rows.items()
    }
    assert not any(row.missing == "not built" for row in table.rows.values())


def test_equal_results_are_equal_bytes_and_unpacked_ones_are_packed_again(tmp_path, goals):
    first = packed(tmp_path / "a", goals)
    archive.unpack([first], tmp_path / "unpacked")
    line = archive.pack(words_at(tmp_path / "unpacked"), tmp_path / "again.tar.xz")
    assert (tmp_path / "again.tar.xz").read_bytes() == first.read_bytes()
    assert f"{len(goals)} of {len(goals)} rows" in line


def test_of_a_recipe_that_was_built_twice_the_first_result_counts_and_it_is_said(tmp_path, goals):
    one, other = packed(tmp_path / "a", goals), packed(tmp_path / "b", goals, value=61.0)
    archive.unpack([one], tmp_path / "together")
    said = archive.unpack([one, other], tmp_path / "together")
    num_stages = len(Store(tmp_path / "together").all_names())
    assert f"0 stages, {2 * num_stages} were there; {num_stages} of them with other results" in said
    metrics = Store(tmp_path / "together").metrics(goals[0].name)
    assert metrics["cmmlu"] == 60.0


def test_nothing_is_built_among_results_and_nothing_unpacked_among_stages(tmp_path, goals):
    one = packed(tmp_path / "a", goals[:1])
    archive.unpack([one], tmp_path / "together")
    with pytest.raises(ValueError, match="results without models.*set runtime.store"):
        run.run(["goal=tokenizer", *words_at(tmp_path / "together")])
    with pytest.raises(ValueError, match="stages were built in it"):
        archive.unpack([one], tmp_path / "a")
    assert not (tmp_path / "a" / RESULTS_ONLY).exists()


def test_what_is_no_archive_is_named_and_leaves_nothing(tmp_path, goals):
    whole = packed(tmp_path / "a", goals[:1]).read_bytes()
    cut, text = tmp_path / "cut.tar.xz", tmp_path / "text.tar.xz"
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("results")
    for path in (cut, text):
        with pytest.raises(ValueError, match=rf"{path.name}: no archive that soaes.archive wrote"):
            archive.unpack([path], tmp_path / "into")
    for name, kind in (
        ("../evaluate-0123456789ab/metrics.json", tarfile.REGTYPE),
        ("evaluate-0123456789ab/model.safetensors", tarfile.REGTYPE),
        ("evaluate-0123456789ab/metrics.json", tarfile.SYMTYPE),
    ):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as made:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            made.addfile(entry)
        text.write_bytes(lzma.compress(content.getvalue()))
        with pytest.raises(ValueError, match="is no result of a stage; nothing of it is kept"):
            archive.unpack([text], tmp_path / "into")
    assert [path.name for path in (tmp_path / "into").iterdir()] == [RESULTS_ONLY]
    with pytest.raises(ValueError, match="gone.tar.xz: there is no such file"):
        archive.unpack([tmp_path / "gone.tar.xz"], tmp_path / "into")


def test_an_empty_store_has_nothing_to_pack(tmp_path):
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match="no row of any table is built"):
        archive.pack(words_at(tmp_path / "store"), tmp_path / "out.tar.xz")
    assert not (tmp_path / "out.tar.xz").exists()
