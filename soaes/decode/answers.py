"""Greedy answers of a model to many prompts: what evaluation reads. Knows token ids and text, not scores."""

from __future__ import annotations

from typing import Any

import torch

from soaes.data.chat import END
from soaes.decode.autoregressive import Autoregressive
from soaes.decode.engine import Engine


def answers(model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int) -> list[str]:
    """One text a prompt, up to <|im_end|> or max_new_tokens. `tokenizer` is a `tokenizers.Tokenizer`."""
    end = tokenizer.token_to_id(END)
    decoder = Autoregressive(Engine(model), temperature=0.0, top_p=1.0, eos=end)
    generator = torch.Generator()
    tokens = [decoder.generate(ids, max_new_tokens, generator).tokens for ids in prompts]
    return [tokenizer.decode([token for token in said if token != end]) for said in tokens]
