"""Small Hugging Face folders of several families with one tokenizer, as a user would have them."""

import json

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
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


def save_tokenizer(folder, special=(chat.TEXT_END, chat.START, chat.END), template=chat.TEMPLATE):
    """Save a tokenizer whose tokens are bytes, with special tokens and a chat template.

    The first special token ends plain texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in special])
    core.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder
