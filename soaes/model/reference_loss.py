"""Cross-entropy of given answers: how likely a model finds what it should have written.

Greedy answers change in jumps; the loss of the reference tells two well-trained models apart with
far fewer samples.

# R sequences of a batch, T tokens of the longest, N tokens that are predicted, C of a
# chunk of them, V vocabulary, D width
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from soaes.model import attention
from soaes.model.generate import batches
from soaes.model.output_head import OutputHead

Conversation = tuple[list[int], list[int]]  # token ids of a prompt and of its answer

CHUNK = 1024  # tokens whose logits are held at once: .6 GB in float32 at a vocabulary of 152,000


@torch.inference_mode()
def reference_nats(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> list[float]:
    """Sum the cross-entropy of each answer's tokens, given the prompt and the answer so far.

    Args:
        model: A Hugging Face causal LM.
        prompts: Token ids of each prompt, at least one.
        answers: Token ids of each answer, as many lists as prompts.

    Returns:
        Nats of each answer.
    """
    pairs = list(zip(prompts, answers, strict=True))
    nats = [0.0] * len(pairs)
    exact = attention.using_attention(model, attention.name_with_cache(model))
    with exact, torch.compiler.set_stance("force_eager"):  # every shape is new to a compiler
        for indices in batches([len(prompt) + len(answer) for prompt, answer in pairs]):
            batch = [pairs[index] for index in indices]
            for index, summed in zip(indices, _nats_of_batch(model, batch), strict=True):
                nats[index] = summed
    return nats


def _nats_of_batch(model: Any, batch: Sequence[Conversation]) -> list[float]:
    """Nats of each answer of a batch; sequences are padded on the right, where none looks."""
    longest = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids_RT = torch.zeros(len(batch), longest, dtype=torch.long)
    predicts_RT = torch.zeros(len(batch), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        end = len(prompt) + len(answer)
        ids_RT[row, :end] = torch.tensor(prompt + answer)
        predicts_RT[row, len(prompt) - 1 : end - 1] = True
    labels_N = ids_RT.roll(-1, dims=1)[predicts_RT].to(model.device)
    ids_RT, predicts_RT = ids_RT.to(model.device), predicts_RT.to(model.device)

    outputs = model.base_model(input_ids=ids_RT, use_cache=False)
    hidden_ND = outputs.last_hidden_state[predicts_RT]
    head = OutputHead.of(model)
    chunks = []
    for hidden_CD, labels_C in zip(hidden_ND.split(CHUNK), labels_N.split(CHUNK), strict=True):
        logits_CV = head.logits(hidden_CD).float()
        chunks.append(F.cross_entropy(logits_CV, labels_C, reduction="none"))
    nats_N = torch.cat(chunks).double().cpu()
    by_answer = nats_N.split([len(answer) for _, answer in batch])
    return [float(nats_T.sum()) for nats_T in by_answer]
