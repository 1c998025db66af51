"""Two models that vLLM would refuse, or serve wrongly, are refused before it starts."""

import dataclasses
from pathlib import Path

import pytest

from soaes.data import chat
from soaes.pipeline.store import Store
from soaes.serve import checks
from soaes.serve.pair import Model, Pair, Question
from tests.helpers.served import save_model


def pair_of(tmp_path, target=None, draft=None):
    """A pair of folders; the arguments are those of save_model."""
    models = [
        Model("target", save_model(tmp_path / "target", **(target or {}))),
        Model("draft", save_model(tmp_path / "draft", **(draft or {}))),
    ]
    store = Store(Path(tmp_path))
    return Pair(*models, 3, store, "cpu", (), "", "", Question("w1"))


def test_a_good_pair_passes(tmp_path):
    pair = pair_of(tmp_path, draft={"max_position_embeddings": 99})
    assert checks.check_pair(pair, "cpu", 1) == []
    assert checks.positions(pair) == 99
    assert checks.prompt(pair.target, "w1") == [2, 3, 6, 1, 2, 4]


QWEN_7B = {
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
}
QWEN_72B = {
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "intermediate_size": 29568,
}


@pytest.mark.parametrize(
    ("target", "draft", "devices", "message"),
    [
        ({}, {"words": 59}, 1, "different tokenizers"),
        ({"vocab_size": 80}, {"vocab_size": 96}, 1, "draft=.*: rows are added, never cut"),
        ({"hidden_size": 32}, {}, 1, "target=.* has heads of 16 units.*32, 64"),
        ({"head_dim": 16}, {}, 1, "target=.* has heads of 16 units"),
        (QWEN_72B, QWEN_7B, 8, "size 8: draft=.* has 28 heads.*cut alike, by 1, 2, 4$"),
        ({"end": "<|endoftext|>"}, {}, 1, r"with <\|im_end\|> \(1\) .* at <\|endoftext\|> \(0\)"),
        ({"template": ""}, {}, 1, "nor a chat template.*serve a chat model"),
    ],
    ids=["tokenizer", "rows", "heads", "head_dim", "tensor-parallel", "stop", "template"],
)
def test_a_bad_pair_is_refused_in_one_line(tmp_path, target, draft, devices, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_pair(pair_of(tmp_path, target, draft), "cpu", devices)
    assert "\n" not in str(error.value)


def test_a_72b_and_a_7b_are_cut_over_four_devices(tmp_path):
    assert checks.check_pair(pair_of(tmp_path, QWEN_72B, QWEN_7B), "cuda", 4) == []


def test_a_template_unlike_the_training_is_refused_of_ours_and_noted_of_a_draft(tmp_path):
    other = {"template": chat.TEMPLATE.replace("assistant\n' }}", "assistant\nw9' }}")}
    pair = pair_of(tmp_path, target=other)
    assert checks.check_pair(pair, "cpu", 1) == []  # somebody else's: what it was is not known
    trained = Model("target", pair.target.folder, "sft-0123456789ab")
    with pytest.raises(ValueError, match="chat_template.jinja writes a prompt unlike those of its"):
        checks.check_pair(dataclasses.replace(pair, target=trained), "cpu", 1)
    draft = Model("draft", pair.draft.folder, "distill-0123456789ab")
    (remark,) = checks.check_pair(dataclasses.replace(pair, draft=draft), "cpu", 1)
    assert "it may draft badly" in remark


def test_a_list_of_stop_tokens_and_a_config_alone_count(tmp_path):
    pair = pair_of(tmp_path)
    generation = pair.target.folder / "generation_config.json"
    generation.write_text('{"eos_token_id": [0, 1]}')
    checks.check_end(pair.target)
    generation.unlink()  # config.json has 1
    checks.check_end(pair.target)
