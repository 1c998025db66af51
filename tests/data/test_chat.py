"""Laws of ChatML and of tokenizers: what is served is what was trained on, id for id."""

import json
import shutil

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from soaes.data import chat
from soaes.data.jsonl import write_jsonl
from soaes.data.settings import PackingSettings
from soaes.stages import prepare

CONTENTS = ["你好", " \n\n你好\n", "\u3000\u3000第一条。\n\n第二条。 ", "\nwhat\n\n", "3.14\r\n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer of ChatML."""
    root = tmp_path_factory.mktemp("chat")
    texts = [{"id": f"t{i}", "text": f"第{i}条。\n\n企业{i}主营钢铁。\n"} for i in range(40)]
    for name in ("general", "corpus"):
        write_jsonl(root / "documents" / f"{name}.jsonl", texts)
    messages = [{"role": "user", "content": "\n\n何处？"}, {"role": "assistant", "content": "此处"}]
    for name in ("dialogue", "qa/train"):
        write_jsonl(root / "documents" / f"{name}.jsonl", [{"messages": messages}])
    prepare.tokenizer(root / "documents", 600, out=root / "tokenizer")
    return root / "tokenizer"


@pytest.mark.parametrize("content", CONTENTS, ids=repr)
def test_a_served_prompt_is_the_training_prompt_whatever_white_space_there_is(folder, content):
    messages = [
        {"role": "system", "content": content},
        {"role": "user", "content": content},
        {"role": "assistant", "content": content},
        {"role": "user", "content": content},
    ]
    template = AutoTokenizer.from_pretrained(folder)
    served = template.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert served == chat.prompt(chat.load_tokenizer(folder), messages)


def resaved(folder, out, change=None):
    """The same tokenizer, with its file written in another way."""
    out.mkdir()
    state = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    merges = state["model"]["merges"]
    state["model"]["merges"] = [" ".join(pair) for pair in merges]  # as older versions wrote them
    if change is not None:
        change(state)
    (out / "tokenizer.json").write_text(json.dumps(state, sort_keys=True, indent=3))
    return out


def test_a_tokenizer_that_is_saved_again_is_the_same_one(folder, tmp_path):
    digest = chat.tokenizer_digest(folder)
    assert chat.tokenizer_digest(resaved(folder, tmp_path / "written")) == digest
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "transformers")
    assert chat.tokenizer_digest(tmp_path / "transformers") == digest
    texts = [(path / "tokenizer.json").read_bytes() for path in (folder, tmp_path / "written")]
    assert texts[0] != texts[1]


def swap_two_ids(state):
    vocabulary = state["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]


def drop_a_merge(state):
    state["model"]["merges"].pop()


def an_end_that_is_a_word(state):
    for token in state["added_tokens"]:
        token["special"] = token["special"] and token["content"] != chat.END


@pytest.mark.parametrize("change", [swap_two_ids, drop_a_merge, an_end_that_is_a_word])
def test_ids_that_mean_something_else_are_another_tokenizer(folder, tmp_path, change):
    assert chat.tokenizer_digest(resaved(folder, tmp_path / "other", change)) != (
        chat.tokenizer_digest(folder)
    )


def test_a_tokenizer_that_joins_pieces_of_a_conversation_is_refused(folder, tmp_path):
    """With a space before every text, pieces of a conversation are not those of the whole."""
    state = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    state["normalizer"] = {"type": "Prepend", "prepend": " "}
    shutil.copytree(folder, tmp_path / "prefixed")
    (tmp_path / "prefixed" / "tokenizer.json").write_text(json.dumps(state))
    words = chat.load_tokenizer(tmp_path / "prefixed")
    with pytest.raises(ValueError, match="other tokens when it is served .* take a tokenizer"):
        chat.check_format(words)
    with pytest.raises(ValueError, match="other tokens when it is served"):
        prepare.pack(
            folder.parent / "documents",
            tmp_path / "prefixed",
            ["corpus"],
            None,
            64,
            PackingSettings(),
            out=tmp_path / "rows",
        )
    chat.check_format(chat.load_tokenizer(folder))


def test_a_tokenizer_without_chatml_is_refused_by_name(folder):
    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    state = json.loads(words.to_str())
    state["added_tokens"] = [
        token for token in state["added_tokens"] if token["content"] != chat.START
    ]
    del state["model"]["vocab"][chat.START]
    without = Tokenizer.from_str(json.dumps(state))
    with pytest.raises(ValueError, match=r"no <\|im_start\|>"):
        chat.check_format(without)
    without.add_special_tokens([AddedToken(chat.START, special=True)])
    chat.check_format(without)
