"""A saved folder says what was trained: where texts end, how a prompt is written, which dtype."""

import json
import os
import subprocess
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PhiConfig,
    PhiForCausalLM,
)

from soaes.data import chat
from soaes.data.jsonl import write_jsonl
from soaes.data.settings import PackingSettings
from soaes.decode.backends import vllm_environment
from soaes.decode.backends.vllm_engine import ENVIRONMENT
from soaes.model import checkpoint
from soaes.model.causal_lm import CausalLM
from soaes.model.output_head import OutputHead
from soaes.model.settings import ConstantSchedule, OptimizerSettings
from soaes.model.vocabulary import pad_vocabulary
from soaes.stages import export, prepare, train
from tests.helpers.toys import toy

PUBLISHED_TEMPLATE = (
    "{{ '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
QUESTION = [{"role": "user", "content": "\n企业1在哪里？ "}]
OPTIM = OptimizerSettings(
    lr=3e-3,
    global_batch_size=4,
    epochs=12,
    schedule=ConstantSchedule(warmup=0.05),
    precision="32-true",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A base model as it is published, its rows, and what CPT and SFT make of it.

    It ends at <|endoftext|>, its template adds a system prompt, and its generation config can be
    read but not saved.
    """
    root = tmp_path_factory.mktemp("published")
    texts = [{"id": f"t{i}", "text": f"企业{i}主营钢铁。"} for i in range(20)]
    for name in ("general", "corpus"):
        write_jsonl(root / "documents" / f"{name}.jsonl", texts)
    conversations = [
        {
            "id": f"q{index}",
            "messages": [
                {"role": "user", "content": f"企业{index}在哪里？"},
                {"role": "assistant", "content": "上海"},
            ],
        }
        for index in range(12)
    ]
    for name in ("dialogue", "qa/train", "qa/dev"):
        write_jsonl(root / "documents" / f"{name}.jsonl", conversations)
    prepare.tokenizer(root / "documents", 600, out=root / "tokenizer")
    for name in ("corpus", "qa"):
        (root / name).mkdir()
        prepare.pack(
            root / "documents",
            root / "tokenizer",
            [name],
            None,
            64,
            PackingSettings(),
            out=root / name,
        )
    model = checkpoint.create(root / "tokenizer", 1, 64, 2, 1, 64, 0)  # vLLM reads heads from 32 on
    checkpoint.describe(model, root / "tokenizer", is_chat=False)
    checkpoint.save(model, root / "base", root / "tokenizer", is_chat=False)
    (root / "base" / "chat_template.jinja").unlink()
    path = root / "base" / "tokenizer_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"chat_template": PUBLISHED_TEMPLATE})
    )
    path = root / "base" / "generation_config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"do_sample": False, "temperature": 0.7})
    )
    for stage, parent, rows in (("cpt", "base", "corpus"), ("sft", "cpt", "qa")):
        (root / stage).mkdir()
        function = getattr(train, stage)
        module = partial(CausalLM)
        function(root / parent, root / rows, module, OPTIM, 0, out=root / stage)
    return root


def test_the_base_folder_is_one_that_misled(published):
    base = published / "base"
    template = AutoTokenizer.from_pretrained(base)
    served = template.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
    assert served != chat.prompt(chat.load_tokenizer(base), QUESTION)
    with pytest.raises(ValueError, match="temperature"):
        GenerationConfig.from_pretrained(base).save_pretrained(base)


def test_a_generation_config_that_cannot_be_saved_is_repaired_and_named(published, tmp_path):
    with pytest.warns(UserWarning, match="base/generation_config.json contradicts itself"):
        model = checkpoint.load(published / "base")
    model.save_pretrained(tmp_path)
    words = chat.load_tokenizer(published / "base")
    assert model.generation_config.eos_token_id == words.token_to_id(chat.TEXT_END)


@pytest.mark.parametrize(("stage", "end"), [("cpt", chat.TEXT_END), ("sft", chat.END)])
def test_a_folder_ends_texts_where_training_did(published, stage, end):
    folder = published / stage
    eos = chat.load_tokenizer(folder).token_to_id(end)
    assert AutoConfig.from_pretrained(folder).eos_token_id == eos
    assert GenerationConfig.from_pretrained(folder).eos_token_id == eos
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == eos


def test_the_served_prompt_of_a_chat_model_is_the_training_prompt(published):
    for folder in (published / "sft", exported(published)):
        template = AutoTokenizer.from_pretrained(folder)
        served = template.apply_chat_template(QUESTION, add_generation_prompt=True)["input_ids"]
        assert served == chat.prompt(chat.load_tokenizer(folder), QUESTION)


def exported(published):
    """The SFT folder with the vocabulary rows of a target that has more of them."""
    target, out = published / "target", published / "exported"
    if not out.exists():
        words = chat.load_tokenizer(published / "sft")
        model = checkpoint.load(published / "sft")
        rows = model.config.vocab_size + 9
        pad_vocabulary(model, rows, chat.token_id(words, chat.START))
        checkpoint.save(model, target, published / "sft", is_chat=True)
        out.mkdir()
        export.export(published / "sft", target, out=out)
    return out


def test_generate_stops_by_itself_behind_the_answer(published):
    for folder in (published / "sft", exported(published)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        template = AutoTokenizer.from_pretrained(folder)
        prompt = template.apply_chat_template(
            QUESTION, add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        new = model.generate(prompt, max_new_tokens=40)[0, prompt.shape[1] :]
        assert template.decode(new).endswith(chat.END) and len(new) < 40


SERVE = """
import json, sys
from vllm import LLM, SamplingParams
folders = json.loads(sys.argv[1])
speculation = None
if "draft" in folders:
    speculation = dict(method="draft_model", model=folders["draft"], num_speculative_tokens=3)
llm = LLM(
    model=folders["target"],
    speculative_config=speculation,
    dtype="float32",
    enforce_eager=True,
    max_model_len=128,
)
params = SamplingParams(temperature=0, max_tokens=40)
(output,) = llm.chat(json.loads(sys.argv[2]), params, use_tqdm=False)
print("SERVED", json.dumps([list(output.prompt_token_ids), list(output.outputs[0].token_ids)]))
"""


@pytest.mark.nightly
@pytest.mark.skipif(
    not vllm_environment.is_installed(), reason="vLLM's environment is not installed: make vllm"
)
@pytest.mark.parametrize("name", ["sft", "exported", "exported pair"])
def test_vllm_serves_the_training_prompt_and_stops_at_its_end(published, name):
    folders = {
        "sft": {"target": published / "sft"},
        "exported": {"target": exported(published)},
        "exported pair": {"draft": exported(published), "target": published / "target"},
    }[name]
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    paths = json.dumps({role: str(folder) for role, folder in folders.items()})
    command = [str(vllm_environment.python()), "-c", SERVE, paths, json.dumps(QUESTION)]
    served = subprocess.run(
        command, env=ENVIRONMENT | inherited, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in served.stdout.splitlines() if line.startswith("SERVED ")]
    prompt_ids, new_ids = json.loads(line.removeprefix("SERVED "))
    words = chat.load_tokenizer(folders["target"])
    assert prompt_ids == chat.prompt(words, QUESTION)
    assert new_ids[-1] == words.token_to_id(chat.END) and len(new_ids) < 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_folder_has_the_dtype_that_was_trained(published, tmp_path, dtype):
    model = checkpoint.load(published / "sft").to(dtype)
    checkpoint.save(model, tmp_path, published / "sft", is_chat=True)
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {dtype}
    assert AutoConfig.from_pretrained(tmp_path).dtype == dtype
    assert checkpoint.load(tmp_path, "auto").dtype == dtype


def test_what_cannot_be_saved_is_known_before_the_first_step(published, tmp_path, monkeypatch):
    steps = []

    class Counted(CausalLM):
        def training_step(self, batch, batch_index):
            steps.append(batch_index)
            return super().training_step(batch, batch_index)

    def refuse(*args, **kwargs):
        raise ValueError("this config cannot be saved")

    monkeypatch.setattr(GenerationConfig, "save_pretrained", refuse)
    with pytest.raises(ValueError, match="cannot be saved"):
        train.sft(published / "cpt", published / "qa", Counted, OPTIM, 0, out=tmp_path)
    assert steps == []


def test_rows_of_another_tokenizer_are_refused_by_every_reader(published, tmp_path):
    """The same number of tokens, of which two have changed places: nothing else would notice."""
    from soaes.model import soft_targets as formats
    from soaes.model.distilled_lm import DistilledLM
    from soaes.stages import teach

    other = tmp_path / "other"
    checkpoint.save(checkpoint.load(published / "cpt"), other, published / "cpt")
    path = other / "tokenizer.json"
    state = json.loads(path.read_text("utf-8"))
    vocabulary = state["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    path.write_text(json.dumps(state), encoding="utf-8")

    rows, out = published / "qa", tmp_path
    store = tmp_path / "store"
    store.mkdir()
    teach.teach(published / "sft", rows, formats.Hidden(), out=store)
    module = partial(CausalLM)
    readers = {
        "instruct": lambda: train.instruct(other, rows, module, OPTIM, 0, out=out),
        "cpt": lambda: train.cpt(other, rows, module, OPTIM, 0, out=out),
        "sft": lambda: train.sft(other, rows, module, OPTIM, 0, out=out),
        "teach": lambda: teach.teach(other, rows, formats.Hidden(), out=out),
        "teach_vllm": lambda: teach.teach_vllm(other, rows, formats.TopK(4, [1.0]), out=out),
        "pretrain": lambda: train.pretrain(other, rows, 1, 32, 2, 1, 64, module, OPTIM, 0, out=out),
    }
    for name, read in readers.items():
        with pytest.raises(ValueError, match="ids of tokenizer .* own tokenizer"):
            read()
            pytest.fail(name)
    with pytest.raises(ValueError, match="must share one tokenizer"):
        train.distill(other, rows, store, 0.5, 2.0, partial(DistilledLM), OPTIM, 0, out=out)


def phi():
    """A random model whose output has a bias."""
    config = PhiConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = PhiForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.bias)
    return model


@pytest.mark.parametrize(
    "model",
    [toy(1), toy(1, tie_word_embeddings=True), toy(1).to(torch.bfloat16), phi()],
    ids=["own", "tied", "bfloat16", "bias"],
)
def test_a_head_is_read_without_its_model(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    head, own = checkpoint.load_head(tmp_path), OutputHead.of(model)
    assert torch.equal(head.weight_VD, own.weight_VD.float())
    assert head.extras == own.extras
    if own.bias_V is not None:
        assert torch.equal(head.bias_V, own.bias_V)


def test_a_head_of_another_name_is_refused(tmp_path):
    toy(1).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["output.weight"] = weights.pop("lm_head.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="no lm_head.weight .*set teacher_logits=transformers"):
        checkpoint.load_head(tmp_path)
