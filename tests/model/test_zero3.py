"""Laws of training in shares by DeepSpeed's ZeRO-3, on two ranks of this machine: as of FSDP2."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers import ranks, shards

pytest.importorskip("deepspeed", reason="DeepSpeed is an extra: pip install '.[deepspeed]'")
pytestmark = pytest.mark.nightly

# DeepSpeed compiles its operators when it is used for the first time.
SECONDS = 1200

KEPT = shards.two("zero3", checkpoint_every=1e-9)  # a checkpoint before each step


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Toy parents, and what one process makes of them."""
    root = tmp_path_factory.mktemp("shares")
    shards.prepare_parents(root)
    for stage in shards.STAGES:
        shards.build(root, root / "one" / stage, stage, shards.ONE)
    shards.build(root, root / "one" / "tied", "sft", shards.ONE, parent="tied")
    return root


@pytest.fixture(scope="module", params=[False, True], ids=["on-device", "offloaded"])
def built(request, root):
    """What two ranks make of the toy parents, with the optimizer's state here or there."""
    out = root / f"offload-{request.param}"
    execution = shards.two("zero3", cpu_offload=request.param)
    assert ranks.run(shards.build_all, root, out, execution, seconds=SECONDS) == [0, 0]
    return out


@pytest.mark.parametrize("stage", (*shards.STAGES, "tied"))
def test_two_ranks_learn_what_one_process_learns(root, built, stage):
    """Also the norm that is logged, before gradients are clipped."""
    one, two = root / "one" / stage, built / stage
    assert len(shards.losses(two)) == shards.STEPS
    assert shards.loss_difference(one, two) < 1e-6
    assert shards.points(two) == [pytest.approx(line, rel=1e-5) for line in shards.points(one)]
    if stage == "tied":
        loaded = AutoModelForCausalLM.from_pretrained(two, dtype="auto")
        assert loaded.dtype == torch.bfloat16
    else:
        assert shards.weight_difference(one, two) < 1e-5


def test_a_rank_holds_half_of_the_weights_and_buffers_as_they_were_made(built):
    for rank in (0, 1):
        facts = json.loads((built / "sft" / f"facts-{rank}.json").read_text())
        assert facts["held"] <= facts["whole"] / 2 * 1.1  # shares are padded
        assert set(facts["buffers"].values()) == {"torch.float32"}
        assert facts["decay"] == [0.1, 0.0]  # which matrices decay, the weights show


def test_a_step_takes_half_of_all_states_and_a_few_buffers(root, tmp_path):
    """Weights twice, gradients and two moments; two layers that are gathered, a bucket of
    gradients, and a matrix of the vocabulary with its gradient, each also as it is sent: none has
    more than 8 MB."""
    shards.prepare_large(root)
    execution = shards.two("zero3")
    arguments = (root, tmp_path, execution)
    assert ranks.run(shards.measure_training, *arguments, seconds=SECONDS) == [0, 0]
    for rank in (0, 1):
        memory = json.loads((tmp_path / f"memory-{rank}.json").read_text())
        assert memory["whole"] > 70e6
        assert memory["peak"] < 5 * memory["whole"] / 2 + 2 * 5 * 8e6


@pytest.mark.parametrize("built", [False], indirect=True, ids=["on-device"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", shards.PLACES)
def test_a_rank_killed_anywhere_changes_nothing(root, built, tmp_path, place, rank):
    out = tmp_path / "killed"
    assert ranks.run(shards.build_mortal, root, out, "sft", KEPT, rank, place)[rank] == -9
    (out / "curves.jsonl").unlink(missing_ok=True)  # the store keeps checkpoints alone
    assert ranks.run(shards.build, root, out, "sft", KEPT) == [0, 0]
    assert shards.curves(out) == shards.curves(built / "sft")
    assert shards.weight_difference(out, built / "sft") == 0


def test_a_checkpoint_of_shares_is_refused_by_another_strategy_and_kept(root, tmp_path):
    out = tmp_path / "killed"
    assert ranks.run(shards.build_mortal, root, out, "sft", KEPT, 1, "within-a-step")[1] == -9
    whole = shards.two("ddp", checkpoint_every=1e-9)
    assert 0 not in ranks.run(shards.build, root, out, "sft", whole)
    assert list((out / "resume").iterdir()), "refused, and nothing dropped"


def test_one_rank_with_its_optimizer_in_the_hosts_memory_learns_the_same(root, tmp_path):
    """As runtime=one_gpu_offload trains on a card."""
    execution = replace(shards.ONE, strategy="zero3", cpu_offload=True)
    arguments = (root, tmp_path, "sft", execution)
    assert ranks.run(shards.build, *arguments, ranks=1, seconds=SECONDS) == [0]
    one = root / "one" / "sft"
    assert shards.loss_difference(one, tmp_path) < 1e-6
    assert shards.weight_difference(one, tmp_path) < 1e-5


def half(root, out, execution):
    optim = replace(shards.OPTIM, precision="bf16-mixed")
    shards.build(root, out, "sft", execution, optim, parent="tied")


@pytest.mark.parametrize("offload", [False, True], ids=["on-device", "offloaded"])
def test_bfloat16_is_the_type_of_what_computes_and_float32_of_what_learns(root, tmp_path, offload):
    """Losses are those of float32 but for rounding; buffers stay float32."""
    execution = shards.two("zero3", cpu_offload=offload)
    assert ranks.run(half, root, tmp_path, execution, seconds=SECONDS) == [0, 0]
    assert 0 < shards.loss_difference(root / "one" / "tied", tmp_path) < 0.05
    facts = json.loads((tmp_path / "facts-0.json").read_text())
    assert facts["weights"] == ["torch.bfloat16"]
    assert facts["summed"] == ["torch.float32", "torch.float32"]
    assert set(facts["buffers"].values()) == {"torch.float32"}
