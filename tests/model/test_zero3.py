"""Laws of training in shares by DeepSpeed's ZeRO-3, on two ranks of this machine: as of FSDP2."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers import ranks, shards

pytest.importorskip("deepspeed", reason="DeepSpeed is an extra: pip install '.[deepspeed]'")
pytestmark = pytest.mark.nightly

# DeepSpeed compiles its operators when it is used for the first time.
SECONDS = 1200


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


def test_a_killed_rank_changes_nothing(root, built, tmp_path):
    kept = shards.two("zero3", checkpoint_every=1e-9)
    if built.name.endswith("True"):
        pytest.skip("once is enough")
    out = tmp_path / "killed"
    mortal = (root, out, "sft", kept, 1, "within-a-step")
    assert ranks.run(shards.build_mortal, *mortal)[1] == -9
    other = shutil.copytree(out, tmp_path / "other" / "killed")
    assert ranks.run(shards.build, root, out, "sft", kept) == [0, 0]
    assert shards.curves(out) == shards.curves(built / "sft")
    assert shards.weight_difference(out, built / "sft") == 0
    whole = shards.two("ddp", checkpoint_every=1e-9)
    assert 0 not in ranks.run(shards.build, root, other, "sft", whole)
    assert list((other / "resume").iterdir()), "refused, and nothing dropped"
