"""Laws of the reference loss: it is the model's own loss of the answer, whatever else is scored."""

import pytest
import torch

from soaes.model import attention, reference_loss
from soaes.model.reference_loss import reference_nats
from tests.helpers.families import family

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]
ANSWERS = [[20, 21], [22, 23, 24, 25, 26], [27], [28, 29, 30]]


@pytest.fixture(params=["Qwen2", "Gemma-2", "Cohere", "Phi"])  # plain, soft cap, scale, bias
def model(request):
    model = family(request.param)
    attention.set_attention(model, "eager")  # exact in every family
    return model


def own_nats(model, prompt, answer):
    """What transformers computes for one conversation alone."""
    ids = torch.tensor([prompt + answer])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        return model(input_ids=ids, labels=labels).loss.item() * len(answer)


def test_each_answer_has_the_loss_that_transformers_computes_for_it_alone(model):
    expected = [own_nats(model, *pair) for pair in zip(PROMPTS, ANSWERS)]
    assert reference_nats(model, PROMPTS, ANSWERS) == pytest.approx(expected, rel=1e-5)


def test_the_chunk_changes_nothing(model, monkeypatch):
    whole = reference_nats(model, PROMPTS, ANSWERS)
    monkeypatch.setattr(reference_loss, "CHUNK", 2)
    assert reference_nats(model, PROMPTS, ANSWERS) == pytest.approx(whole, rel=1e-6)


def test_a_prompt_bears_no_loss_and_no_other_sequence_matters(model):
    nats = reference_nats(model, PROMPTS, ANSWERS)
    assert reference_nats(model, PROMPTS[::-1], ANSWERS[::-1]) == pytest.approx(nats[::-1])
    assert reference_nats(model, PROMPTS[2:3], ANSWERS[2:3]) == pytest.approx(nats[2:3], rel=1e-5)
