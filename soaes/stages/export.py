"""Write a model in the shape that another program asks for; what it says of a text stays."""

from __future__ import annotations

import json
from pathlib import Path

from soaes.data import chat
from soaes.model import checkpoint
from soaes.model.vocabulary import pad_vocabulary


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
    start = chat.token_id(tokenizer, tokenizer.chat_format.start)
    pad_vocabulary(network, rows, start)
    checkpoint.save(network, out, model)
