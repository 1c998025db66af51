"""Laws of training in shares by FSDP2, on two ranks of this machine.

One launch builds every stage; the laws are read from what it leaves.
"""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from soaes.model import sharding
from tests.helpers import ranks, shards

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory in /proc")

KEPT = shards.two("fsdp2", checkpoint_every=1e-9)  # a checkpoint before each step


def parents(root):
    """Write toy parents, and what one process makes of them."""
    shards.prepare_parents(root)
    shards.prepare_large(root)
    for stage in shards.STAGES:
        shards.build(root, root / "one" / stage, stage, shards.ONE)
    shards.build(root, root / "one" / "tied", "sft", shards.ONE, parent="tied")


def everything(root, out):
    """Build every stage in shares, recomputing activations, and measure how a model is loaded."""
    shards.build_all(root, out, shards.two("fsdp2", gradient_checkpointing=True))
    shards.measure_loading(root, out, "fsdp2")


@pytest.fixture(scope="module")
def root(made_once):
    return made_once("fsdp2", parents)


@pytest.fixture(scope="module")
def built(root, made_once):
    """What two ranks make of the toy parents."""

    def make(folder):
        assert ranks.run(everything, root, folder) == [0, 0]

    return made_once("fsdp2/two", make)


@pytest.mark.parametrize("stage", shards.STAGES)
def test_two_ranks_learn_what_one_process_learns(root, built, stage):
    """Losses within 1e-6 and weights within 1e-5, with clipped gradients of two micro-batches."""
    one, two = root / "one" / stage, built / stage
    assert len(shards.losses(two)) == shards.STEPS
    assert shards.loss_difference(one, two) < 1e-6
    assert shards.weight_difference(one, two) < 1e-5
    assert shards.points(two) == [pytest.approx(line, rel=1e-5) for line in shards.points(one)]


def test_a_tied_matrix_is_learnt_as_by_one_process(root, built):
    assert shards.loss_difference(root / "one" / "tied", built / "tied") < 1e-6
    moved = shards.weights(built / "tied")["model.embed_tokens.weight"]
    parent = shards.weights(root / "tied")["model.embed_tokens.weight"]
    assert (moved != parent).float().mean() > 0.5


def test_a_folder_has_the_type_and_the_names_of_its_parent(root, built):
    """In several files, as one process writes them too."""
    folder = built / "tied"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(files) > 1 and sorted(set(index["weight_map"].values())) == files
    for name, file in index["weight_map"].items():
        assert name in load_file(folder / file)
    own, parents = shards.weights(folder), shards.weights(root / "tied")
    assert own.keys() == parents.keys()
    for made in (folder, root / "one" / "tied"):
        assert {weight.dtype for weight in shards.weights(made).values()} == {torch.bfloat16}
        assert AutoModelForCausalLM.from_pretrained(made, dtype="auto").dtype == torch.bfloat16


def test_a_rank_holds_half_of_all_weights_in_float32_and_buffers_as_they_were_made(built):
    for stage in (*shards.STAGES, "tied"):
        for rank in (0, 1):
            facts = json.loads((built / stage / f"facts-{rank}.json").read_text())
            assert facts["held"] * 2 == facts["whole"]
            assert facts["weights"] == ["torch.float32"]
            assert set(facts["buffers"].values()) == {"torch.float32"}
            assert any("inv_freq" in name for name in facts["buffers"])
            assert facts["decay"] == [0.1, 0.0] and facts["decayed"] == facts["matrices"] > 10


def test_a_model_is_loaded_without_the_whole_of_it(built):
    """Half of the model, and at most 8 MB, as its largest matrix; the whole has 75 MB."""
    for rank in (0, 1):
        memory = json.loads((built / f"memory-{rank}.json").read_text())
        assert memory["whole"] > 70e6
        assert memory["peak"] < memory["whole"] / 2 + 8e6


@pytest.mark.nightly
def test_a_step_takes_half_of_all_states_and_the_buffers_of_two_layers(root, tmp_path):
    """Weights, gradients and two moments; two layers at once, each with its gradient, and of both
    what is sent beside what is held: none has more than 8 MB."""
    assert ranks.run(shards.measure_training, root, tmp_path, shards.two("fsdp2")) == [0, 0]
    for rank in (0, 1):
        memory = json.loads((tmp_path / f"memory-{rank}.json").read_text())
        assert memory["whole"] > 70e6
        assert memory["peak"] < 4 * memory["whole"] / 2 + 2 * 2 * 2 * 8e6


@pytest.fixture(scope="module")
def killed(root, made_once):
    """What a stage leaves of which the second rank was killed within the third step."""

    def make(folder):
        codes = ranks.run(shards.build_mortal, root, folder, "sft", KEPT, 1, "within-a-step")
        assert codes[1] == -9

    return made_once("fsdp2/killed", make)


def test_a_killed_rank_changes_nothing(root, built, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "killed")
    assert sorted(path.name for path in (out / "resume").glob("step-*"))[-1] == "step-00000002"
    assert ranks.run(shards.build, root, out, "sft", KEPT) == [0, 0]
    assert shards.curves(out) == shards.curves(built / "sft")
    assert shards.weight_difference(out, built / "sft") == 0
    assert not (out / "resume").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", shards.PLACES)
def test_a_rank_killed_anywhere_changes_nothing(root, built, tmp_path, place, rank):
    out = tmp_path / "killed"
    codes = ranks.run(shards.build_mortal, root, out, "sft", KEPT, rank, place)
    assert codes[rank] == -9
    (out / "curves.jsonl").unlink(missing_ok=True)  # the store keeps checkpoints alone
    assert ranks.run(shards.build, root, out, "sft", KEPT) == [0, 0]
    assert shards.curves(out) == shards.curves(built / "sft")
    assert shards.weight_difference(out, built / "sft") == 0


@pytest.mark.nightly
def test_four_ranks_go_on_where_two_were_killed(root, built, killed, tmp_path):
    out = shutil.copytree(killed, tmp_path / "killed")
    four = replace(KEPT, devices=4)
    assert ranks.run(shards.build, root, out, "sft", four, ranks=4) == [0, 0, 0, 0]
    assert shards.loss_difference(out, built / "sft") < 1e-6
    assert shards.weight_difference(out, built / "sft") < 1e-5


def half(root, out):
    optim = replace(shards.OPTIM, precision="bf16-mixed")
    shards.build(root, out, "sft", shards.two("fsdp2"), optim)


@pytest.mark.nightly
def test_bfloat16_is_the_type_of_the_arithmetic_alone(root, built):
    """Weights are float32, and losses those of float32 but for rounding."""
    out = root / "half"
    assert ranks.run(half, root, out) == [0, 0]
    assert 0 < shards.loss_difference(out, built / "sft") < 0.05
    facts = json.loads((out / "facts-0.json").read_text())
    assert facts["weights"] == ["torch.float32"]
    assert set(facts["buffers"].values()) == {"torch.float32"}


def test_files_hold_at_most_their_limit_and_names_keep_their_order():
    sizes = {"a": 3, "b": 3, "c": 10, "d": 1, "e": 4}
    assert sharding._split(sizes, 6) == [["a", "b"], ["c"], ["d", "e"]]
    assert sharding._split(sizes, 100) == [list(sizes)]
