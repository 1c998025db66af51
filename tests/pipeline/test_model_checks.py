"""What a published model cannot be used for is known once it is fetched, not days later."""

import json
from types import SimpleNamespace

import pytest

from soaes.pipeline import model_checks
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.runtime import Execution
from soaes.pipeline.store import Store

STAGES = "soaes.stages."
HIDDEN = {"_target_": "soaes.model.settings.Hidden"}
TOPK = {"_target_": "soaes.model.settings.TopK", "k": 4}
NATIVE = {"_target_": "soaes.decode.backends.native.open_native", "_partial_": True}


def fetch(store, repo, words=("a", "b"), **config):
    """A published model in the store."""
    recipe = Recipe(STAGES + "prepare.fetch", {"repo": repo, "revision": "main"})
    with store.build(recipe) as out:
        (out / "config.json").write_text(json.dumps({"model_type": "qwen2"} | config))
        from tokenizers import Tokenizer, models

        vocabulary = {word: index for index, word in enumerate(words)}
        Tokenizer(models.WordLevel(vocabulary, "a")).save(str(out / "tokenizer.json"))
    return recipe


def sft(parent):
    return Recipe(STAGES + "train.sft", {"parent": parent})


def teach(model, soft_targets):
    return Recipe(STAGES + "teach.teach", {"model": model, "soft_targets": soft_targets})


def speed(target, draft, backend=NATIVE):
    arguments = {"target": target, "draft": draft, "backend": backend}
    return Recipe(STAGES + "speculate.speed", arguments)


def check(store, recipe, attention="sdpa"):
    runtime = SimpleNamespace(execution=Execution(attention=attention), models={})
    model_checks.check(store, [recipe], runtime)


@pytest.mark.parametrize(
    ("config", "goal", "attention", "message"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, sft, "sdpa", "carry a state"),
        ({"attn_logit_softcapping": 50.0}, sft, "sdpa", "attention=eager"),
        ({"layer_types": ["sliding_attention"]}, sft, "documents", "attention=sdpa"),
        (
            {"final_logit_softcapping": 30.0},
            lambda model: teach(sft(model), HIDDEN),
            "sdpa",
            "a soft cap: .*soft_targets=topk",
        ),
        ({"logits_scaling": 8.0}, lambda model: teach(model, HIDDEN), "sdpa", "a scale"),
        ({"model_type": "phi"}, lambda model: teach(model, HIDDEN), "sdpa", "a bias"),
        (
            {"model_type": "glm4"},
            lambda model: speed(sft(sft(model)), sft(model)),
            "sdpa",
            "our own decoding .*backend=transformers speed.prediction=null",
        ),
    ],
    ids=["linear", "capped scores", "window", "soft cap", "scale", "bias", "native"],
)
def test_what_a_model_does_not_support_is_refused_before_anything_is_trained(
    tmp_path, config, goal, attention, message
):
    store = Store(tmp_path)
    model = fetch(store, "owner/name", **config)
    with pytest.raises(ValueError, match=f"owner/name is a model of type .*{message}"):
        check(store, goal(model), attention)


def test_what_a_model_supports_is_let_through(tmp_path):
    store = Store(tmp_path)
    qwen, gemma = fetch(store, "q"), fetch(store, "g", model_type="g", final_logit_softcapping=3.0)
    check(store, speed(sft(qwen), qwen), "documents")
    check(store, teach(sft(gemma), TOPK))
    check(store, teach(sft(qwen), HIDDEN))
    unknown = Recipe(STAGES + "prepare.fetch", {"repo": "not here", "revision": "main"})
    check(store, teach(sft(unknown), HIDDEN))
    assert [recipe.name for recipe in model_checks.fetched([sft(unknown)])] == [unknown.name]


def test_a_target_and_a_draft_of_two_tokenizers_are_refused(tmp_path):
    store = Store(tmp_path)
    target, draft = fetch(store, "large"), fetch(store, "small", words=("b", "a"))
    with pytest.raises(ValueError, match="target=large and draft=small have different tokenizers"):
        check(store, speed(sft(target), sft(sft(draft))))


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(tmp_path):
    store = Store(tmp_path)
    model = fetch(store, "owner/name", vocab_size=1)
    rows = Recipe(STAGES + "prepare.pack", {"tokenizer": model})
    with pytest.raises(ValueError, match="owner/name: its tokenizer has 2 tokens .* 1 rows"):
        check(store, Recipe(STAGES + "train.sft", {"parent": model, "rows": rows}))


def test_rows_longer_than_the_models_positions_are_refused(tmp_path):
    store = Store(tmp_path)
    model = fetch(store, "owner/name", max_position_embeddings=512)
    for context in (512, 513):
        rows = Recipe(STAGES + "prepare.pack", {"tokenizer": model, "context": context})
        stage = Recipe(STAGES + "train.sft", {"parent": sft(model), "rows": rows})
        if context == 512:
            check(store, stage)
            continue
        with pytest.raises(ValueError, match="context=513: owner/name has 512 pos.*context=512"):
            check(store, stage)


def test_a_draft_with_more_rows_than_its_target_is_refused(tmp_path):
    store = Store(tmp_path)
    large, small = (fetch(store, name, vocab_size=rows) for name, rows in (("l", 9), ("s", 5)))
    check(store, speed(sft(large), sft(small)))
    trace = Recipe(STAGES + "trace.target_trace", {"target": small})
    predict = {"target_trace": trace, "draft": sft(large)}
    for stage in (
        speed(sft(small), large),
        Recipe(STAGES + "trace.predict_acceptance", predict),
    ):
        with pytest.raises(ValueError, match="draft=l has 9 vocabulary rows and target=s 5"):
            check(store, stage)


def test_rows_and_a_model_of_two_tokenizers_are_refused(tmp_path):
    """Before rows are packed with a tokenizer that the model does not have."""
    store = Store(tmp_path)
    target, draft = fetch(store, "large"), fetch(store, "small", words=("b", "a"))
    rows = Recipe(STAGES + "prepare.pack", {"tokenizer": target})
    check(store, Recipe(STAGES + "train.sft", {"parent": target, "rows": rows}))
    with pytest.raises(ValueError, match="sft: parent=small and rows=large have different"):
        check(store, Recipe(STAGES + "train.sft", {"parent": sft(draft), "rows": rows}))
