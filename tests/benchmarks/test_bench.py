"""The benchmark of decoding on toys: ratios of planted timings, prompts by kind, the format."""

import json
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import decode, prompts, race_results
from benchmarks.machine_limit import lies_in, read_rate
from benchmarks.prompts import BenchmarkPrompt
from benchmarks.race import PLAIN, Race, Weighed
from benchmarks.rounds import Field, markdown, met, row, spread, write
from soaes.decode import costs
from soaes.decode.verify import verify_block
from tests.helpers.toys import save_pair

KEYS = ["name", "unit", "median", "low", "high", "rounds", "target", "better", "limit"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A target, a draft and some documents as folders."""
    root = tmp_path_factory.mktemp("bench")
    core = save_pair(root)
    samples = [
        *(sample("qa", index) for index in range(30)),
        *(sample("report", index) for index in range(8)),
    ]
    (root / "qa" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    return SimpleNamespace(
        target=root / "target", draft=root / "draft", documents=root, tokenizer=core, eos=1
    )


def sample(task, index):
    asked, answer = (
        {"role": "user", "content": f"w{index} w9"},
        {"role": "assistant", "content": f"w{index} w5 w6 w7 w8"},
    )
    return {"id": f"{task}-{index}", "task": task, "messages": [asked, answer]}


def planted(taken):
    prompts = [BenchmarkPrompt([], 1, kind) for kind in ("qa", "report")]
    field = Field(dict.fromkeys(taken), prompts)
    field.timings = taken
    return field


def test_a_ratio_is_taken_within_a_round():
    """Twice as fast in every round, though rounds differ tenfold; by kind of prompt as well.

    Tokens count, not texts.
    """
    slow = [[(1.0, 10), (3.0, 30)], [(10.0, 10), (30.0, 30)]]
    fast = [[(0.5, 10), (1.5, 30)], [(5.0, 10), (15.0, 30)]]
    longer = [[(1.0, 20), (3.0, 30)], [(10.0, 20), (30.0, 30)]]
    field = planted({"slow": slow, "fast": fast, "longer": longer})
    assert field.ratios("fast", "slow") == [2, 2] and field.ratios(
        "slow", "fast", field.of_kind("report")
    ) == [0.5, 0.5]
    assert field.ratios("longer", "slow", field.of_kind("qa")) == [2, 2] and field.ratios(
        "longer", "slow"
    ) == [1.25, 1.25]


@pytest.mark.parametrize(
    "count, low, high", [(1, 1, 1), (3, 1, 3), (5, 1, 5), (8, 2, 7), (9, 2, 8), (20, 6, 15)]
)
def test_the_interval_of_a_median(count, low, high):
    """Binomial tables: the 6th and 15th of 20 enclose the median with .959.

    The 7th and 14th do so with .885; of 8, the 2nd and 7th with .930.
    """
    middle, least, greatest = spread([*range(count, 0, -1)])
    assert (least, greatest) == (low, high) and middle == (count + 1) / 2


def test_one_disturbed_round_does_not_move_the_median():
    assert spread([2.0, 2.1, 1.9, 2.0, 9.0])[0] == 2.0


def test_a_target_is_met_by_the_whole_interval():
    words = {"yes": [1.9, 2.0, 2.1], "median": [1.7, 2.0, 2.1], "NO": [1.6, 1.7, 2.1]}
    for word, values in words.items():
        assert met(row("x", "ratio", values, target=1.8)) == word
        assert (
            met(row("x", "ms", [-value for value in values], target=-1.8, better="lower")) == word
        )
    assert met(row("x", "ratio", [1.0])) == ""


class Still:
    """A contender that writes down when it is asked."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def generate(self, ids, max_new_tokens, generator):
        self.log.append((self.name, generator.initial_seed()))
        return SimpleNamespace(tokens=ids[:max_new_tokens])


def test_contenders_take_turns_with_one_seed():
    log = []
    field = Field(
        {name: Still(name, log) for name in "abc"}, [BenchmarkPrompt([1, 2], 2, "qa")] * 4
    )
    for number in range(3):
        field.run(number, counted=number > 0)
    turns = [log[start : start + 3] for start in range(0, len(log), 3)]
    assert len(turns) == 12 and all(
        {name for name, _ in turn} == set("abc") and len({seed for _, seed in turn}) == 1
        for turn in turns
    )
    assert (
        len({tuple(name for name, _ in turn) for turn in turns}) > 2
        and len({turn[0][1] for turn in turns}) == 12
    )
    assert all(
        len(rounds) == 2 and [len(timings) for timings in rounds] == [4, 4]
        for rounds in field.timings.values()
    )


def test_the_whole_race_on_toys(world, tmp_path, monkeypatch):
    """Every row has the format, and greedy rows their proof.

    A decoder that writes other tokens stops the table.
    """
    monkeypatch.setattr(costs, "TURNS", 2)
    monkeypatch.setattr(costs, "REPEATS", 1)
    core = world.tokenizer
    asked = [
        replace(prompts._prompt(core, kind, "w1 w2 w3"), max_new_tokens=6)
        for kind in ("qa", "report", "copy")
    ]
    with ExitStack() as opened:
        race = Race(
            opened,
            world.target,
            world.draft,
            world.eos,
            asked,
            shapes={"target": (2, 128), "draft": (1, 128)},
        )
        race.run(1, counted=True)
        results = race_results.results(race)
        race.fields["greedy"].generations["speculation n=4"][0][1].tokens[-1] += 1
        with pytest.raises(
            ValueError,
            match=r"speculation n=4 wrote other greedy tokens than autoregression on prompts \[1\]",
        ):
            race_results.results(race)
    assert all(
        list(result) == KEYS
        and result["low"] <= result["median"] <= result["high"]
        and result["median"] > 0
        for result in results
    )
    names = [result["name"] for result in results]
    assert len(set(names)) == len(names) and race.fields["transformers"].prompts == asked[:2]
    speculation = [
        name
        for name in names
        if name.startswith("speculation n=") and name.endswith("autoregression, greedy")
    ]
    assert speculation == [f"speculation n={n} / autoregression, greedy" for n in range(1, 9)]
    gains = [name for name in names if name.endswith("/ batch 1")]
    assert gains == [
        f"{name}, batch {batch} / batch 1"
        for name in (PLAIN, "speculation n=3")
        for batch in (2, 4, 8)
    ]
    assert all(len(rounds) == 1 for rounds in race.batches.rounds.values())
    assert {
        f"adaptive lookup / {PLAIN}, {kind} prompts, top-p .7" for kind in ("qa", "report", "copy")
    } < set(names)
    write(tmp_path / "results" / "decode.json", results, commit="c", machine="m", versions={})
    written = json.loads((tmp_path / "results" / "decode.json").read_text())
    assert written["results"] == results and written["machine"] == "m"
    assert len(markdown(results).splitlines()) == len(results) + 2


def test_what_block_and_rejection_expect_of_the_same_drafts():
    """p = (.5, .5), q = (.9, .1), twice the likely token.

    Rejection passes tests with 5/9 each; block by enumeration of Algorithm 2.
    """
    p_rows, q_rows = (
        torch.tensor([[0.5, 0.5]] * 3).double(),
        torch.tensor([[0.9, 0.1]] * 2).double(),
    )
    weighed = Weighed()
    verify_block(weighed.rule, p_rows, q_rows, [0, 0], torch.Generator())
    pass_probs = (5 / 9, 25 / 81)
    residual = max(0, pass_probs[0] * 0.5 - 0.9) + max(0, pass_probs[0] * 0.5 - 0.1)
    first = residual / (residual + 1 - pass_probs[0])
    assert weighed.ratio() == pytest.approx(
        (1 + pass_probs[1] + 1 - (1 - first) * (1 - pass_probs[1])) / (1 + 5 / 9 + 25 / 81)
    )


def test_prompts_of_the_world(world):
    world_prompts = prompts.of_world(world.documents, world.tokenizer, positions=500)
    assert {
        kind: sum(prompt.kind == kind for prompt in world_prompts) for kind in prompts.COUNTS
    } == prompts.COUNTS
    copy = world.tokenizer.decode(world_prompts[-1].ids, skip_special_tokens=False).split()
    assert (copy.count("w9"), copy.count("w5"), copy[-1]) == (
        2,
        1,
        "assistant",
    )  # asked twice, answered once


def test_prompts_of_a_file(world, tmp_path):
    lines = [
        '{"turns": ["w1", "w2"], "category": "math"}',
        '{"prompt": "w3"}',
        "",
        '{"prompt": "w4"}',
        '{"prompt": "w5"}',
    ]
    (path := tmp_path / "some.jsonl").write_text("\n".join(lines))
    file_prompts = prompts.of_file(path, world.tokenizer, positions=100, per_kind=2)
    assert [prompt.kind for prompt in file_prompts] == ["math", "prompt", "prompt"]
    assert (
        world.tokenizer.token_to_id("w1") in file_prompts[0].ids
        and world.tokenizer.token_to_id("w2") not in file_prompts[0].ids
    )
    with pytest.raises(ValueError, match="of 4 prompts none fits 60 positions with 64 new tokens"):
        prompts.of_file(path, world.tokenizer, positions=60, per_kind=2)
    for text in ('{"prompt": ', '{"question": "w1"}', '{"turns": []}', '["w1"]'):
        path.write_text('{"prompt": "w3"}\n' + text)
        with pytest.raises(ValueError, match="some.jsonl, line 2: neither"):
            prompts.of_file(path, world.tokenizer, positions=100, per_kind=2)


def test_the_command_line_refuses(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    refusals = {
        "rounds=4": "rounds=4: a whole number from 5 on",
        "round=5": "round=5: give models=",
        "models=a": "models=a: give two folders",
        "prompts=none": "run `python -m soaes.run scale=tiny goal=distill` first",
    }
    for words, message in refusals.items():
        with pytest.raises(ValueError, match=message):
            decode.main([words])


def test_a_rate_is_read_from_where_the_bytes_lie():
    assert 1e8 < read_rate(1 << 22) < 1e13
    assert lies_in(40e9, 20e9) == "cache" and lies_in(21e9, 20e9) == lies_in(18e9, 20e9) == "memory"
