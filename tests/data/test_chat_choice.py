"""A model's own chat template trains as transformers serves it, or is refused by name."""

import json

import pytest
from transformers import AutoTokenizer

from soaes.data import chat, chat_choice, chat_template
from soaes.data.chat import SAMPLE
from tests.helpers.models import (
    CHATML_TOKENS,
    LLAMA3_TEMPLATE,
    LLAMA3_TOKENS,
    save_llama3_tokenizer,
    save_tokenizer,
)

END_OF_TEXT, BEGIN, HEADER, _, END = LLAMA3_TOKENS


@pytest.fixture
def llama(tmp_path):
    folder = save_llama3_tokenizer(tmp_path / "llama")
    chat_choice.write_format(folder, "auto")
    return folder


def served(folder, messages, **options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, **options)["input_ids"]


def test_a_conversation_is_trained_as_it_is_served(llama):
    tokenizer = chat.load_tokenizer(llama)
    ids_T, bears_loss_T = chat.encode(tokenizer, SAMPLE)
    assert ids_T.tolist() == served(llama, SAMPLE)
    for count in (1, 3):
        ids = chat.prompt(tokenizer, SAMPLE[:count])
        assert ids == served(llama, SAMPLE[:count], add_generation_prompt=True)
        assert ids_T[: len(ids)].tolist() == ids
    answers = tokenizer.decode(ids_T[bears_loss_T].tolist(), skip_special_tokens=False)
    assert answers == f"b 乙\nc{END}丁{END}"
    assert tokenizer.decode(chat.answer(tokenizer, SAMPLE), skip_special_tokens=False) == f"丁{END}"
    silent = [SAMPLE[0], SAMPLE[1] | {"loss": False}, *SAMPLE[2:]]
    _, bears_loss_T = chat.encode(tokenizer, silent)
    assert bears_loss_T.sum() == len(chat.answer(tokenizer, SAMPLE))


def test_the_tokens_of_a_format_are_read_from_the_folder(llama):
    found = chat.load_tokenizer(llama).chat_format
    assert (found.start, found.end, found.text_end) == (HEADER, END, END_OF_TEXT)
    assert found.text_start == BEGIN and found.template == LLAMA3_TEMPLATE
    tokenizer, eos = chat.chat_tokenizer(llama)
    assert tokenizer.id_to_token(eos) == END
    (ids_T,) = chat.document(tokenizer, ["a"])
    assert tokenizer.decode(ids_T.tolist(), skip_special_tokens=False) == f"{BEGIN}a{END_OF_TEXT}"
    assert chat_choice.find_format(llama, "own") == found  # also once eos_token is another
    path = llama / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": END}))
    assert chat_choice.find_format(llama, "auto") == found


def test_chatml_by_its_template_is_chatml(tmp_path):
    """Cut by the template, a conversation has the ids and the loss of our own encoding."""
    folder = save_tokenizer(tmp_path / "chatml")
    assert chat_choice.find_format(folder, "auto") == chat.CHATML
    chat_choice.write_format(folder, "auto")
    assert not (folder / chat.FORMAT).exists()
    plain, digest = chat.load_tokenizer(folder), chat.tokenizer_digest(folder)
    chat_choice.write_format(folder, "own")
    own = chat.load_tokenizer(folder)
    assert own.chat_format.template and (own.chat_format.start, own.chat_format.end) == (
        chat.START,
        chat.END,
    )
    for ours, theirs in zip(chat.encode(plain, SAMPLE), chat.encode(own, SAMPLE), strict=True):
        assert ours.tolist() == theirs.tolist()
    assert chat.prompt(plain, SAMPLE[:3]) == chat.prompt(own, SAMPLE[:3])
    assert chat.answer(plain, SAMPLE) == chat.answer(own, SAMPLE)
    assert chat.tokenizer_digest(folder) != digest, "rows of one format are not rows of the other"


REWRITES = LLAMA3_TEMPLATE.replace("| trim +", "| trim + ('' if loop.last else '!') +")


@pytest.mark.parametrize(
    ("special", "template", "choice", "message"),
    [
        pytest.param(LLAMA3_TOKENS, None, "auto", "neither ChatML's tokens nor a chat", id="none"),
        pytest.param(LLAMA3_TOKENS, LLAMA3_TEMPLATE, "chatml", "has no <.im_start.>", id="chatml"),
        pytest.param(LLAMA3_TOKENS, "{% for %}", "own", "cannot be rendered", id="syntax"),
        pytest.param(
            LLAMA3_TOKENS, "{{ raise_exception('no system') }}", "own", "no system", id="raises"
        ),
        pytest.param(LLAMA3_TOKENS, "{{ strftime_now('%Y') }}", "own", "strftime_now", id="date"),
        pytest.param(
            LLAMA3_TOKENS,
            LLAMA3_TEMPLATE.replace("<|eot_id|>", "</answer>"),
            "auto",
            "ends an answer with '</answer>', which is no single token",
            id="end",
        ),
        pytest.param(LLAMA3_TOKENS, REWRITES, "auto", "differently once the", id="rewrites"),
        pytest.param(
            CHATML_TOKENS, chat.TEMPLATE.replace("| trim", "| upper"), "own", "changes", id="upper"
        ),
        pytest.param(CHATML_TOKENS, chat.TEMPLATE, "mine", "one of auto, chatml, own", id="choice"),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(
    tmp_path, special, template, choice, message
):
    folder = save_tokenizer(tmp_path / "model", special, template)
    with pytest.raises(ValueError, match=message) as error:
        chat_choice.find_format(folder, choice)
    assert "chat_format" in str(error.value)


def test_a_template_is_rendered_as_transformers_renders_it(tmp_path):
    template = (
        "{%- if strftime_now is defined %}\n    {{- strftime_now('%Y') }}\n{%- endif %}\n"
        "{%- for message in messages %}\n    {%- if message.role == 'system' %}{% continue %}"
        "{% endif %}\n    {%- generation %}{{ message | tojson }}{% endgeneration %}\n{% endfor %}"
    )
    folder = save_tokenizer(tmp_path / "model", template=template)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "甲"}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = tokenizer.apply_chat_template(messages, tokenize=False)
    ours = chat_template.render(template, {}, messages)
    assert theirs.endswith(ours) and "甲" in ours and not ours.startswith("2")
