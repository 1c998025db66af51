"""The formulas against values by hand, measured figures, and DeepSpeed's estimators."""

import importlib.util

import pytest

from soaes.bill import formulas
from soaes.bill.formulas import Sharding, Step
from soaes.bill.shape import ModelShape, published

GB = 1e9
TOY = ModelShape(2, 8, heads=2, kv_heads=1, head_width=4, mlp_width=24, vocabulary=100)
QWEN = {size: published(f"Qwen/Qwen2.5-{size}") for size in ("7B", "14B", "32B", "72B")}
FSDP2 = {"kind": "fsdp2"}
OFFLOADED = {"kind": "fsdp2", "offload_optimizer": True}
ZERO3 = {"kind": "zero3", "offload_optimizer": True}

# GB of a device and of the host, of one checkpointed step in bfloat16 with a chunked loss, from
# prototypes of FSDP2 and ZeRO-3 under FakeTensorMode: size, sharding, devices, tokens. The host of
# ZeRO-3's had no buffer of added gradients, which DeepSpeed has: 291 GB of a 72B.
PROTOTYPES = [
    ("7B", FSDP2, 8, 8192, 22.5, 0),
    ("7B", FSDP2, 8, 4 * 8192, 34.3, 0),
    ("14B", FSDP2, 8, 8192, 37.8, 0),
    ("32B", FSDP2, 8, 8192, 77.1, 0),
    ("72B", FSDP2, 8, 8192, 162.6, 0),
    ("72B", OFFLOADED, 8, 8192, 27.9, 1163),
    ("72B", ZERO3, 8, 8192, 46.1, 1163 + 291),
    ("72B", FSDP2, 32, 8192, 55.2, 0),
]


@pytest.mark.parametrize(("size", "kind", "devices", "tokens", "device", "host"), PROTOTYPES)
def test_sharded_training_takes_what_the_prototypes_took(size, kind, devices, tokens, device, host):
    memory = formulas.training_memory(
        QWEN[size],
        Sharding(devices=devices, **kind),
        Step(tokens, 8192, attention="flash_attention_2"),
    )
    assert memory.device / GB == pytest.approx(device, abs=0.06)
    assert memory.host / GB == pytest.approx(host, abs=0.6)


# Bytes of steps of the product's own module on one device, of real widths with few layers and
# untied matrices, without AdamW's moments, under FakeTensorMode with torch's MemTracker (the
# nightly test repeats the first): size, layers, tokens, micro-batches, bytes of a value,
# checkpointing, bytes.
WHOLE = [
    ("0.5B", 2, 8192, 2, 2, True, 3_905_644_296),
    ("0.5B", 4, 8192, 2, 2, False, 6_890_270_984),
    ("0.5B", 2, 8192, 2, 4, True, 4_065_842_440),
    ("0.5B", 2, 8192, 2, 4, False, 5_794_455_828),
    ("3B", 2, 8192, 2, 2, True, 9_599_224_328),
    ("3B", 4, 8192, 2, 2, False, 16_645_968_392),
    ("3B", 2, 8192, 2, 4, True, 9_526_174_216),
    ("3B", 4, 8192, 2, 4, False, 18_809_753_108),
    ("7B", 4, 4096, 2, 2, True, 23_000_285_704),
]


@pytest.mark.parametrize(
    ("size", "layers", "tokens", "micro_batches", "value", "checkpointing", "tracked"), WHOLE
)
def test_training_on_one_device_takes_what_tracked_steps_took(
    size, layers, tokens, micro_batches, value, checkpointing, tracked
):
    whole = published(f"Qwen/Qwen2.5-{size}")
    few = ModelShape(**(vars(whole) | {"layers": layers, "tied": False}))
    step = Step(tokens, tokens, micro_batches, value, checkpointing)
    memory = formulas.training_memory(few, Sharding(), step)
    assert memory.device - memory.optimizer == pytest.approx(tracked, rel=0.07)


# DeepSpeed 0.19.8's estimators with zero_init: GB of a GPU and of the host, whose factor of 1.5
# for buffers is taken off.
DEEPSPEED = [
    ("7B", False, 19.3, 0),
    ("72B", False, 168.6, 0),
    ("72B", True, 23.2, 1745 / 1.5),
]


def largest_layer(shape):
    """Bytes that DeepSpeed counts for the largest layer, which is gathered."""
    return 4 * max(shape.layer_parameters, shape.matrix_parameters)


def without_buffer(states, shape):
    """Bytes of the host as the estimators count them: 16 a parameter.

    They leave out the float32 buffer in which DeepSpeed adds gradients up, 4 more, which is
    `grad_partitions_flat_buffer` of the same file and lies in the host under offload.
    """
    return states.host - 4 * shape.parameters


