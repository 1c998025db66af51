"""Vocabulary rows of a model: how a draft gets as many as its target, and stays what it was.

# V rows of a vocabulary
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from soaes.data import chat


def rows_of(network: PreTrainedModel) -> int:
    """Return the rows of a model's embedding, which may be more than its tokenizer has tokens."""
    rows: int = network.get_input_embeddings().num_embeddings
    return rows


def pad_draft(network: PreTrainedModel, folder: Path, rows_V: int) -> None:
    """Add the vocabulary rows that a draft lacks of its target's, in place.

    Of Qwen2.5 the smaller models have 151,936 rows and those from 7B on 152,064, over one
    tokenizer.

    Args:
        network: The draft.
        folder: Its folder, for its tokenizer and for messages.
        rows_V: Rows of the target.

    Raises:
        ValueError: The draft has more rows than the target.
    """
    own_rows = rows_of(network)
    if own_rows > rows_V:
        raise ValueError(
            f"draft {folder} has a vocabulary of {own_rows:,} rows, the target one of {rows_V:,}: "
            "rows are added, never cut; take a draft with fewer rows"
        )
    if own_rows < rows_V:
        tokenizer = chat.load_tokenizer(folder)
        start = chat.token_id(tokenizer, tokenizer.chat_format.start)
        pad_vocabulary(network, rows_V, start)


@torch.no_grad()
def pad_vocabulary(network: PreTrainedModel, rows_V: int, token_id: int) -> None:
    """Add rows to the embedding and the output matrix, each a copy of the row of one token.

    No linear row is less likely than all others for every text, but a copy is never more likely
    than the token that it repeats, p(token), whatever the text. So the probabilities of the former
    ids keep their ratios, and an added row takes p(token) / (1 + added * p(token)) of them.

    The token that opens a message, ChatML's <|im_start|>, is a good one to repeat: it stands only
    in prompts, where nothing bears loss, so training only ever lowers its probability. The padding
    token <|endoftext|> would be a bad one: it also ends plain texts, and a base model is at times
    certain of it.

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
