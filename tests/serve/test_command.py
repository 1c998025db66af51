"""vLLM's command is complete, and a shell reads it as it is meant."""

import json
import os
import shlex
import subprocess

import pytest

from soaes.decode.backends import vllm_environment
from soaes.serve.command import ServerSettings, device, script
from tests.helpers.vllm_stand_in import stand_in
from tests.serve.test_checks import pair_of


def words_of(text):
    """The words that a shell passes on, without the assignments before them."""
    command = text[text.index("exec ") :].replace("\\\n", " ")
    return shlex.split(command)[1:]


def speculation(words):
    return json.loads(words[words.index("--speculative-config") + 1])


def test_on_a_cpu_it_is_greedy_and_nothing_else(tmp_path, monkeypatch):
    python = stand_in(monkeypatch, tmp_path / "vllm")
    pair = pair_of(tmp_path / "it's a store")
    runs_on = device("cuda")
    text = script(pair, pair.draft.folder, ServerSettings(), runs_on, ["one", "two"])
    words = words_of(text)
    assert runs_on == "cpu" and text.startswith("#!/bin/sh\n# one\n# two\n")
    assert words[:2] == [str(python), "-m"]
    assert words[words.index("--model") + 1] == str(pair.target.folder)
    assert words[words.index("--dtype") + 1] == "float32"
    assert words[words.index("--max-model-len") + 1] == "128"
    assert json.loads(words[words.index("--override-generation-config") + 1]) == {"temperature": 0}
    config = speculation(words)
    assert config == {
        "method": "draft_model",
        "model": str(pair.draft.folder),
        "num_speculative_tokens": 3,
        "draft_sample_method": "greedy",
    }
    module = words[words.index("--middleware") + 1].partition(".")[0]
    imported = [str(python), "-c", f"import {module}; {module}.greedy_only"]
    lines = [line for line in text.splitlines() if line.startswith("export")]
    shell = "; ".join([*lines, f"exec {shlex.join(imported)}"])
    assert subprocess.run(["sh", "-c", shell], cwd=tmp_path, env=os.environ).returncode == 0


def test_on_gpus_both_models_are_cut_alike_and_drafts_are_sampled(tmp_path, monkeypatch):
    python = stand_in(monkeypatch, tmp_path / "vllm", distribution="vllm-0.32.0")
    pair = pair_of(tmp_path)
    settings = ServerSettings(tensor_parallel_size=2, max_model_len=64, more=("--seed", "1"))
    words = words_of(script(pair, tmp_path / "wider", settings, device("cpu")))
    assert words[:3] == [str(python.with_name("vllm")), "serve", str(pair.target.folder)]
    assert words[-2:] == ["--seed", "1"] and "--middleware" not in words
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    config = speculation(words)
    assert config["draft_tensor_parallel_size"] == 2
    assert config["draft_sample_method"] == "probabilistic"
    assert config["model"] == str(tmp_path / "wider")


def test_without_vllm_it_is_the_one_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    pair = pair_of(tmp_path)
    assert device("cuda:1") == "cuda"
    words = words_of(script(pair, pair.draft.folder, ServerSettings(), "cuda"))
    assert words[:2] == ["vllm", "serve"]
    words = words_of(script(pair, pair.draft.folder, ServerSettings(), "cpu"))
    assert words[:3] == ["python", "-m", "vllm.entrypoints.openai.api_server"]


def test_settings_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--port=70000: must lie in"):
        ServerSettings(port=70000)
    pair = pair_of(tmp_path)
    with pytest.raises(ValueError, match="--max-model-len 129: the pair has 128 positions"):
        script(pair, pair.draft.folder, ServerSettings(max_model_len=129), "cuda")
    assert ServerSettings(host="0.0.0.0").url == "http://127.0.0.1:8000"
    assert ServerSettings(host="::1").url == "http://[::1]:8000"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--port=9000", "--port is an option of soaes.serve; give it before the --"),
        ("--max_model_len", "--max-model-len is an option of soaes.serve"),
        ("-tp", "--tensor-parallel-size is an option of soaes.serve"),
        ("--served-model-name", "follows from the pair; leave it out, or .* --command"),
    ],
)
def test_words_for_vllm_do_not_contradict_what_was_checked(word, message):
    with pytest.raises(ValueError, match=message):
        ServerSettings(more=("--seed", "1", word))