@pytest.mark.parametrize(("size", "optimizer", "gpu", "host"), DEEPSPEED)
def test_states_under_zero_are_those_of_deepspeeds_estimators(size, optimizer, gpu, host):
    sharding = Sharding("zero3", 8, optimizer)
    states = formulas.training_states(QWEN[size].parameters, sharding)
    device = states.on_device + largest_layer(QWEN[size])
    assert device / GB == pytest.approx(gpu, rel=0.1)
    if not optimizer:
        assert states.host == host == 0
        return
    assert without_buffer(states, QWEN[size]) / GB == pytest.approx(host, rel=0.1)
    assert states.host == 20 * QWEN[size].parameters


@pytest.mark.nightly
@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed here"
)
@pytest.mark.parametrize("size", QWEN)
@pytest.mark.parametrize("optimizer", [False, True], ids=["on-device", "offloaded"])
def test_states_under_zero_are_those_of_the_installed_deepspeed(size, optimizer):
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    shape = QWEN[size]
    largest = max(shape.layer_parameters, shape.matrix_parameters)
    host, gpu, _ = estimate_zero3_model_states_mem_needs(
        shape.parameters, largest, 8, 1, optimizer, False, True, 1.0
    )
    states = formulas.training_states(shape.parameters, Sharding("zero3", 8, optimizer))
    assert states.on_device + largest_layer(shape) == pytest.approx(gpu, rel=0.1)
    if optimizer:
        assert without_buffer(states, shape) == pytest.approx(host, rel=0.1)


def test_states_by_hand():
    def of(*sharding):
        return formulas.training_states(1000, Sharding(*sharding))

    assert of() == formulas.States(4000, 4000, 8000)
    assert of("ddp", 2) == formulas.States(4000, 8000, 8000)
    assert of("fsdp2", 4) == formulas.States(1000, 1000, 2000)
    assert of("zero3", 4) == formulas.States(500, 1000, 3000)
    float32 = formulas.training_states(1000, Sharding("zero3", 4), bytes_per_value=4)
    assert float32 == formulas.States(1000, 1000, 3000)
    # by DeepSpeed, beside weights, gradients and moments, the buffer where gradients are added up
    assert of("zero3", 4, True) == formulas.States(500, 0, 0, 4000 + 4000 + 8000 + 4000)
    assert of("fsdp2", 4, True) == formulas.States(0, 0, 0, 16_000)


def test_a_later_micro_batch_meets_the_gradients_of_the_first():
    shape, sharding = QWEN["7B"], Sharding("fsdp2", 8)
    first = formulas.training_memory(shape, sharding, Step(8192, 8192, 1))
    later = formulas.training_memory(shape, sharding, Step(8192, 8192, 2))
    # the smaller of the gradients' share and the layers' inputs was left out
    assert later.device - first.device == min(4 * shape.parameters / 8, 28 * 3584 * 8192 * 2)


def test_a_stored_matrix_of_the_teacher_is_held_in_float32():
    alone = formulas.training_memory(TOY, Sharding(), Step(16, 16))
    with_teacher = formulas.training_memory(TOY, Sharding(), Step(16, 16, teacher_width=32))
    assert with_teacher.logits - alone.logits == 4 * 100 * 32


def test_flops_by_hand():
    # two for each of 2 x 800 parameters of the layers and 800 of the output matrix; the attention's
    # two products of 8 wide heads with 10 / 2 earlier tokens, in two layers
    assert formulas.forward_flops(TOY, 10) == 2 * 2400 + 2 * 2 * 2 * 8 * 5
    assert formulas.training_flops(TOY, 10) == 3 * formulas.forward_flops(TOY, 10)


@pytest.mark.parametrize(("size", "hours"), [("72B", 2180), ("7B", 224)])
def test_the_papers_tokens_take_months(size, hours):
    """17B tokens of 8k rows on 8 x A800 at 40 % utilisation."""
    flops = 17e9 * formulas.training_flops(QWEN[size], 8192)
    assert formulas.seconds(flops, 8, 312e12, 0.4) / 3600 == pytest.approx(hours, rel=0.005)


@pytest.mark.parametrize(("size", "kilobytes"), [("72B", 328), ("7B", 57)])
def test_the_cache_of_a_token(size, kilobytes):
    assert formulas.cached_token(QWEN[size], 2) / 1e3 == pytest.approx(kilobytes, abs=0.5)


def test_disk_of_72b():
    assert formulas.folder_bytes(QWEN["72B"], 2) / GB == pytest.approx(145, abs=0.5)
    assert formulas.folder_bytes(QWEN["72B"]) / GB == pytest.approx(291, abs=0.5)
    assert formulas.checkpoint_bytes(QWEN["72B"].parameters) / GB == pytest.approx(872, abs=1)


def test_decoding_reads_the_weights_for_every_token():
    assert formulas.decoding_seconds(TOY, 10, 2, 1000.0) == 10 * 2 * TOY.parameters / 1000


def test_answers_hold_weights_and_cache():
    memory = formulas.inference_memory(TOY, 4, tokens=3, cached_tokens=20, logits=2)
    assert memory.weights == 4 * TOY.parameters
    assert memory.kv_cache == 20 * (2 * 2 * 1 * 4 * 4)
    assert memory.logits == 2 * 4 * 2 * 100
    assert memory.activations == 3 * (4 * 8 + 3 * 24) * 4
