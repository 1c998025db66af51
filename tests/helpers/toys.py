"""Toy models for the tests of decoding.

They run in a millisecond, and are random enough to tell a wrong forward from a right one.
"""

import json
from copy import deepcopy

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM


def toy(seed, **changes):
    """A random Qwen2 whose norms, biases and logits are far from trivial."""
    settings = dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        intermediate_size=48,
        max_position_embeddings=512,
        rms_norm_eps=1e-3,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    model = Qwen2ForCausalLM(Qwen2Config(**(settings | changes))).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        weight.data = 1 + 0.3 * noise if "norm" in name else 0.3 * noise
    return model


def near(model, noise, seed=0):
    """A draft that often agrees: the same weights, a little off."""
    copy = deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for weight, original in zip(copy.parameters(), model.parameters()):
        weight.data = original.data + noise * torch.randn(original.shape, generator=generator)
    return copy


def save_pair(root):
    """Save a target and a near draft with one tokenizer of words; return the tokenizer.

    And make an empty folder for questions.
    """
    words = ["<|im_start|>", "<|im_end|>", "user", "assistant", *(f"w{i}" for i in range(60))]
    core = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="w0")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(words[:2])
    model = toy(1)
    for name, saved in {"target": model, "draft": near(model, 0.02)}.items():
        saved.save_pretrained(root / name)
        core.save(str(root / name / "tokenizer.json"))
    (root / "qa").mkdir()
    return core


# arguments of the measuring stages on the toy questions
ASKED = dict(
    prompts={"qa": 3, "report": 1}, max_new_tokens={"qa": 12, "report": 20}, seed=0, dtype="float32"
)


def question(index):
    """A sample of the test split: five of task qa, then one of task report."""
    user = {"role": "user", "content": f"w{index} w9 w{index}"}
    return {
        "id": f"q{index}",
        "task": "report" if index == 5 else "qa",
        "messages": [user, {"role": "assistant", "content": f"w{index}"}],
    }


def save_decoding_world(root):
    """A target, a draft and six questions as folders."""
    save_pair(root)
    save_questions(root, [question(index) for index in range(6)])
    return root


def save_questions(root, samples):
    """Write the test split."""
    lines = [json.dumps(sample) + "\n" for sample in samples]
    (root / "qa" / "test.jsonl").write_text("".join(lines))


def add_long_question(root):
    """Add a question of task qa that no toy has positions for; return its id."""
    samples = [question(index) for index in range(6)]
    samples[3]["messages"][0]["content"] = "w9 " * 600
    save_questions(root, samples)
    return samples[3]["id"]
