"""Greedy answers of a model to many prompts at once, for evaluation.

It knows token ids and text, not scores. Speed is measured one prompt at a time by the decoders of
soaes.decode; this code is not timed.

# R prompts still being answered, T tokens of a forward pass, L tokens in the cache after it
# V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from soaes.data.chat import chat_format
from soaes.model import attention

# Tokens in the cache at once: 2.7 GB in bfloat16 at 72B (80 layers, 8 key heads of size 128).
MAX_CACHED_TOKENS = 8192


class Answer(NamedTuple):
    """What a model wrote."""

    text: str  # without the token that ends an answer
    is_cut: bool  # at max_new_tokens, before that token


def generate(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int
) -> list[str]:
    """Return the text of each of `generate_answers`."""
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens)
    return [answer.text for answer in answers]


def generate_answers(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int
) -> list[Answer]:
    """Return the answers of `generate_tokens` as text."""
    answers = generate_tokens(model, tokenizer, prompts, max_new_tokens)
    return [finish(tokenizer, tokens) for tokens in answers]


def finish(tokenizer: Any, tokens: list[int]) -> Answer:
    """Return the answer that a model's new tokens are."""
    end_id = tokenizer.token_to_id(chat_format(tokenizer).end)
    without_end = [token for token in tokens if token != end_id]
    return Answer(tokenizer.decode(without_end), is_cut=end_id not in tokens)


@torch.inference_mode()
def generate_tokens(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int
) -> list[list[int]]:
    """Answer every prompt greedily, up to the token that ends an answer or max_new_tokens.

    Args:
        model: A Hugging Face causal LM.
        tokenizer: Of the model, see `soaes.data.chat.load_tokenizer`.
        prompts: Token ids of each prompt.
        max_new_tokens: Largest number of new tokens per prompt.

    Returns:
        The new tokens of each prompt, with the one that ends an answer.
    """
    end_id = tokenizer.token_to_id(chat_format(tokenizer).end)
    answers: list[list[int]] = [[] for _ in prompts]
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    with_cache = attention.using_attention(model, attention.name_with_cache(model))
    with with_cache, torch.compiler.set_stance("force_eager"):  # every shape is new to a compiler
        for indices in batches(lengths):
            batch = [prompts[index] for index in indices]
            tokens = _generate_batch(model, batch, end_id, max_new_tokens)
            for index, answer in zip(indices, tokens, strict=True):
                answers[index] = answer
    return answers


def batches(lengths: list[int]) -> Iterator[list[int]]:
    """Group sequences of nearly one length, longest first, as many as the cache may hold.

    Args:
        lengths: Tokens of each sequence.

    Yields:
        The indices of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        longest = lengths[order[0]]
        count = max(1, MAX_CACHED_TOKENS // longest)
        yield order[:count]
        order = order[count:]


def _generate_batch(
    model: Any, prompts: list[list[int]], end_id: int, max_new_tokens: int
) -> list[list[int]]:
    """New tokens of each prompt.

    Prompts are left-padded (masked); finished sequences are removed from the batch.
    """
    device = model.device
    longest = max(len(prompt) for prompt in prompts)
    padded: list[list[int]] = []
    mask: list[list[int]] = []
    for prompt in prompts:
        padding = longest - len(prompt)
        padded.append([end_id] * padding + prompt)
        mask.append([0] * padding + [1] * len(prompt))
    ids_RT = torch.tensor(padded, device=device)
    mask_RL = torch.tensor(mask, device=device)
    answers: list[list[int]] = [[] for _ in prompts]
    active = answers  # those of the R rows; the lists are shared
    cache = DynamicCache(config=model.config)
    while active:
        positions_RL = (mask_RL.cumsum(-1) - 1).clamp_min(0)
        logits_R1V = model(
            input_ids=ids_RT,
            attention_mask=mask_RL,
            position_ids=positions_RL[:, -ids_RT.shape[1] :],
            past_key_values=cache,
            logits_to_keep=1,
        ).logits
        ids_RT = logits_R1V.argmax(-1)
        unfinished = []
        for row, token in enumerate(ids_RT.flatten().tolist()):
            active[row].append(token)
            if token != end_id and len(active[row]) < max_new_tokens:
                unfinished.append(row)
        if len(unfinished) < len(active):
            active = [active[row] for row in unfinished]
            rows = torch.tensor(unfinished, dtype=torch.long, device=device)
            cache.batch_select_indices(rows)
            ids_RT = ids_RT[rows]
            mask_RL = mask_RL[rows]
        mask_RL = torch.nn.functional.pad(mask_RL, (0, 1), value=1)
    return answers
