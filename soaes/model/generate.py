"""Greedy answers of a model to many prompts at once: what evaluation reads. Knows token ids and text, not scores.

Speed is measured one prompt at a time, by the decoders of soaes.decode; here nobody looks at the clock.

# R prompts that are still being answered, T tokens of a forward, L tokens in the cache after it"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import DynamicCache

from soaes.data.chat import END
from soaes.model import attention

CACHED = (
    8192  # tokens in the cache at once: 2.7 GB in bfloat16 at 72B (80 layers, 8 key heads of 128)
)


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int
) -> list[str]:
    """One text a prompt, up to <|im_end|> or max_new_tokens. `tokenizer` is a `tokenizers.Tokenizer`."""
    end = tokenizer.token_to_id(END)
    said: list[list[int]] = [[] for _ in prompts]
    with (
        attention.using_attention(model, "sdpa"),
        torch.compiler.set_stance("force_eager"),
    ):  # one that knows a cache; every shape is a new one
        for which in _together([len(ids) + max_new_tokens for ids in prompts]):
            _answer(
                [prompts[at] for at in which],
                [said[at] for at in which],
                model,
                end,
                max_new_tokens,
            )
    return [tokenizer.decode([token for token in tokens if token != end]) for tokens in said]


def _together(lengths: list[int]) -> Iterator[list[int]]:
    """Indices of texts of nearly one length, as many as the cache may hold."""
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    while order:
        count = max(1, CACHED // lengths[order[0]])
        yield order[:count]
        order = order[count:]


def _answer(
    prompts: list[list[int]], said: list[list[int]], model: Any, end: int, most: int
) -> None:
    """Append to `said`. Prompts are filled up in front, where no token looks; an answer that is over leaves the batch."""
    longest, device = max(map(len, prompts)), model.device
    ids_RT = torch.tensor([[end] * (longest - len(ids)) + ids for ids in prompts], device=device)
    seen_RL = torch.tensor(
        [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device
    )
    cache = DynamicCache(config=model.config)
    while said:
        positions_RT = (seen_RL.cumsum(-1) - 1).clamp_min(0)[:, -ids_RT.shape[1] :]
        logits_R1V = model(
            input_ids=ids_RT,
            attention_mask=seen_RL,
            position_ids=positions_RT,
            past_key_values=cache,
            logits_to_keep=1,
        ).logits
        ids_RT = logits_R1V.argmax(-1)
        for tokens, token in zip(said, ids_RT.flatten().tolist(), strict=True):
            tokens.append(token)
        going = [row for row, tokens in enumerate(said) if tokens[-1] != end and len(tokens) < most]
        if len(going) < len(said):
            said, rows = (
                [said[row] for row in going],
                torch.tensor(going, dtype=torch.long, device=device),
            )
            cache.batch_select_indices(rows)
            ids_RT, seen_RL = ids_RT[rows], seen_RL[rows]
        seen_RL = torch.nn.functional.pad(seen_RL, (0, 1), value=1)
