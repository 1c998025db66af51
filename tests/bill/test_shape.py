"""A shape counts a model's parameters; those of Qwen2.5 are the published ones."""

import json

import pytest

from soaes.bill import shape
from soaes.bill.shape import ModelShape

# The parameters that the safetensors files of the Hugging Face hub hold, by model.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
}


@pytest.mark.parametrize(("repo", "parameters"), PUBLISHED.items(), ids=list(PUBLISHED))
def test_the_shapes_of_qwen_have_the_published_numbers_of_parameters(repo, parameters):
    assert shape.published(repo).parameters == parameters


def test_every_kept_shape_is_a_published_model():
    kept = {path.stem for path in shape.SHAPES.glob("*.json")}
    published = {repo.rpartition("/")[2].removesuffix("-Instruct") for repo in PUBLISHED}
    assert kept == published


def test_a_toy_is_counted_by_hand():
    toy = ModelShape(2, 8, heads=2, kv_heads=1, head_width=4, mlp_width=24, vocabulary=100)
    # q and o: 8 x 8; k and v: 8 x 4; SwiGLU: 3 x 8 x 24; biases 8 + 4 + 4; two norms of 8
    layer = 2 * 64 + 2 * 32 + 576 + 16 + 16
    assert toy.layer_parameters == layer == 800
    assert toy.parameters == 2 * layer + 2 * 800 + 8
    tied = ModelShape(2, 8, 2, 1, 4, 24, 100, tied=True)
    assert toy.parameters - tied.parameters == 800


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        ({"model_type": "llama"}, -2 * 16),
        ({"model_type": "qwen3"}, 2 * (2 * 4 - 16)),
        ({"model_type": "llama", "attention_bias": True}, 0),
        ({"model_type": "mixtral"}, None),
    ],
    ids=["llama", "qwen3", "llama-with-biases", "experts"],
)
def test_other_families_differ_by_biases_and_norms_or_are_not_known(config, difference):
    qwen2 = {
        "model_type": "qwen2",
        "hidden_size": 8,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 100,
    }
    other = shape.from_config(json.loads(json.dumps(qwen2 | config)))
    if difference is None:
        assert other is None
    else:
        assert other.parameters - shape.from_config(qwen2).parameters == difference


@pytest.mark.parametrize("repo", ["owner/Qwen2.5-7B", "Qwen/Qwen9-1B"])
def test_a_model_that_is_not_kept_has_no_shape(repo):
    assert shape.published(repo) is None
