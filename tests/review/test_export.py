"""Export, import, export: the same bytes; and where nothing may be written."""

import pytest

from soaes.data.annotation.item import ITEMS, read_export
from soaes.pipeline.store import read_json
from soaes.review import __main__ as command
from soaes.review.database import Database
from tests.helpers.reviews import decision, label_item, pair_item, toy_items, write_data


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data", [*toy_items(30), label_item(), pair_item()])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command line in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run_words(*words):
        monkeypatch.setattr("sys.argv", ["review", *map(str, words)])
        command.main()

    return run_words


def test_an_export_that_is_imported_exports_the_same_bytes(data, run, tmp_path):
    run(data, "--export", "first", "--twice", "0.4", "--limit", "0.3")
    database = Database(tmp_path / "reviews" / "data.sqlite")
    database.register(("li", "wang"))
    for person, verdict in (("li", "accept"), ("wang", "reject")):
        for _ in range(12):
            work = database.next(person)
            is_label = work.item["kind"] != "qa"
            database.decide(person, decision(work, "no" if is_label else verdict))
    work = database.next("li")
    database.decide("li", decision(work, "edit", answer="改\u2028后的回答 𠮷"))
    database.close()
    run(data, "--export", "second")
    run("second", "--export", "third")
    names = sorted(path.name for path in (tmp_path / "second").iterdir())
    assert names == ["account.json", "decisions.jsonl", "items.jsonl", "review.json"]
    for name in names:
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "third" / name).read_bytes()
    assert len(read_export(tmp_path / "third").decisions) == 25
    review = read_json(tmp_path / "third" / "review.json")
    assert review["settings"] == {"twice": 0.4, "limit": 0.3}
    assert review["sampling"][0]["confidence"] == 0.95


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("annotation", ["1 of the items are of kind near_duplicate", "below labels/"]),
        ("labels", ["30 of the items are of kind qa", "below pairs/"]),
        ("elsewhere", []),
    ],
)
def test_an_export_says_which_items_are_not_read_where_it_lies(data, run, capsys, place, said):
    run(data, "--export", f"root/{place}/first")
    lines = capsys.readouterr().out.split("items,")[1]
    assert lines.count("nobody reads here") == len(said)
    assert all(words in lines for words in said)


def test_a_person_who_decided_twice_comes_back_twice(data, run, tmp_path):
    run(data, "--export", "first", "--twice", "1")
    database = Database(tmp_path / "reviews" / "data.sqlite")
    database.register(("li",))
    decide_all_questions(database)
    count = len(database.decisions())
    database.close()
    run(data, "--export", "second")
    run("second", "--export", "third", "--database", "new.sqlite")
    second, third = (tmp_path / name / "decisions.jsonl" for name in ("second", "third"))
    assert second.read_bytes() == third.read_bytes()
    assert len(read_export(tmp_path / "third").decisions) == count > 12


def decide_all_questions(database):
    while (work := database.next("li")) and work.item["kind"] == "qa":
        database.decide("li", decision(work))
    while work := database.next("li"):
        database.decide("li", decision(work, "yes" if work.item["kind"] != "qa" else "accept"))


def test_an_import_that_contradicts_what_is_here_is_refused(data, run, tmp_path):
    run(data, "--export", "empty", "--limit", "0")
    database = Database(tmp_path / "reviews" / "data.sqlite")
    database.register(("li",))
    work = database.next("li")
    database.decide("li", decision(work))
    database.close()
    run(data, "--export", "second")
    database = Database(tmp_path / "reviews" / "data.sqlite")
    database.decide("li", decision(database.assignment(work.item["id"], "li", False), "reject"))
    database.close()
    with pytest.raises(SystemExit, match="differently"):
        run("second", "--database", "reviews/data.sqlite", "--export", "third")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--database", "data/a.sqlite"), id="database in DATA"),
        pytest.param(("--export", "data/out"), id="export in DATA"),
    ],
)
def test_nothing_is_written_into_the_data(data, run, words):
    before = sorted(data.rglob("*"))
    with pytest.raises(SystemExit, match="another place"):
        run(data, *words)
    assert sorted(data.rglob("*")) == before


def test_nothing_is_written_into_a_store(data, run, tmp_path):
    (data / "manifest.json").write_text("{}")
    with pytest.raises(SystemExit, match="--database"):
        run(data, "--database", tmp_path / "a.sqlite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, ITEMS, id="no items"),
        pytest.param("", "nothing to review", id="no item"),
        pytest.param("{\n", "items.jsonl:1", id="broken line"),
    ],
)
def test_data_that_cannot_be_read_is_one_line(run, tmp_path, content, message):
    folder = tmp_path / "other"
    folder.mkdir()
    if content is not None:
        (folder / ITEMS).write_text(content)
    with pytest.raises(SystemExit, match=message):
        run(folder, "--export", "out")


def test_an_export_of_another_review_is_not_written_over(data, run, tmp_path):
    run(data, "--export", "first")
    database = Database(tmp_path / "reviews" / "data.sqlite")
    database.register(("li",))
    database.decide("li", decision(database.next("li")))
    database.close()
    run(data, "--export", "mine")
    before = (tmp_path / "mine" / "decisions.jsonl").read_bytes()
    with pytest.raises(SystemExit, match="1 decisions in it are not in .*--database FILE"):
        run(data, "--database", "empty.sqlite", "--export", "mine")
    run(data, "--export", "mine")
    assert before and (tmp_path / "mine" / "decisions.jsonl").read_bytes() == before
