"""Training stages on two ranks that each hold a share of the model, and beside them one process."""

import ctypes
import json
import os
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from soaes.model import checkpoint, sharding, train_state
from soaes.model.causal_lm import CausalLM
from soaes.model.distilled_lm import DistilledLM
from soaes.model.fsdp2 import Fsdp2
from soaes.model.settings import CosineSchedule, OptimizerSettings
from soaes.model.zero3 import Zero3
from soaes.pipeline.runtime import Execution, first_rank
from soaes.pipeline.tracking import Tracker
from soaes.stages import train
from tests.helpers.mortals import die, prepare
from tests.helpers.toys import toy

STAGES = ("cpt", "sft", "distill")
ONE = Execution(micro_batch_size=1)
STEPS = 5
OPTIM = OptimizerSettings(
    lr=2e-3,
    global_batch_size=4,
    epochs=1,
    schedule=CosineSchedule(warmup=0.2, final=0.1),
    grad_clip=0.5,
    precision="32-true",
)
PARALLEL = {"fsdp2": Fsdp2, "zero3": Zero3}


def two(strategy, **how):
    """How two ranks run a stage."""
    return replace(ONE, devices=2, strategy=strategy, **how)


def prepare_parents(root):
    """Write toy rows and models, and one in bfloat16 whose embedding is also its output matrix."""
    prepare(root)
    tied = toy(1, tie_word_embeddings=True).to(torch.bfloat16)
    checkpoint.save(tied, root / "tied", root / "draft")


class Watched:
    """A Lightning module that writes down what a rank holds when its training ends."""

    def cpu(self):
        assert not sharding.is_sharded(self.model), "shares stay where they are"
        return super().cpu()

    def on_train_end(self):
        weights = list(self.model.parameters())
        decayed, others = self.trainer.optimizers[0].param_groups
        buffers = self.model.named_buffers()
        facts = {
            "weights": sorted({str(weight.dtype) for weight in weights}),
            "held": sum(sharding.own_share(weight).numel() for weight in weights),
            "whole": sum(sharding.whole_shape(weight).numel() for weight in weights),
            "buffers": {name: str(buffer.dtype) for name, buffer in buffers},
            "decay": [decayed["weight_decay"], others["weight_decay"]],
            "matrices": sum(len(sharding.whole_shape(weight)) > 1 for weight in weights),
            "decayed": len(decayed["params"]),
        }
        engine = self.trainer.model
        if hasattr(engine, "get_data_types"):  # DeepSpeed's; over micro-batches, and over ranks
            types = engine.optimizer.gradient_accumulation_dtype, engine.communication_data_type
            facts["summed"] = [str(dtype) for dtype in types]
        self.facts.write_text(json.dumps(facts))


class WatchedLM(Watched, CausalLM):
    pass


class WatchedDistilledLM(Watched, DistilledLM):
    pass


def build(root, out, stage, execution, optim=OPTIM, parent="draft"):
    """Run a stage into `out`, on this rank or in this process."""
    out.mkdir(parents=True, exist_ok=True)
    module = WatchedDistilledLM if stage == "distill" else WatchedLM
    module.facts = out / f"facts-{os.environ.get('RANK', 0)}.json"
    arguments = {"parent": root / parent, "rows": root / "rows", "module": partial(module)}
    if stage == "distill":
        arguments |= {"teacher_logits": root / "soft_targets", "alpha": 0.5, "tau": 2.0}
    tracker = Tracker(out / "curves.jsonl") if first_rank() else None
    function = getattr(train, stage)
    function(**arguments, optim=optim, seed=0, execution=execution, tracker=tracker, out=out)


def build_all(root, folder, execution):
    """Run every stage, one after another, and one from the tied parent into several files."""
    for stage in STAGES:
        build(root, folder / stage, stage, execution)
    sharding.FILE_BYTES = 20_000
    build(root, folder / "tied", "sft", execution, parent="tied")


# What a rank does when it is killed: (owner, function, call of it).
PLACES = {
    "first-step": (CausalLM, "training_step", 1),
    "within-a-step": (CausalLM, "training_step", 6),
    "validation": (CausalLM, "validation_step", 5),
    "before-its-share": (Fsdp2, "write_shares", 3),
    "after-its-share": (train_state, "_digest_shares", 3),
    "saving": (sharding, "save_weights", 1),
}


