"""A store with models and measured speeds to serve, written without torch, and a vLLM to serve it.

The models have no weights: what is served is the stand-in's.
"""

import json
import struct
import sys
from pathlib import Path

import yaml
from tokenizers import Tokenizer, models, pre_tokenizers

from soaes.data import chat
from soaes.data.jsonl import write_jsonl
from soaes.pipeline import sweep
from soaes.pipeline.store import Store
from tests.helpers.small import SMALL_WORLD

WORDS = [*SMALL_WORLD, "logger=none"]
CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "dtype": "float32",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 1,
    "max_position_embeddings": 128,
    "vocab_size": 64,
    "eos_token_id": 1,
}

# In place of the Python of vLLM's environment: runs vllm_server.py under this one.
VLLM = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("vllm_server.py")} "$@"\n'


def save_model(folder, end="<|im_end|>", template=chat.TEMPLATE, words=60, **changes):
    """Write the folder of a model without weights.

    Args:
        folder: Where to.
        end: The token at which it stops.
        template: Its chat template; empty for none.
        words: Words of its tokenizer.
        changes: What differs in its config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    vocabulary = [*special, "user", "assistant", *(f"w{index}" for index in range(words))]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="w0")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    stop = {"eos_token_id": vocabulary.index(end)}
    (folder / "generation_config.json").write_text(json.dumps(stop))
    config = CONFIG | {"vocab_size": len(vocabulary)} | changes
    (folder / "config.json").write_text(json.dumps(config))
    if template:
        (folder / "chat_template.jinja").write_text(template)
    header = b"{}"
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def save_speed(store, job, speedup):
    """Write a job of goal=speed and all its ancestors as if they were built."""
    for name, recipe in job.recipe.ancestry().items():
        folder = store.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.written))
        (folder / "manifest.json").write_text(json.dumps({"files": {}}))
        if recipe.stage in ("pretrain", "cpt"):
            save_model(folder, end="<|endoftext|>")
        if recipe.stage in ("sft", "distill", "instruct"):
            save_model(folder)
    folder = store.folder(job.recipe.arguments["documents"].name)
    question = {"role": "user", "content": "w1 w2 w3"}
    answer = {"role": "assistant", "content": "w3 w2 w1"}
    write_jsonl(folder / "qa" / "test.jsonl", [{"task": "qa", "messages": [question, answer]}])
    rows = [
        {
            "id": f"q{index}",
            "task": "qa",
            "prompt": f"w{index}",
            "new_tokens": 8,
            "steps": 4,
            "drafted": 12,
            "accepted": 4,
            "overlap": None,
            "tests_per_position": [4, 4, 4],
            "accepts_per_position": [2, 1, 1],
            "seconds": [1.0 + index / 10] * 3,
            "round_tokens": [8] * 3,
            "autoregressive_seconds": [(1.0 + index / 10) * (speedup + (index - 4.5) / 100)] * 3,
            "autoregressive_round_tokens": [8] * 3,
            "autoregressive_new_tokens": 8,
        }
        for index in range(10)
    ]
    folder = store.folder(job.recipe.name)
    write_jsonl(folder / "predictions.jsonl", rows)
    metrics = {"speedup": speedup, "n": 3, "proof": "law", "library": "torch", "machine": "CPU"}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def save_store(root, monkeypatch):
    """Write a store with two measured pairs, alpha 0.8 the faster; return it with their jobs."""
    monkeypatch.setenv("SOAES_STORE", str(root))
    root.mkdir(parents=True)
    store = Store(root)
    jobs = sweep.jobs(["goal=speed", "subject=distill", "distill.alpha=0.5,0.8", *WORDS])
    for job, speedup in zip(jobs, (1.1, 1.4), strict=True):
        save_speed(store, job, speedup)
    return store, jobs
