"""Write a model in the shape that another program asks for. Its law of text stays its own; nothing is trained.

# V rows of a vocabulary"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from soaes.data import chat
from soaes.model import checkpoint


def export(model: Path, like: Path, *, out: Path) -> None:
    """`model` with as many vocabulary rows as `like`, in its own dtype: vLLM takes a draft and a target of equal rows alone.

    Of Qwen2.5 the smaller have 151,936 rows and those from 7B on 152,064, over one tokenizer. ValueError for a model with more rows than
    `like`, and where their tokenizers differ."""
    words = chat.load_tokenizer(model)
    if words.get_vocab() != chat.load_tokenizer(like).get_vocab():
        raise ValueError(f"{model} and {like} have different tokenizers; train both with one")
    network, rows = (
        checkpoint.load(model, "auto"),
        json.loads((like / "config.json").read_text())["vocab_size"],
    )
    if (own := network.config.vocab_size) > rows:
        raise ValueError(
            f"{model} has {own:,} vocabulary rows and {like} {rows:,}: rows are added, never cut; export the other one"
        )
    pad(network, rows, words.token_to_id(chat.START))
    checkpoint.save(network, out, model)


@torch.no_grad()
def pad(network: PreTrainedModel, rows_V: int, id: int) -> None:
    """Rows up to `rows_V` in the embedding and the head, each repeating the row of token `id`.

    No linear row is below all others for every text, but a repeated one is never likelier than the token that it repeats, p(id), whatever
    the text. So the shares of the former ids to each other stay what they were, and what an added row takes of them is p(id) / (1 + added *
    p(id)). <|im_start|> is a good `id`: it stands in prompts alone, where nothing bears loss, so that training only ever lowers it, while
    the padding token <|endoftext|> also ends plain texts, of which a base model is at times certain."""
    own = network.config.vocab_size
    network.resize_token_embeddings(rows_V, mean_resizing=False)
    for matrix in (
        network.get_input_embeddings(),
        network.get_output_embeddings(),
    ):  # of some models they are one
        matrix.weight[own:] = matrix.weight[id]
