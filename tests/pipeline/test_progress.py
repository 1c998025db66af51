"""What a stage is expected to take, what is left, and the text that a terminal shows."""

import errno
import json
import os
import re

import pytest
import yaml

from soaes.pipeline import forecast, progress, tracking
from soaes.pipeline.provenance import machine
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store


def base(width, seed=0):
    return Recipe("soaes.stages.train.pretrain", {"layers": 1, "width": width, "seed": seed})


def cpt(parent, lr=0.001):
    return Recipe("soaes.stages.train.cpt", {"parent": parent, "optim": {"lr": lr}})


def evaluate(model):
    return Recipe("soaes.stages.evaluate.evaluate", {"model": model})


def named(*recipes):
    return {recipe.name: recipe for recipe in recipes}


def built(store, seconds, *recipes, where=None):
    for recipe in recipes:
        folder = store.folder(recipe.name)
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.written))
        (folder / "manifest.json").write_text(
            json.dumps({"seconds": seconds, "machine": where or machine()})
        )


def test_a_stage_is_expected_to_take_what_the_stage_most_like_it_took(tmp_path):
    store = Store(tmp_path)
    built(store, 1, base(64), base(96), cpt(base(64)))
    # another rate at the same size is more similar than the same rate at another size
    built(store, 20, cpt(base(96), lr=0.5))
    built(store, 300, cpt(base(96), lr=0.25), where="elsewhere")
    stage = cpt(base(96))
    expected = forecast.Forecast(store, named(stage))
    assert expected.seconds(stage.name) == 20
    assert not expected.is_guess(stage.name)


def test_size_is_found_through_stages_that_are_still_to_be_built(tmp_path):
    store = Store(tmp_path)
    built(store, 1, base(64), evaluate(base(64)))
    built(store, 9, base(96), evaluate(base(96)))
    model = base(96, seed=1)
    goal = evaluate(cpt(model))
    todo = named(model, cpt(model), goal)
    assert forecast.Forecast(store, todo).seconds(goal.name) == 9


def test_a_stage_like_none_before_is_a_guess_until_the_build_has_made_one(tmp_path):
    store, first, second = Store(tmp_path), cpt(base(64)), cpt(base(64), lr=0.5)
    expected = forecast.Forecast(store, named(base(64), first, second))
    assert expected.is_guess(second.name) and expected.seconds(second.name) == 0
    built(store, 30, base(64))
    expected.learn(base(64).name, 30)
    assert expected.is_guess(second.name) and expected.seconds(second.name) == 30, (
        "of the kinds that train, the nearest"
    )
    built(store, 4, first)
    expected.learn(first.name, 4)
    assert not expected.is_guess(second.name) and expected.seconds(second.name) == 4


def test_seconds_by_the_clock_count_the_process_too(tmp_path):
    store, todo = Store(tmp_path), named(base(64), base(64, seed=1))
    expected = forecast.Forecast(store, todo)
    built(store, 4, base(64))
    expected.learn(base(64).name, 6)
    assert expected.seconds(base(64, seed=1).name) == 6


def test_the_longest_way_counts_seconds_not_stages():
    long, short = base(96), base(64)
    child = cpt(short)
    grandchild = evaluate(child)
    todo = named(long, short, child, grandchild)
    seconds = {name: 100 if name == long.name else 1 for name in todo}
    path = forecast.critical_path(todo, seconds)
    assert path == {long.name: 100, short.name: 3, child.name: 2, grandchild.name: 1}


def test_what_is_left_is_the_longest_way_or_the_work_shared_and_then_what_runs_alone():
    chain = [base(64), cpt(base(64)), evaluate(cpt(base(64)))]
    others = [base(96, seed) for seed in range(3)]
    seconds = {recipe.name: 10 for recipe in chain}
    assert forecast.eta(named(*chain), seconds, [], parallel_stages=2) == 30
    seconds = {recipe.name: 10 for recipe in [*chain, *others]}
    assert forecast.eta(named(*chain, *others), seconds, [], parallel_stages=2) == 30
    assert forecast.eta(named(*chain, *others), seconds, [], parallel_stages=1) == 60
    assert forecast.eta(named(*chain, *others), seconds, ["pretrain"], parallel_stages=2) == 20 + 40
    assert forecast.eta(named(*chain), {}, [], parallel_stages=2) == 0


