"""Small Hugging Face folders of several families with one tokenizer, as a user would have them."""

import json

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from soaes.data import chat
from tests.helpers.families import FAMILIES, SHAPE

LLAMA3_ROTARY = FAMILIES["Llama-3"][1]["rope_parameters"] | {
    "original_max_position_embeddings": 256
}
SHAPES = {
    "llama": {"rope_parameters": LLAMA3_ROTARY},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "qwen2": {},
}


def save_model(folder, family, tokenizer, rows=None, seed=0, **changes):
    """Save a model with random weights of a family, and a tokenizer's files beside it.

    Args:
        folder: Where to.
        family: A key of SHAPES.
        tokenizer: Folder whose files are copied.
        rows: Vocabulary rows; by default as many as the tokenizer has tokens.
        seed: Of the weights.
        changes: Settings of the config that differ.
    """
    words = chat.load_tokenizer(tokenizer)
    settings = SHAPE | {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    settings |= {"max_position_embeddings": 1024, "eos_token_id": 0} | SHAPES[family] | changes
    config = AutoConfig.for_model(family, vocab_size=rows or words.get_vocab_size(), **settings)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for path in tokenizer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


LLAMA3_TOKENS = (
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA3_TEMPLATE = (
    "{% for message in messages %}{{ bos_token if loop.first else '' }}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
CHATML_TOKENS = (chat.TEXT_END, chat.START, chat.END)


def save_tokenizer(folder, special=CHATML_TOKENS, template=chat.TEMPLATE, texts=(), bos=None):
    """Save a tokenizer with a chat template; its tokens are bytes, and what it learns of texts.

    The first special token ends plain texts, and `bos` precedes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(texts))
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048 if texts else 256 + len(special),
        special_tokens=list(special),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    core.train_from_iterator(texts, trainer)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    if bos:
        settings["bos_token"] = bos
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def save_llama3_tokenizer(folder, texts=()):
    """Save a tokenizer with the tokens and the layout of Llama-3, and none of ChatML."""
    return save_tokenizer(folder, LLAMA3_TOKENS, LLAMA3_TEMPLATE, texts, bos=LLAMA3_TOKENS[1])
