"""Nightly: the formulas of training memory against steps that are tracked without weights.

A step of a real width and few layers runs under FakeTensorMode, where tensors have shapes and no
bytes, while one of torch's memory trackers counts what they would take. AdamW's moments are left
out: a step that is not taken has none.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import distributed
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.bill import formulas
from soaes.bill.formulas import Sharding, Step
from soaes.bill.shape import ModelShape, published
from soaes.model import lora, losses
from soaes.model.causal_lm import CausalLM
from soaes.model.chunked_loss import chunked_loss
from soaes.model.settings import LoraSettings

pytestmark = pytest.mark.nightly

CPU = torch.device("cpu")
TOY = ModelShape(4, 192, heads=6, kv_heads=2, head_width=32, mlp_width=576, vocabulary=3000)


def few_layers(size, layers):
    """A real shape with few layers and an output matrix of its own."""
    whole = published(f"Qwen/Qwen2.5-{size}")
    return ModelShape(**(vars(whole) | {"layers": layers, "tied": False}))


def fake_model(shape):
    config = Qwen2Config(
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.mlp_width,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=False,
        max_position_embeddings=131_072,
    )
    model = Qwen2ForCausalLM(config)
    model.set_attn_implementation("sdpa")
    return model.train()


def batch(shape, rows, context):
    ids_BT = torch.randint(0, shape.vocabulary, (rows, context))
    return ids_BT, torch.randint(0, shape.vocabulary, (rows * context,))


def tracked_bytes(tracker):
    return tracker.get_tracker_snapshot("peak")[CPU]["Total"]


class FrozenTracker(MemTracker):
    """torch's, which hooks every weight's gradient, for a model of which some weights have none."""

    def _track_module_params_and_buffers(self, module, install_grad_hooks=True):
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)


def peak_of_one_device(shape, rows, step):
    """Bytes of a step of the product's own module."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = fake_model(shape)
        if step.adapters:
            with pytest.MonkeyPatch.context() as patch:  # fake weights cannot be moved, nor need be
                patch.setattr(torch.nn.Module, "to", lambda module, *_, **__: module)
                lora.add_adapters(model, LORA)
        if step.checkpointing:
            model.gradient_checkpointing_enable()
        lit = CausalLM(model, 1e-3, lambda done, steps: 1.0, (0.9, 0.95), 0.1, 10, 1.0)
        ids_BT, labels_N = batch(shape, rows, step.context)
        tracker = FrozenTracker() if step.adapters else MemTracker()
        tracker.track_external(model, ids_BT, labels_N)
        is_bfloat16 = step.bytes_per_value == formulas.BFLOAT16
        with tracker:
            for index in range(step.micro_batches):
                if index:
                    tracker.reset_mod_stats()
                arithmetic = torch.autocast("cpu", torch.bfloat16) if is_bfloat16 else nullcontext()
                with arithmetic:
                    hidden_BTD = model.base_model(ids_BT, use_cache=False).last_hidden_state
                    loss = lit.cross_entropy(hidden_BTD.flatten(0, 1), labels_N)
                    del hidden_BTD
                loss.backward()
                del loss
    return tracked_bytes(tracker)


LORA = LoraSettings(rank=64, alpha=64)


def adapted(shape, rows, context, **how):
    """A step of LoRA."""
    adapters = shape.adapter_parameters(LORA.rank, LORA.target_modules)
    return Step(rows * context, context, 2, adapters=adapters, **how)


@pytest.mark.parametrize(
    ("shape", "rows", "step"),
    [
        (few_layers("0.5B", 2), 1, Step(8192, 8192, 2, 2, True)),
        (few_layers("0.5B", 4), 1, Step(8192, 8192, 2, 2, False)),
        (few_layers("3B", 2), 1, Step(8192, 8192, 2, 4, False)),
        (few_layers("7B", 2), 1, Step(4096, 4096, 2, 2, True)),
        (TOY, 8, Step(8 * 256, 256, 2, 4, False)),
    ],
    ids=["0.5B", "0.5B-kept", "3B-float32-kept", "7B", "toy-float32-kept"],
)
def test_a_step_on_one_device(shape, rows, step):
    memory = formulas.training_memory(shape, Sharding(), step)
    tracked = peak_of_one_device(shape, rows, step)
    assert memory.device - memory.optimizer == pytest.approx(tracked, rel=0.05)


@pytest.mark.parametrize(
    ("size", "layers", "rows", "checkpointing", "tolerance"),
    [("0.5B", 2, 2, True, 0.05), ("3B", 2, 2, True, 0.05), ("0.5B", 4, 1, False, 0.08)],
    ids=["0.5B", "3B", "0.5B-kept"],
)
def test_a_step_of_lora(size, layers, rows, checkpointing, tolerance):
    pytest.importorskip("peft", reason="peft is not installed: python -m pip install '.[lora]'")
    shape = few_layers(size, layers)
    step = adapted(shape, rows, 4096, checkpointing=checkpointing)
    memory = formulas.training_memory(shape, Sharding(), step)
    tracked = peak_of_one_device(shape, rows, step)
    assert memory.device - memory.optimizer == pytest.approx(tracked, rel=tolerance)


class ShardedHead(torch.nn.Linear):
    """An output matrix that computes the loss by chunks, so that FSDP2 gathers it for the call."""

    def forward(self, hidden_ND, labels_N):
        def chunk_loss(logits_CV, tokens):
            return losses.cross_entropy(logits_CV, labels_N[tokens])

        return chunked_loss(hidden_ND, self.weight, chunk_loss)


@pytest.fixture
def fake_ranks():
    def start(devices):
        distributed.init_process_group("fake", rank=0, world_size=devices, store=FakeStore())
        return init_device_mesh("cpu", (devices,))  # a real tensor: before the fake mode

    yield start
    distributed.destroy_process_group()


def peak_of_a_rank(shape, mesh, context):
    """Bytes of a rank's step under FSDP2 in bfloat16, checkpointed."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("meta"):
            model = fake_model(shape)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.lm_head.__class__ = ShardedHead
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.bfloat16)
        body = model.model
        for module in (*body.layers, body.embed_tokens, body, model.lm_head):
            fully_shard(module, mesh=mesh, mp_policy=policy)
        model.to_empty(device="cpu")
        body.rotary_emb = type(body.rotary_emb)(model.config)
        ids_BT, labels_N = batch(shape, 1, context)
        tracker = FSDPMemTracker(body)
        tracker.track_inputs((ids_BT, labels_N))
        with tracker:
            hidden_BTD = body(input_ids=ids_BT, use_cache=False).last_hidden_state
            model.lm_head(hidden_BTD.flatten(0, 1), labels_N).backward()
    return tracked_bytes(tracker)


@pytest.mark.parametrize(
    ("size", "layers", "devices", "context"),
    [("7B", 2, 8, 8192), ("72B", 2, 8, 4096), ("3B", 2, 8, 8192)],
    ids=["7B", "72B", "3B"],
)
def test_a_step_of_a_rank_under_fsdp2(fake_ranks, size, layers, devices, context):
    shape = few_layers(size, layers)
    step = Step(context, context, attention="flash_attention_2")
    memory = formulas.training_memory(shape, Sharding("fsdp2", devices), step)
    tracked = peak_of_a_rank(shape, fake_ranks(devices), context)
    assert memory.device - memory.optimizer == pytest.approx(tracked, rel=0.05)