@pytest.mark.parametrize("steps", [250, 1171, 10_000])
def test_a_curve_tells_the_share_of_a_stage(tmp_path, steps):
    from soaes.pipeline.tracking import CURVE_POINTS

    every, path = max(1, steps // CURVE_POINTS), tmp_path / "curves.jsonl"
    assert forecast.training_progress(path, 60) is None
    done = range(every, steps // 2 + 1, every)
    lines = [
        {"step": 0, "val/perplexity": 9.0, "seconds": 1.0},
        *({"step": step, "train/loss": 1.0, "seconds": 50.0} for step in done),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    estimate = forecast.training_progress(path, 60)
    assert estimate.share == pytest.approx(0.5, rel=0.2)
    assert estimate.seconds == pytest.approx(50.0, rel=0.2)


def test_a_stage_that_went_on_from_a_checkpoint_needs_as_long_for_the_rest_as_it_took_so_far(
    tmp_path,
):
    path, todo = tmp_path / "curves.jsonl", named(base(64))
    path.write_text(
        "".join(
            json.dumps({"step": step, "train/loss": 1.0, "seconds": step / 2}) + "\n"
            for step in range(11, 560, 11)
        )
    )
    stage = forecast.running_stage(
        base(64).name, 5.0, forecast.Forecast(Store(tmp_path), todo), tmp_path
    )  # 275 s in an earlier attempt
    assert (
        stage.elapsed == 5
        and stage.share == pytest.approx(0.5, abs=0.05)
        and stage.eta == pytest.approx(275, rel=0.2)
    )


def test_what_a_stage_tells_by_itself_counts_and_is_shown(tmp_path):
    tracking.Tracker(tmp_path / "curves.jsonl").report_progress(0.25, "5/20 calls, 9 tokens")
    expected = forecast.Forecast(Store(tmp_path), named(base(64)))
    stage = forecast.running_stage(base(64).name, 10.0, expected, tmp_path)
    assert (stage.share, stage.eta) == (0.25, 30.0)
    state = progress.BoardState({}, [stage], built=0, failed=0, stages=1, eta=30.0)
    assert progress.board_lines(state, 100)[0].endswith("25%  10 s  5/20 calls, 9 tokens")


def test_a_curve_too_short_to_tell_says_nothing(tmp_path):
    path = tmp_path / "curves.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in range(1, 40))
    )
    assert forecast.training_progress(path, 60) is None


def test_the_curve_of_an_earlier_attempt_says_nothing(tmp_path):
    path = tmp_path / "curves.jsonl"
    path.write_text(
        "".join(json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in (10, 20))
    )
    os.utime(path, (0, 0))
    assert forecast.training_progress(path, 60) is None


def test_a_stage_is_never_said_to_be_over_before_it_is(tmp_path):
    store = Store(tmp_path)
    built(store, 10, base(64))
    expected, curve = forecast.Forecast(store, named(base(64, seed=1))), tmp_path / "none"
    shares = [
        forecast.running_stage(base(64, seed=1).name, elapsed, expected, curve)
        for elapsed in (0, 5, 10, 1000)
    ]
    assert [stage.share for stage in shares][:2] == [0, 0.5] and all(
        stage.share < 1 and stage.eta > 0 for stage in shares
    )


def test_a_stage_that_ended_too_early_is_reported_with_its_last_checkpoint(tmp_path):
    store, goal = Store(tmp_path), cpt(base(64))
    assert progress.checkpoint_note(store, goal) == ""
    store.unfinished(goal.name).mkdir(parents=True)
    assert progress.checkpoint_note(store, goal) == ""
    for step in ("step-00000900", "step-00001200", "making"):
        (store.unfinished(base(64).name) / "resume" / step).mkdir(parents=True)
    assert (
        progress.checkpoint_note(store, goal)
        == f"{base(64).name} has a checkpoint of step 1,200 to resume from; "
    )


STATE = progress.BoardState(
    tables={"table2": progress.TableProgress(1, 8), "table3": progress.TableProgress(9, 9)},
    running=[
        forecast.RunningStage("pretrain-0123456789ab", elapsed=41, share=0.38, eta=70),
        forecast.RunningStage("cpt-ab", elapsed=3, share=None, eta=9),
    ],
    built=3,
    failed=1,
    stages=66,
    eta=3700,
    guessed=["cpt"],
)


def test_the_board_is_a_line_for_each_table_each_stage_and_the_whole():
    assert progress.board_lines(STATE, 100) == [
        "table2                  [#.........]  1/8 rows",
        "table3                  [##########]  9/9 rows",
        "pretrain-0123456789ab   [###.......]   38%  41 s",
        "cpt-ab                  [??????????]     ?  3 s",
        "3/66 stages, 1 failed, 1 h 01 min to go; a guess for cpt",
    ]


def test_no_line_is_wider_than_the_terminal():
    assert max(len(line) for line in progress.board_lines(STATE, 30)) == 30


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3 * 3600 + 5 * 60, "3 h 05 min")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert progress.duration(seconds) == text


def test_off_a_terminal_there_are_lines_and_no_codes(capsys):
    screen = progress.Screen(live=True)  # pytest's stdout is no terminal
    screen.print("one line")
    screen.close()
    assert not screen.is_due() and capsys.readouterr().out == "one line\n"


def test_on_a_terminal_the_board_is_taken_back_before_every_line(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    screen = progress.Screen(live=True)
    screen.draw(STATE)
    screen.print("one line")
    screen.close()
    assert shown(capsys.readouterr().out) == ["one line", ""]


def test_a_board_taller_than_the_terminal_keeps_its_end(capsys, monkeypatch):
    monkeypatch.setenv("LINES", "3")
    progress.Screen(live=True).draw(STATE)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and printed[-1].startswith("3/66 stages")


def shown(written):
    """What a terminal shows after a text that uses `\\r`, lines up, and clear all below."""
    lines = [""]
    for part in re.split(r"(\r\x1b\[\d+A\x1b\[J|\n)", written):
        if part.startswith("\r"):
            lines = [*lines[: -1 - int(re.search(r"\d+", part)[0])], ""]
        elif part == "\n":
            lines.append("")
        else:
            lines[-1] += part
    return lines


def failed(store, recipe, reason):
    store.unfinished(recipe.name).mkdir(parents=True)
    (store.unfinished(recipe.name) / "reason.txt").write_text(reason)


def test_a_sweep_that_is_resumed_says_how_far_it_came(tmp_path):
    store, goals = Store(tmp_path), [evaluate(cpt(base(64), lr=lr)) for lr in (0.1, 0.2, 0.3, 0.4)]
    assert progress.resuming_line(store, goals) == "", "all is to run"
    built(store, 1, goals[0])
    assert progress.resuming_line(store, goals) == "1 of 4 rows done, 3 to run"
    failed(store, goals[1].parents["model"], "ValueError: out of memory")
    failed(store, goals[2], "KeyboardInterrupt:")
    failed(store, goals[3], "SIGTERMException:")
    assert progress.resuming_line(store, goals) == (
        "1 of 4 rows done, 1 failed (ValueError: out of memory), 2 to run"
    )
    built(store, 1, *goals[1:])
    assert progress.resuming_line(store, goals) == "4 of 4 rows done"


def test_what_was_dropped_or_cut_is_in_the_line_of_a_stage():
    metrics = {"rouge1": 1.0, "rouge2": 2.0, "scoring": {}, "rougeL": 3.0, "bleu4": 4.0}
    counts = {"num_cut": 12, "num_skipped": 0, "qa_num_cut": 12}
    assert progress.headline(metrics | counts) == "rouge1 1  rouge2 2  rougeL 3  num_cut 12"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        pytest.param(ValueError("seed=x: a number"), "error: seed=x: a number", id="value"),
        pytest.param(
            OSError(errno.ENOSPC, "No space left on device", "/tables/report.html"),
            "error: /tables/report.html: No space left on device",
            id="full-disk",
        ),
        pytest.param(OSError("gone"), "error: gone", id="no-number"),
        pytest.param(KeyboardInterrupt(), 130, id="ctrl-c"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, exit_code):
    with pytest.raises(SystemExit) as ended, progress.one_line_errors():
        raise error
    assert ended.value.code == exit_code


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(AssertionError), progress.one_line_errors():
        raise AssertionError