def build_mortal(root, out, stage, execution, rank, place):
    """Run a stage of which one rank is killed with signal 9 at a place."""
    owner, name, call = PLACES[place]
    if place == "before-its-share":
        owner = PARALLEL[execution.strategy]
    if int(os.environ["RANK"]) == rank:
        _die_at(owner, name, call)
    build(root, out, stage, execution)


def _die_at(owner, name, call):
    function, calls = getattr(owner, name), []

    def counted(*arguments, **named):
        calls.append(None)
        if len(calls) == call:
            die()
        return function(*arguments, **named)

    setattr(owner, name, counted)


def curves(folder):
    """Return the lines of the curves of a stage, without the times that they took."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("train/tokens_per_s", "seconds"):
            line.pop(name, None)
    return lines


def points(folder):
    """Return the lines of a stage's steps, and the perplexities before the first and at the end.

    When the others are measured depends on the micro-batches of a step.
    """
    steps = [line for line in curves(folder) if "train/loss" in line]
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("val/perplexity_before", "val/perplexity")
    return [*steps, {name: metrics[name] for name in names}]


def losses(folder):
    """Return the losses of the steps of a stage."""
    return [line["train/loss"] for line in curves(folder) if "train/loss" in line]


def weights(folder):
    """Return the weights of a folder by name."""
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def loss_difference(folder, other):
    """Return the largest difference between the losses of two runs of a stage."""
    pairs = zip(losses(folder), losses(other), strict=True)
    return max(abs(loss - other_loss) for loss, other_loss in pairs)


def weight_difference(folder, other):
    """Return the largest difference between the weights of two folders."""
    own, others = weights(folder), weights(other)
    assert own.keys() == others.keys()
    return max(float((own[name] - others[name]).abs().max()) for name in own)


# ---------------------------------------------------------------- memory


def prepare_large(root):
    """Write a model of 78 MB, of which a layer has 7 MB and the embedding 8 MB."""
    config = Qwen2Config(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=4096,
        intermediate_size=512,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(config)
    checkpoint.save_description(model, root / "large", root / "draft")
    model.save_pretrained(root / "large", max_shard_size="30MB")


def measure_loading(root, out, strategy):
    """Load the large model in shares, and write the rank's peak of memory in bytes."""
    return_what_is_freed()
    parallel = PARALLEL[strategy](two(strategy), "32-true")
    parallel.load(root / "draft")  # what is loaded once for all models
    with Peak() as peak:
        model = parallel.load(root / "large")
    whole = sum(sharding.whole_bytes(weight) for weight in model.parameters())
    report = {"peak": peak.bytes, "whole": whole}
    (out / f"memory-{os.environ['RANK']}.json").write_text(json.dumps(report))


def measure_training(root, out, execution):
    """Train the large model in shares, and write the rank's peak of memory in bytes.

    A first, small stage loads what is loaded once for all.
    """
    return_what_is_freed()
    build(root, out / "small", "sft", execution)
    sharding.FILE_BYTES = 20_000  # the first rank gathers one weight at a time when it saves
    with Peak() as peak:
        build(root, out / "large", "sft", execution, parent="large")
    facts = json.loads((out / "large" / f"facts-{os.environ['RANK']}.json").read_text())
    report = {"peak": peak.bytes, "whole": 4 * facts["whole"]}
    (out / f"memory-{os.environ['RANK']}.json").write_text(json.dumps(report))


def return_what_is_freed():
    """Let glibc return freed tensors at once, whatever the settings that this process began with.

    Else what was gathered and freed stays in its heap, and counts as held.
    """
    mmap_threshold = -3
    assert ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 18)


class Peak:
    """The most memory that a block of code takes, beside mapped files."""

    def __enter__(self):
        self.before = self.most = _anonymous()
        self.is_running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self):
        while self.is_running:
            self.most = max(self.most, _anonymous())
            time.sleep(0.002)

    def __exit__(self, *_):
        self.is_running = False
        self.thread.join()
        self.bytes = max(self.most, _anonymous()) - self.before


def _anonymous():
    status = Path("/proc/self/status").read_text().splitlines()
    lines = [line for line in status if line.startswith(("RssAnon", "RssShmem"))]
    return sum(int(line.split()[1]) * 1024 for line in lines)
