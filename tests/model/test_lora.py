"""LoRA: adapters alone are trained and resumed, and a merged folder is one like its parent's."""

from dataclasses import replace

import pytest
import torch

from soaes.model import checkpoint, lora
from soaes.model.settings import LAYER_MATRICES, LoraSettings
from soaes.pipeline.runtime import Execution
from tests.helpers.mortals import OPTIM, STEPS, build, killed, outcome, prepare, rows
from tests.helpers.toys import toy
from tests.helpers.trainers import data, module

pytest.importorskip("peft", reason="peft is not installed: python -m pip install '.[lora]'")

LORA = LoraSettings(rank=4, alpha=8, target_modules=["q_proj", "down_proj"])
ADAPTED = replace(OPTIM, lora=LORA)
ONCE = Execution(micro_batch_size=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    prepare(root)
    return root


@pytest.fixture(scope="module")
def ids_BT():
    return torch.from_numpy(rows(2, seed=7).ids_RT).long()


def logits(model, ids_BT):
    with torch.no_grad():
        return model.eval()(input_ids=ids_BT, use_cache=False).logits


@pytest.fixture
def at_the_end(monkeypatch, ids_BT):
    """What a stage's model was just before its adapters were merged."""
    seen = {}
    merge = lora.merge

    def watch(adapters):
        model = adapters.get_base_model()
        seen["logits"] = logits(model, ids_BT)
        seen["state"] = {name: value.clone() for name, value in model.state_dict().items()}
        merge(adapters)

    monkeypatch.setattr(lora, "merge", watch)
    return seen


@pytest.mark.parametrize("stage", ["cpt", "distill"])
def test_the_folder_is_one_like_its_parents_and_computes_what_the_adapters_did(
    folders, tmp_path, at_the_end, ids_BT, stage
):
    ended = build(folders, tmp_path, stage, ONCE, ADAPTED)
    merged, parent = checkpoint.load(ended), checkpoint.load(folders / "draft")
    assert (logits(merged, ids_BT) - at_the_end["logits"]).abs().max() < 1e-5
    assert (logits(parent, ids_BT) - at_the_end["logits"]).abs().max() > 0.1, "nothing was learnt"
    before, after, state = parent.state_dict(), merged.state_dict(), at_the_end["state"]
    assert list(after) == list(before)
    assert not (ended / "adapter_config.json").exists()
    for name, weight in before.items():
        path = name.removesuffix(".weight")
        if path.endswith(tuple(LORA.target_modules)):
            b, a = (state[f"{path}.lora_{letter}.default.weight"] for letter in "BA")
            assert len(a) == LORA.rank
            torch.testing.assert_close(after[name], weight + 8 / 4 * b @ a)
            assert not torch.equal(after[name], weight)
        else:
            assert torch.equal(after[name], weight), f"{name} is frozen"


def test_a_killed_stage_resumes_step_for_step_from_checkpoints_of_the_adapters(folders, tmp_path):
    whole = outcome(build(folders, tmp_path / "whole", "distill", ONCE, ADAPTED))
    unfinished = killed(folders, tmp_path / "parts", "distill", STEPS - 1, optim=ADAPTED)
    newest = unfinished / "resume" / f"step-{STEPS - 1:08d}" / "state.pt"
    held = torch.load(newest, weights_only=True)["module"]
    assert held and all(".lora_" in name for name in held if name.endswith("weight"))
    assert outcome(build(folders, tmp_path / "parts", "distill", optim=ADAPTED)) == whole


@pytest.mark.parametrize("tied", [False, True], ids=["own-head", "tied-head"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_gradients_are_those_of_the_matrices_and_reach_adapters_alone(tied, checkpointing):
    """With dW of a model that trains all: dB = alpha / rank dW A^T, and dA = 0 while B is."""
    settings = LoraSettings(rank=2, alpha=6)
    model = toy(1, tie_word_embeddings=tied).train()
    lit = module(data(), model=toy(1, tie_word_embeddings=tied).train())
    lora.add_adapters(model, settings)
    if checkpointing:
        model.gradient_checkpointing_enable()
    adapted = module(data(), model=model)
    packed = rows(2, seed=3)
    batch = {
        "ids_BT": torch.from_numpy(packed.ids_RT).long(),
        "labels_BT": torch.from_numpy(packed.labels_RT).long(),
        "positions_BT": torch.from_numpy(packed.positions_RT).long(),
    }
    for each in (lit, adapted):
        each.loss_sum(batch).backward()
    whole = dict(lit.model.named_parameters())
    weights = dict(model.named_parameters())
    trained = {name for name, weight in weights.items() if weight.grad is not None}
    assert trained == {name for name, weight in weights.items() if weight.requires_grad}
    assert len(trained) == 2 * 2 * len(LAYER_MATRICES)
    for name in trained:
        path, _, letter = name.removesuffix(".default.weight").rpartition(".lora_")
        if letter == "B":
            a = weights[f"{path}.lora_A.default.weight"]
            gradient = 3 * whole[f"{path}.weight"].grad @ a.T
            torch.testing.assert_close(weights[name].grad, gradient, rtol=1e-4, atol=1e-4)
        else:
            assert not weights[name].grad.any()
    groups = adapted.configure_optimizers()["optimizer"].param_groups
    in_optimizer = sum(len(group["params"]) for group in groups)
    assert in_optimizer == len(trained)


def test_names_that_match_no_matrix_are_refused_with_those_there_are():
    settings = LoraSettings(rank=2, alpha=2, target_modules=["q_proj", "qkv", "embed_tokens"])
    message = "target_modules: qkv, embed_tokens: a model of type qwen2 has no such .*down_proj, ga"
    with pytest.raises(ValueError, match=message):
        lora.add_adapters(toy(1), settings)
