"""Steps of one shape are the engine's, wherever in the text they stand."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from soaes.decode.autoregressive import Autoregressive
from soaes.decode.engine import Engine
from soaes.decode.graphs import GraphedEngine
from soaes.decode.speculative import Speculative
from tests.helpers.families import family
from tests.helpers.toys import near, toy

NEVER = -1


def ids(count, seed=0):
    return torch.randint(64, (count,), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def reference(model, ids_T):
    return model(ids_T[None]).logits[0]


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3", "Llama-3"])
def test_steps_are_the_model_however_the_text_arrives(name):
    model, text = family(name), ids(40)
    engine = GraphedEngine(model)
    engine.begin(40)
    pieces = [engine.forward(piece) for piece in text.split([10, 1, 1, 4, 7, 1, 16])]
    assert sorted(engine.steps) == [1, 4, 7], "a prompt and 16 tokens are no steps"
    assert torch.allclose(torch.cat(pieces), reference(model, text), atol=1e-4)
    engine.rollback(12)
    assert torch.allclose(
        engine.forward(text[12:18], tail=2), reference(model, text)[16:18], atol=1e-4
    )
    assert engine.length == 18


def test_steps_are_recorded_anew_over_larger_buffers():
    model = toy(1)
    engine = GraphedEngine(model)
    for count in (20, 300, 10):
        engine.begin(count)
        text = ids(count)
        parts = [engine.forward(text[:-3]), engine.forward(text[-3:])]
        assert torch.allclose(torch.cat(parts), reference(model, text), atol=2e-4)


@pytest.mark.parametrize("count", [1, 3])
def test_a_recorded_step_is_right_at_another_place(count):
    """A trace keeps every number that Python had when it was made, as a CUDA graph does."""
    model, text = toy(1), ids(40)
    engine = GraphedEngine(model)
    engine.begin(40)
    with torch.inference_mode():
        engine.forward(text[:10])
        engine.forward(text[10 : 10 + count])
        step = engine.steps[count]
        recorded = make_fx(step.function)(step.ids_T, step.places_T)
        engine.forward(text[10 + count : 30])
        logits_TV = recorded(text[30 : 30 + count], torch.arange(30, 30 + count))
    expected = reference(model, text[: 30 + count])[30:]
    assert torch.allclose(logits_TV, expected, atol=1e-4)


def test_decoders_write_the_same_text():
    model, prompt = toy(1), ids(12).tolist()
    texts = []
    for engine in (Engine, GraphedEngine):
        target, draft = engine(model), engine(near(model, 0.02))
        plain = Autoregressive(target, 0.0, 1.0, NEVER)
        method = Speculative(target, draft, 3, 0.0, 1.0, NEVER)
        for decoder in (plain, method):
            texts.append(decoder.generate(prompt, 20, torch.Generator()).tokens)
    assert texts == [texts[0]] * 4
