"""Write a model in the shape that another program asks for; what it says of a text stays.

# V rows of a vocabulary
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel

from soaes.data import chat
from soaes.model import checkpoint


def export(model: Path, like: Path, *, out: Path) -> None:
    """Write a model with as many vocabulary rows as another, in its own dtype.

    vLLM accepts a draft and a target only with equal numbers of rows. Of Qwen2.5 the smaller
    models have 151,936 rows and those from 7B on 152,064, over one tokenizer.

    Args:
        model: folder of the model to write.
        like: folder of the model with the wanted number of rows.
        out: folder for the model.

    Raises:
        ValueError: if `model` has more rows than `like`, or their tokenizers differ.
    """
    tokenizer = chat.load_tokenizer(model)
    if chat.tokenizer_digest(model) != chat.tokenizer_digest(like):
        raise ValueError(f"{model} and {like} have different tokenizers; train both with one")
    network = checkpoint.load(model, "auto")
    own_rows = network.config.vocab_size
    rows = json.loads((like / "config.json").read_text("utf-8"))["vocab_size"]
    if own_rows > rows:
        raise ValueError(
            f"{model} has {own_rows:,} vocabulary rows and {like} {rows:,}: "
            "rows are added, never cut; export the other one"
        )
    pad_vocabulary(network, rows, chat.token_id(tokenizer, chat.START))
    checkpoint.save(network, out, model)


@torch.no_grad()
def pad_vocabulary(network: PreTrainedModel, rows_V: int, token_id: int) -> None:
    """Add rows to the embedding and the output matrix, each a copy of the row of one token.

    No linear row is less likely than all others for every text, but a copy is never more likely
    than the token that it repeats, p(token), whatever the text. So the probabilities of the former
    ids keep their ratios, and an added row takes p(token) / (1 + added * p(token)) of them.

    <|im_start|> is a good token to repeat: it stands only in prompts, where nothing bears loss, so
    training only ever lowers its probability. The padding token <|endoftext|> would be a bad one:
    it also ends plain texts, and a base model is at times certain of it.

    Args:
        network: the model, changed in place.
        rows_V: rows in all afterwards.
        token_id: the token whose row is repeated.
    """
    own_rows = network.config.vocab_size
    network.resize_token_embeddings(rows_V, mean_resizing=False)
    # of a model with tied weights both are one matrix
    for matrix in (network.get_input_embeddings(), network.get_output_embeddings()):
        matrix.weight[own_rows:] = matrix.weight[token_id]
        if getattr(matrix, "bias", None) is not None:
            matrix.bias[own_rows:] = matrix.bias[token_id]
