"""`python -m soaes.serve` as a user types it: a stand-in for vLLM serves, nightly vLLM itself."""

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from soaes.data import chat
from soaes.data.jsonl import write_jsonl
from soaes.decode.backends import vllm_environment
from soaes.pipeline.store import Store
from soaes.report.layout import printable
from soaes.serve import checks, draft
from soaes.serve.__main__ import answer_limit, main
from soaes.serve.command import ServerSettings
from soaes.serve.pair import Model, Pair, Question, find_pair
from tests.helpers.commands import without_torch
from tests.helpers.ports import free_port
from tests.helpers.served import VLLM, WORDS, save_store
from tests.helpers.vllm_stand_in import stand_in


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment variables with a store of two measured pairs, and the stand-in."""
    root = tmp_path_factory.mktemp("serve")
    with pytest.MonkeyPatch.context() as patch:
        save_store(root / "store", patch)
        stand_in(patch, root / "vllm", VLLM)
        yield {**os.environ, "PYTHONPATH": os.getcwd()}


def started(environment, *words, **more):
    return subprocess.Popen(
        without_torch("serve.__main__", *words),
        env=environment | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def served_until(process, line):
    """Read what a process prints up to a line that has some words."""
    read = ""
    for printed in process.stdout:
        read += printed
        if line in printed:
            return read
    raise AssertionError(read + process.stderr.read())


def test_the_fastest_pair_is_served_until_ctrl_c(environment):
    port = free_port()
    process = started(environment, *WORDS, "--port", str(port))
    printed = served_until(process, "curl")
    assert "(the fastest of 2 that were measured)" in printed and "healthy after" in printed
    assert "question  w1 w2 w3\nanswer    w3 w2 w1\nexpected  w3 w2 w1" in printed
    assert "3 tokens, 1 of 3 drafted tokens accepted" in printed
    assert re.search(r"1\.40 \[1\.\d\d, 1\.\d\d\]  n=3, temperature 1, top-p 0\.7", printed)
    assert "proof: law, the acceptance rule keeps" in printed
    command = re.search(r"command  (.*)", printed)[1]
    assert f"--port {port}" in open(command, encoding="utf-8").read()
    with socket.create_connection(("127.0.0.1", port)):
        pass
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and not errors and "it has ended" in rest
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_one_that_dies_at_its_start_is_an_error_with_its_cause(environment):
    words = [*WORDS, "--port", str(free_port())]
    process = started(environment, *words, STAND_IN="dies")
    _, errors = process.communicate(timeout=300)
    first, *last = errors.splitlines()
    assert process.returncode == 1
    assert first.startswith("error: vLLM ended with exit code 3 while it started: ValueError: no r")
    assert "See root cause above" in last[-1]


def test_the_command_alone_is_printed_and_needs_no_vllm(environment, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOAES_STORE", environment["SOAES_STORE"])
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's handlers stay
    printed = []
    for word in ("dry=true", "dry=True", "--command"):
        monkeypatch.setattr(sys, "argv", ["serve", *WORDS, word])
        main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert printed[0].startswith("#!/bin/sh\n")
    assert "\nexec python -m vllm.entrypoints.openai.api_server --model" in printed[0]
    monkeypatch.setattr(sys, "argv", ["serve", *WORDS])
    with pytest.raises(SystemExit, match="error: vLLM runs in .*`make vllm` installs it"):
        main()


def test_the_answer_has_the_room_that_the_question_leaves(environment, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", environment["SOAES_STORE"])
    pair = find_pair(WORDS, None, None)
    question = Question("w1 " * 40)
    length = len(checks.prompt(pair.target, question.text))
    assert length > 40
    settings = ServerSettings(max_model_len=length + 3)
    assert answer_limit(pair, settings, question) == 3
    with pytest.raises(ValueError, match=f"the question is {length} tokens of {length}, which"):
        answer_limit(pair, ServerSettings(max_model_len=length), question)


def test_a_draft_gets_the_rows_that_it_lacks(tmp_path, monkeypatch):
    # torch is here already, so a process of its own would only be slow
    monkeypatch.setattr(draft, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    from tests.helpers.toys import near, save_pair, toy

    save_pair(tmp_path)
    near(toy(1, vocab_size=70), 0.1).save_pretrained(tmp_path / "target")
    models = [Model(role, tmp_path / role) for role in ("target", "draft")]
    store = Store(tmp_path / "store")
    pair = Pair(*models, 3, store, "cpu", (), "", "", Question("w1"))
    folder = draft.export_draft(pair)
    assert folder == draft.draft_folder(pair) != pair.draft.folder
    assert checks.rows(Model("draft", folder)) == 70
    written = (folder / "config.json").stat().st_mtime_ns
    assert draft.export_draft(pair) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written  # found, not written again
    equal = dataclasses.replace(pair, draft=Model("draft", folder))
    assert draft.export_draft(equal) == folder


@pytest.mark.nightly
@pytest.mark.skipif(not vllm_environment.is_installed(), reason="needs `make vllm`")
def test_vllm_itself_serves_what_the_target_writes(tmp_path):
    """A random target and an unrelated draft with fewer rows: greedy text is transformers' own."""
    import torch

    from soaes.stages import prepare
    from tests.helpers.toys import near, toy

    write_jsonl(tmp_path / "documents" / "general.jsonl", [{"text": "国有企业 改革"}])
    prepare.tokenizer(tmp_path / "documents", 512, out=tmp_path / "target")
    tokenizer, end = chat.chat_tokenizer(tmp_path / "target")
    shutil.copytree(tmp_path / "target", tmp_path / "draft")
    rows = tokenizer.get_vocab_size()
    shape = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    target = toy(1, vocab_size=rows + 8, **shape)
    drafting = near(toy(1, vocab_size=rows, **shape), 0.02)
    for name, model in (("target", target), ("draft", drafting)):
        model.config.eos_token_id = model.generation_config.eos_token_id = end
        model.save_pretrained(tmp_path / name)
    python = str(vllm_environment.python())
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), vllm_environment.VLLM: python}
    words = [f"target={tmp_path / 'target'}", f"draft={tmp_path / 'draft'}"]
    words += [f"runtime.store={tmp_path / 'store'}", "--port", str(free_port())]
    process = started(environment, *words, "--question", "改革", "--max-model-len", "64")
    try:
        printed = served_until(process, "curl")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=300)
    assert process.returncode == 0
    ids = checks.prompt(Model("target", tmp_path / "target"), "改革")
    output = target.generate(torch.tensor([ids]), max_new_tokens=32, do_sample=False)
    new_ids = [token_id for token_id in output[0, len(ids) :].tolist() if token_id < rows]
    answer = re.search(r"^answer +(.*)", printed, re.MULTILINE)[1]
    assert answer[:20] == printable(tokenizer.decode(new_ids).strip())[:20]
