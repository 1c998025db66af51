"""The bill of a plan: what it counts, how it reads, and that what does not fit is refused."""

import itertools
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from soaes.bill import formulas, report, workload
from soaes.bill import stage_bill as stages
from soaes.bill.machine import machine_of
from soaes.bill.stage_bill import sharding_of, soft_target_bytes, stage_bill
from soaes.bill.verdict import fit
from soaes.decode.backends import vllm_environment
from soaes.pipeline import hardware, sweep
from soaes.pipeline.forecast import Forecast
from soaes.pipeline.hardware import Hardware
from soaes.pipeline.store import Store
from tests.helpers.models import save_tokenizer
from tests.helpers.small import SMALL_MODELS, SMALL_WORLD
from tests.helpers.vllm_stand_in import stand_in

README = Path(__file__).parents[2] / "README.md"
GB = 1e9
PAPER = ["scale=paper", "runtime=a800x8", "goal=distill"]
FLOAT32, BFLOAT16 = 19.5e12, 312e12  # products a second of an A100 and an A800


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "product_rate", lambda threads: 50e9 * threads)
    monkeypatch.setattr(hardware, "free_memory", lambda: 16 * 10**9)
    monkeypatch.setattr(hardware, "whole_memory", lambda: 16 * 10**9)
    return Store(tmp_path / "store")


def job(store, *words):
    (one,) = sweep.compose_jobs([*words, f"runtime.store={store.root}"])
    return one


def stage(composed, name):
    """The last stage of a name among those of a job."""
    return [recipe for recipe in composed.recipe.ancestry().values() if recipe.stage == name][-1]


def billed(store, composed, name):
    runtime = composed.runtime
    return stage_bill(store, stage(composed, name), runtime, machine_of(runtime, store))


def bill_lines(store, composed):
    return list(report.lines(store, composed.recipe.ancestry(), composed.runtime, {}))


# ---------------------------------------------------------------------------- what is counted


def test_rows_that_are_not_packed_are_estimated_or_are_what_the_user_says(store):
    small = job(store, "goal=target.cpt", "world.enterprises=10", "world.docs_per_enterprise=8")
    rows = workload.rows_of(store, stage(small, "cpt").arguments["rows"], small.runtime)
    assert (
        rows.num_rows == -(-10 * 8 * workload.WORLD_TOKENS["corpus"] // 256) and not rows.is_counted
    )
    said = replace(small.runtime, expected_tokens={"corpus": 25_600.0})
    assert workload.rows_of(store, stage(small, "cpt").arguments["rows"], said).num_rows == 100


def test_rows_that_are_packed_are_counted(store):
    composed = job(store, "goal=target.cpt")
    pack = stage(composed, "cpt").arguments["rows"]
    folder = store.folder(pack.name)
    folder.mkdir(parents=True)
    packed = {"train": {"rows": 7, "loss_tokens": 7 * 128}}
    (folder / "packing_report.json").write_text(json.dumps(packed))
    assert workload.rows_of(store, pack, composed.runtime) == (7, 256, 0.5, True)
    # smoke: 2 epochs of 7 rows
    assert billed(store, composed, "cpt").tokens == 2 * 7 * 256


def test_a_budget_of_tokens_ends_training_within_an_epoch(store):
    composed = job(store, "goal=target.cpt", "optim.cpt.max_tokens=10_000")
    assert billed(store, composed, "cpt").tokens == 10_000 // (8 * 256) * 8 * 256


def test_the_model_of_our_own_is_the_one_that_is_made(store, tmp_path):
    from soaes.data import chat
    from soaes.model import checkpoint

    save_tokenizer(tmp_path / "words")
    vocabulary = chat.load_tokenizer(tmp_path / "words").get_vocab_size()
    composed = job(store, "goal=target.base", *SMALL_WORLD, *SMALL_MODELS)
    base = stage(composed, "pretrain")
    shape = workload.model_of(store, base, composed.runtime)
    names = ("layers", "width", "heads", "kv_heads", "context", "mlp_ratio")
    arguments = {name: base.arguments[name] for name in names}
    model = checkpoint.create(tmp_path / "words", seed=0, **arguments)
    same_words = replace(shape, vocabulary=vocabulary)
    assert sum(weight.numel() for weight in model.parameters()) == same_words.parameters
    assert shape.vocabulary == base.arguments["tokenizer"].arguments["vocabulary"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["runtime=a800x8"], ("zero3", 8, True)),
        (["runtime=fsdp2"], ("fsdp2", 8, False)),
        (["runtime=fsdp2", "runtime.execution.cpu_offload=true"], ("fsdp2", 8, True)),
        (["runtime=one_gpu"], ("whole", 1, False)),
        (["runtime=one_gpu_offload"], ("zero3", 1, True)),
        (
            [
                "runtime.execution.devices=2",
                "runtime.execution.strategy=ddp",
                "runtime.torchrun=[cpt]",
            ],
            ("ddp", 2, False),
        ),
    ],
    ids=["zero3", "fsdp2", "fsdp2-offloaded", "one", "one-offloaded", "ddp"],
)
def test_the_strategy_says_how_the_states_lie(store, words, kind):
    composed = job(store, "goal=target.cpt", "size=small", "scale=paper", *words)
    sharding = sharding_of(composed.runtime.execution, stage(composed, "cpt"), composed.runtime)
    assert tuple(vars(sharding).values()) == kind


def test_soft_targets_take_the_bytes_of_their_format(store):
    shape = workload.model_of(store, stage(job(store, *PAPER), "teach"), job(store, *PAPER).runtime)
    nodes = {
        "Hidden": ({"dtype": "float32"}, 4 * 8192),
        "Full": ({"dtype": "float16"}, 2 * 152_064),
        "TopK": ({"k": 256, "taus": [1, 2], "dtype": "float16"}, 256 * (2 + 4) + 2 * 4),
        "Sampled": ({"draws": 64, "taus": [1]}, 64 * 4 + 4),
    }
    for name, (arguments, expected) in nodes.items():
        node = {"_target_": f"soaes.model.settings.{name}", **arguments}
        assert soft_target_bytes(node, shape) == expected


def test_answers_take_the_time_of_reading_the_weights_or_of_float32(store):
    words = ["scale=paper", "runtime=one_gpu", "size=small"]
    words += ["max_new_tokens.report=100", "max_new_tokens.qa=50", "world.unseen_questions=0"]
    words += ["goal=evaluate", "eval_samples=100"]
    bill = billed(store, job(store, *words, "runtime.hardware.card=RTX-4090"), "evaluate")
    tokens = 3 * 100 + 97 * 50  # 3 % are reports
    steps = tokens // (8192 // (100 + workload.PROMPT_TOKENS))
    assert bill.tokens == tokens
    reading = steps * 4 * bill.parameters
    assert bill.seconds == pytest.approx(reading / 1008e9)
    assert bill.seconds > bill.flops / (82.6e12 * 0.4)
    assert bill.memory.weights == 4 * bill.parameters
    other = billed(store, job(store, *words, "runtime.hardware.card=A100-80GB"), "evaluate")
    assert other.seconds == pytest.approx(bill.flops / (FLOAT32 * 0.4))
    assert other.seconds > reading / 2039e9


def test_a_draft_is_judged_by_one_pass_over_the_trace(store):
    composed = job(store, "goal=predict_acceptance", "scale=paper", "subject=draft.chat")
    bill = billed(store, composed, "predict_acceptance")
    assert bill.kind == "predict_acceptance 7.62B"
    assert bill.tokens == billed(store, composed, "target_trace").tokens == 500 * 512 + 20 * 4096
    assert bill.memory.weights == 2 * bill.parameters  # in the trace's bfloat16


def test_a_decoder_with_a_draft_holds_both_models(store):
    words = ["scale=paper", "subject=draft.chat"]
    alone = billed(store, job(store, *words, "goal=target_trace"), "target_trace")
    both = billed(store, job(store, *words, "goal=acceptance"), "acceptance")
    assert both.memory.weights - alone.memory.weights == 2 * 7_615_616_512


def test_what_the_bill_counts_with_is_what_the_code_does():
    from soaes.data import datamodule
    from soaes.model import chunked_loss, generate, reference_loss

    assert formulas.LOSS_CHUNK == chunked_loss.CHUNK
    assert stages.CACHED_TOKENS == generate.MAX_CACHED_TOKENS
    assert stages.SCORED_TOKENS == reference_loss.CHUNK
    batches, limits = (1, 6, 8, 12, 64), (1, 3, 4, 8)
    cases = itertools.product(batches, limits, (1, 2, 4))
    for batch, limit, devices in cases:
        if batch % devices:
            continue
        ours = stages.micro_batch_size(batch, limit, devices)
        assert ours == datamodule._micro_batch_size(batch, limit, devices)


# ---------------------------------------------------------------------------------- how it reads


@pytest.mark.parametrize("words", [["scale=smoke"], ["scale=tiny"], PAPER], ids=" ".join)
def test_every_line_is_at_most_100_columns(store, words):
    lines = bill_lines(store, job(store, "subject=distill", *words))
    assert max(map(len, lines)) <= 100
    assert "  weights" in "\n".join(lines) and any("In all:" in line for line in lines)


def test_the_papers_setting_takes_months(store):
    text = " ".join(bill_lines(store, job(store, *PAPER, "runtime.expected_tokens.corpus=17e9")))
    assert re.search(r"cpt 72\.7B +1 +72\.7B +~17B +7\.8e\+21 +2,\d{3} h \(91 d\) +145 GB", text)
    assert "The paper's CPT reads 17B tokens: cpt 72.7B would take 2,180 h (91 d)." in text


def test_readme_shows_what_its_command_prints(store):
    section = README.read_text("utf-8").partition("## What it costs")[2]
    command, shown = re.search(r"```sh\n(.*?)\n```\n\n```text\n(.*?)\n```", section, re.S).groups()
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "soaes.run"]
    assert "\n".join(bill_lines(store, job(store, *words[3:]))) == shown


@pytest.mark.parametrize(
    ("name", "words", "rate"),
    [
        ("cpt", ["goal=distill"], BFLOAT16),
        ("cpt", ["goal=distill", "precision=32-true"], FLOAT32),
        ("teach", ["goal=distill"], FLOAT32),
        ("teach_vllm", ["goal=distill", "teacher_logits=vllm"], FLOAT32),
        (
            "teach_vllm",
            ["goal=distill", "teacher_logits=vllm", "teacher_logits.dtype=bfloat16"],
            BFLOAT16,
        ),
        ("benchmark", ["goal=benchmark"], FLOAT32),
        (
            "benchmark",
            ["goal=benchmark", "backend=vllm", "evaluate.backend.dtype=bfloat16"],
            BFLOAT16,
        ),
        ("predict_acceptance", ["goal=predict_acceptance", "subject=draft.chat"], BFLOAT16),
        (
            "predict_acceptance",
            ["goal=predict_acceptance", "subject=draft.chat", "speed.dtype=float32"],
            FLOAT32,
        ),
    ],
)
def test_a_stage_takes_as_long_as_its_arithmetic_does(store, name, words, rate):
    bill = billed(store, job(store, "scale=paper", "runtime=a800x8", *words), name)
    assert bill.seconds == pytest.approx(bill.flops / (bill.devices * rate * 0.4))


def test_the_logits_of_a_teacher_by_vllm_are_one_devices_in_float32(store):
    words = ["scale=paper", "runtime=a800x8", "goal=distill", "teacher_logits=vllm"]
    words.append("teacher_logits.dtype=bfloat16")
    hidden, topk = (
        billed(store, job(store, *words, *more), "teach_vllm")
        for more in ([], ["soft_targets=topk"])
    )
    assert hidden.encoding_flops == 0
    logits = 0.33 * topk.tokens * 2 * 152_064 * 8192  # a third of stage 2's tokens bear loss
    assert topk.encoding_flops == pytest.approx(logits, rel=0.01)
    rest = topk.flops - topk.encoding_flops
    expected = rest / (8 * BFLOAT16 * 0.4) + topk.encoding_flops / (FLOAT32 * 0.4)
    assert topk.seconds == pytest.approx(expected)
    assert topk.seconds > 1.3 * hidden.seconds


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        (["runtime=one_gpu", "runtime.hardware.card=L40S"], (362e12, 91.6e12)),
        (["runtime=one_gpu", "runtime.hardware.peak_tflops=160"], (160e12, 10e12)),
        (
            ["runtime=one_gpu", "runtime.hardware.card=L40S", "runtime.hardware.peak_tflops=400"],
            (400e12, 91.6e12),
        ),
        (
            [
                "runtime=one_gpu",
                "runtime.hardware.peak_tflops=148",
                "runtime.hardware.peak_tflops_float32=44",
            ],
            (148e12, 44e12),
        ),
        (["runtime=cpu"], (50e9, 50e9)),
        (["runtime=cpu", "runtime.hardware.peak_tflops=1"], (1e12, 1e12)),
        (["runtime=cpu", "runtime.hardware.peak_tflops_float32=1"], (1e12, 1e12)),
    ],
    ids=lambda value: value[-1].removeprefix("runtime.") if isinstance(value, list) else "",
)
def test_the_rate_in_float32_is_of_the_card_or_set_or_a_sixteenth(store, monkeypatch, words, rates):
    monkeypatch.setattr(hardware, "gpus_here", lambda: [])
    machine = machine_of(job(store, *words).runtime, store)
    assert (machine.rate, machine.rate_float32) == rates
    assert (machine.rate_in(2), machine.rate_in(4)) == rates


def test_the_time_to_go_of_a_stage_unlike_any_that_was_built_is_counted(store):
    composed = job(store, *PAPER, "runtime.expected_tokens.corpus=17e9")
    todo = composed.recipe.ancestry()
    counted = report.counted_seconds(store, todo, composed.runtime)
    expected = Forecast(store, todo, counted).seconds(stage(composed, "cpt").name)
    assert expected == billed(store, composed, "cpt").seconds > 200 * 3600
    assert Forecast(store, todo).seconds(stage(composed, "cpt").name) == 0
    on_cpu = job(store, "goal=target.cpt")
    assert report.counted_seconds(store, on_cpu.recipe.ancestry(), on_cpu.runtime) == {}


def test_small_scales_are_counted_in_seconds_and_megabytes(store):
    lines = bill_lines(store, job(store, "goal=target.cpt", "scale=smoke"))
    (memory,) = [line for line in lines if line.startswith("MB of a device")]
    assert memory.split()[-1] == "fits"
    assert any(line.startswith("cpt 3x96") and " s " in line for line in lines)


def test_what_was_measured_here_is_marked_and_equal_stages_are_one_line(store):
    jobs = [job(store, "goal=target.cpt", f"optim.cpt.lr={rate}") for rate in (1e-3, 2e-3)]
    todo = {one.recipe.name: one.recipe for one in jobs}
    measured = dict(zip(todo, (30.0, 50.0), strict=True))
    lines = list(report.lines(store, todo, jobs[0].runtime, measured))
    (line,) = [line for line in lines if line.startswith("cpt 3x96") and "*" in line]
    assert line.split()[2] == "2" and "40 s*" in line
    assert "In all: 80 s of one worker, 40 s with 2 side by side." in lines


def test_a_gpu_that_is_not_here_and_not_named_is_said(store, monkeypatch):
    monkeypatch.setattr(hardware, "gpus_here", lambda: [])
    composed = job(store, "scale=paper", "goal=target.cpt", "runtime=one_gpu")
    text = " ".join(bill_lines(store, composed))
    assert "memory is not known (set runtime.hardware.card" in text
    assert "rate not known (set runtime.hardware.peak_tflops)" in text


def test_a_model_whose_shape_is_not_kept_is_said(store):
    words = ["scale=paper", "goal=target.cpt", "size=small", "runtime=a800x8"]
    composed = job(store, *words, "draft.origin.base.repo=owner/name")
    text = " ".join(bill_lines(store, composed))
    assert "Not counted: owner/name: the layers of this model are not known here" in text
    assert report.check(store, composed.recipe.ancestry(), composed.runtime) == []


# ------------------------------------------------------------------------------- what does not fit


def test_a_stage_that_does_not_fit_a_gpu_is_refused_with_the_way_out(store):
    words = ["scale=paper", "size=small", "goal=target.cpt", "runtime=one_gpu"]
    words.append("runtime.hardware.card=H100-80GB")
    words.append("runtime.hardware.host_memory_gb=200")
    composed = job(store, *words)
    message = (
        r"cpt 7\.62B: needs .* 80\.0 GB .*; set optim=lora runtime\S*, which trains adapters "
        "alone, or runtime=one_gpu_offload, with .*the host, or runtime=a800x8"
    )
    with pytest.raises(ValueError, match=message):
        report.check(store, composed.recipe.ancestry(), composed.runtime)
    lines = " ".join(bill_lines(store, composed))
    assert "Does not fit: cpt 7.62B: needs" in lines and "NO" in lines


ROWS = "runtime.execution.micro_batch_size=1"
RECOMPUTING = "runtime.execution.gradient_checkpointing=true"


@pytest.mark.parametrize(
    "way_out", [[ROWS], [RECOMPUTING], [RECOMPUTING, ROWS]], ids=["rows", "recomputing", "both"]
)
def test_the_way_out_is_the_mildest_that_fits(store, way_out):
    words = ["scale=paper", "size=small", "goal=target.cpt", "runtime=one_gpu"]
    words.append("runtime.hardware.host_memory_gb=200")
    words += ["runtime.execution.micro_batch_size=8", "++" + RECOMPUTING.replace("true", "false")]
    if way_out == [RECOMPUTING]:  # else one row at once without it is the less
        words.append(ROWS)
    needed = billed(store, job(store, *words, *way_out), "cpt").device_bytes
    composed = job(store, *words, f"runtime.hardware.device_memory_gb={needed / GB + 1}")
    with pytest.raises(ValueError, match=rf"; set {re.escape(' '.join(way_out))} \("):
        report.check(store, composed.recipe.ancestry(), composed.runtime)


ONE_GPU = ["scale=one_gpu", "runtime=one_gpu", "runtime.hardware.host_memory_gb=80"]


def test_one_gpu_fits_a_card_of_24_gb_and_a_smaller_card_is_told_what_fits(store):
    composed = job(store, *ONE_GPU, "subject=distill", "runtime.hardware.card=RTX-4090")
    todo, runtime = composed.recipe.ancestry(), composed.runtime
    assert report.check(store, todo, runtime) == []
    trained = billed(store, composed, "cpt").memory
    matrices = 2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11_008)
    adapters = 36 * 64 * matrices
    assert trained.gradients == 4 * adapters and trained.optimizer == 8 * adapters

    def on(gigabytes):
        smaller = replace(runtime.hardware, card=None, device_memory_gb=gigabytes)
        return replace(runtime, hardware=smaller)

    with pytest.raises(ValueError, match=rf"cpt 3\.09B: needs 19.* set {ROWS} \("):
        report.check(store, todo, on(18))
    both = (
        "; set optim=phases runtime=one_gpu_offload, .*, or optim=phases runtime=a800x8, on eight"
    )
    with pytest.raises(ValueError, match=f"cpt 3.*{both}"):
        report.check(store, todo, on(12))


def test_all_weights_fit_one_card_with_the_optimizer_in_the_hosts_memory(store):
    """As README says of the models of one_gpu; a host that is too small is told so."""
    words = [*ONE_GPU, "subject=distill", "optim=phases", "runtime.hardware.card=RTX-4090"]
    with pytest.raises(ValueError, match="runtime=one_gpu_offload, with the optimizer in the mem"):
        whole = job(store, *words)
        report.check(store, whole.recipe.ancestry(), whole.runtime)
    composed = job(store, *words, "runtime=one_gpu_offload")
    assert report.check(store, composed.recipe.ancestry(), composed.runtime) == []
    memory = billed(store, composed, "cpt").memory
    parameters = 3_085_938_688
    assert memory.weights == 2 * parameters and memory.host == 20 * parameters
    assert memory.gradients == memory.optimizer == 0
    small = job(store, *words, "runtime=one_gpu_offload", "runtime.hardware.host_memory_gb=32")
    with pytest.raises(ValueError, match="cpt 3.*needs 67 GB of the 32 GB of the host"):
        report.check(store, small.recipe.ancestry(), small.runtime)
    with pytest.raises(
        ValueError, match="adapters are not trained in shares by zero3.*optim=phases"
    ):
        job(store, *ONE_GPU, "subject=distill", "runtime=one_gpu_offload")


def test_eight_gpu_fits_cards_of_80_gb(store):
    words = ["scale=eight_gpu", "runtime=fsdp2", "subject=distill"]
    words += ["runtime.hardware.card=A800-80GB", "runtime.hardware.host_memory_gb=500"]
    composed = job(store, *words)
    assert report.check(store, composed.recipe.ancestry(), composed.runtime) == []


@pytest.mark.nightly
def test_the_tables_of_one_gpu_take_the_hours_that_readme_says(store):
    pattern = r"soaes\.run (dry=true scale=one_gpu .*)\n```\n\n```text\n(In all: .*)\n"
    command, line = re.search(pattern, README.read_text("utf-8")).groups()
    jobs = [job for words in sweep.sweeps_of(shlex.split(command)) for job in sweep.jobs(words)]
    todo = {name: stage for job in jobs for name, stage in job.recipe.ancestry().items()}
    assert line in list(report.lines(store, todo, jobs[0].runtime, {}))


def test_a_teacher_of_one_device_that_is_too_large_is_given_to_vllm(store):
    composed = job(store, *PAPER, "runtime.hardware.host_memory_gb=4000")
    with pytest.raises(ValueError, match=r"teach 72\.7B: needs .* set teacher_logits=vllm"):
        report.check(store, composed.recipe.ancestry(), composed.runtime)


@pytest.mark.parametrize("goal", ["evaluate", "benchmark"])
def test_answers_of_a_model_that_is_too_large_are_given_to_vllm(store, goal):
    words = ["scale=paper", "runtime=a800x8", f"goal={goal}"]
    composed = job(store, *words, "runtime.hardware.host_memory_gb=4000")
    with pytest.raises(ValueError, match=rf"{goal} 72\.7B: needs .* set backend=vllm, which cuts"):
        report.check(store, composed.recipe.ancestry(), composed.runtime)
    by_vllm = job(store, *words, "backend=vllm")
    bill = billed(store, by_vllm, goal)
    assert bill.devices == 8 and bill.memory.weights == 4 * bill.parameters / 8
    draft = billed(store, job(store, *words, "backend=vllm", "subject=draft.chat"), goal)
    assert draft.devices == 4  # of 28 heads


def test_a_teacher_by_vllm_is_cut_and_its_output_matrix_is_held_whole(store):
    composed = job(store, *PAPER, "teacher_logits=vllm")
    bill = billed(store, composed, "teach_vllm")
    shape = workload.model_of(store, stage(composed, "teach_vllm"), composed.runtime)
    assert bill.devices == 8 and bill.memory.weights == 4 * shape.parameters / 8
    assert bill.memory.logits == 4 * shape.matrix_parameters


# ---------------------------------------------------------------- the shares of vLLM's engines

VLLM_GPU = ["runtime=one_gpu", "backend=vllm", "runtime.hardware.host_memory_gb=200"]


def on_card(composed, gigabytes):
    """The same runtime with devices of so many gigabytes."""
    sized = replace(composed.runtime.hardware, card=None, device_memory_gb=gigabytes)
    return replace(composed.runtime, hardware=sized)


def refusal(store, composed, name, runtime):
    """What a stage alone is refused by; empty if it is not."""
    one = stage(composed, name)
    try:
        report.check(store, {one.name: one}, runtime)
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An environment of vLLM by its files alone."""
    stand_in(monkeypatch, tmp_path)


def test_speed_by_vllm_has_two_engines_of_45_percent_each(store, installed):
    words = ["scale=one_gpu", "goal=speed", "subject=distill", *VLLM_GPU]
    composed = job(store, *words)
    bill = billed(store, composed, "speed")
    target = workload.model_of(store, stage(composed, "speed"), composed.runtime)
    draft = workload.draft_of(store, stage(composed, "speed"), composed.runtime)
    both = 2 * (target.parameters + draft.parameters)
    assert bill.share == vllm_environment.PAIR_SHARE == 0.45
    assert bill.memory.weights == both + 2 * target.parameters  # the baseline's target as well
    assert both < bill.engine < bill.memory.device - 2 * target.parameters

    fits = bill.engine / 0.45 / GB
    assert bill.memory.device < fits * GB, "a whole card would hold both engines"
    assert refusal(store, composed, "speed", on_card(composed, fits * 1.001)) == ""
    refused = refusal(store, composed, "speed", on_card(composed, fits * 0.999))
    assert re.search(
        r"speed 3\.09B: needs [\d.]+ GB of the [\d.]+ GB that an engine of vLLM is given, 45% of a "
        r"device .*; set backend=native, which has the device to itself",
        refused,
    )
    in_float32 = job(store, *words, "speed.dtype=float32")
    refused = refusal(store, in_float32, "speed", on_card(in_float32, fits * 1.1))
    assert "; set speed.dtype=bfloat16, or backend=native" in refused


def test_speed_by_vllm_without_a_draft_holds_the_target_once_or_twice(store, installed):
    words = ["scale=one_gpu", "goal=speed", *VLLM_GPU]
    for decode, times in (("autoregressive", 1), ("prompt_lookup", 2)):
        bill = billed(store, job(store, *words, f"decode={decode}"), "speed")
        assert bill.memory.weights == times * 2 * bill.parameters
        assert bill.engine == pytest.approx(2 * bill.parameters, rel=0.05)


def test_a_card_that_is_too_small_for_every_way_is_told_its_size(store, installed):
    composed = job(store, "scale=one_gpu", "goal=speed", "subject=distill", *VLLM_GPU)
    bill = billed(store, composed, "speed")
    needed = f"{bill.engine / 0.45 / 0.95 / GB:.0f}"
    refused = refusal(store, composed, "speed", on_card(composed, 4))
    assert f"or a larger card (runtime.hardware.device_memory_gb={needed})" in refused
    assert fit(bill, machine_of(on_card(composed, float(needed)), store)) in ("yes", "tight")


@pytest.mark.parametrize(
    ("goal", "share", "setting"),
    [
        ("evaluate", vllm_environment.MODEL_SHARE, "evaluate.backend.dtype=bfloat16"),
        ("teach_vllm", vllm_environment.READER_SHARE, "teacher_logits.dtype=bfloat16"),
    ],
)
def test_what_vllm_cuts_must_fit_its_share_of_each_device(store, installed, goal, share, setting):
    words = ["scale=one_gpu", f"goal={'distill' if goal == 'teach_vllm' else goal}", *VLLM_GPU]
    composed = job(store, *words, "subject=distill", "teacher_logits=vllm")
    if goal == "evaluate":
        composed = job(store, *words)
    bill = billed(store, composed, goal)
    assert bill.share == share
    held = bill.memory.weights + bill.memory.activations + bill.memory.kv_cache
    assert bill.engine == held >= 4 * bill.parameters

    fits = bill.engine / share / GB
    needed = bill.needed_bytes / GB  # of `evaluate` the logits lie beside the share
    assert needed >= fits
    assert refusal(store, composed, goal, on_card(composed, needed * 1.001)) == ""
    refused = refusal(store, composed, goal, on_card(composed, fits * 0.999))
    whole = f"that an engine of vLLM is given, {share:.0%} of a device"
    assert whole in refused and f"; set {setting}, or runtime.execution.devices=2" in refused


def test_more_devices_and_bfloat16_are_told_together_where_neither_is_enough(store, installed):
    composed = job(store, "scale=paper", "goal=evaluate", *VLLM_GPU)
    refused = refusal(store, composed, "evaluate", on_card(composed, 24))
    assert "; set evaluate.backend.dtype=bfloat16 runtime.execution.devices=8 (" in refused
    by_one = job(store, "scale=paper", "goal=evaluate", "runtime=one_gpu")
    refused = refusal(store, by_one, "evaluate", on_card(by_one, 170))
    whole = "backend=vllm evaluate.backend.dtype=bfloat16, which cuts the model over the devices"
    assert f"; set {whole} (" in refused


def test_what_lies_beside_a_teacher_by_vllm_must_fit_what_its_share_leaves(store, installed):
    words = ["scale=one_gpu", "goal=distill", "subject=distill", *VLLM_GPU, "teacher_logits=vllm"]
    words += ["soft_targets=topk", "teacher_logits.dtype=bfloat16"]
    composed = job(store, *words)
    bill = billed(store, composed, "teach_vllm")
    assert bill.beside_engine == bill.memory.logits > 0
    limit = (bill.beside_engine + bill.process) / 0.3 / GB
    assert bill.engine / 0.7 / GB < limit
    refused = refusal(store, composed, "teach_vllm", on_card(composed, limit / 1.06))
    assert re.search(r"needs [\d.]+ GB beside vLLM of the [\d.]+ GB that its 70% leave", refused)
    assert refusal(store, composed, "teach_vllm", on_card(composed, limit)) == ""


def test_a_cpu_has_no_shares(store, installed):
    composed = job(store, "goal=evaluate", "backend=vllm")
    bill = billed(store, composed, "evaluate")
    assert bill.share is None and bill.needed_bytes == bill.device_bytes


def test_a_host_that_cannot_hold_the_models_of_all_ranks_is_said(store):
    composed = job(store, *PAPER)
    bill = billed(store, composed, "cpt")
    # 20 bytes a parameter are offloaded, and the first rank holds a file of 5 GB to save
    assert bill.host_bytes == bill.memory.host + 5e9 > bill.loading == 4 * bill.parameters
    little = replace(
        composed.runtime, hardware=replace(composed.runtime.hardware, host_memory_gb=900)
    )
    message = (
        r"cpt 72\.7B: needs [\d,]+ GB of the 900 GB of the host, with the weights that are gathered"
    )
    with pytest.raises(ValueError, match=message):
        report.check(store, composed.recipe.ancestry(), little)


def test_a_cpu_is_warned_of_and_refused_where_the_states_alone_are_too_much(store):
    composed = job(store, "goal=target.cpt", "scale=tiny")
    todo, runtime = composed.recipe.ancestry(), composed.runtime
    assert report.check(store, todo, runtime) == []
    little = replace(runtime, hardware=Hardware(host_memory_gb=0.7))
    warnings = report.check(store, todo, little)
    assert warnings and all(line.startswith("Warning: ") for line in warnings)
    assert "runtime.execution.micro_batch_size=1" in warnings[0]
    with pytest.raises(ValueError, match="needs .* of the free memory here"):
        report.check(store, todo, replace(runtime, hardware=Hardware(host_memory_gb=0.05)))


def test_a_stage_near_the_limit_has_no_margin(store):
    composed = job(store, "goal=target.cpt")
    bill = billed(store, composed, "cpt")
    machine = machine_of(composed.runtime, store)
    for share, word in ((0.9, "yes"), (0.99, "tight"), (1.04, "tight"), (1.06, "NO")):
        assert fit(bill, replace(machine, device_memory=bill.device_bytes / share)) == word


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("runtime.hardware.card=A900", "hardware.card=A900: must be one of A100"),
        ("runtime.hardware.device_memory_gb=0", "must be positive"),
        ("runtime.hardware.utilisation=40", r"must lie in \(0, 1\]"),
        ("+runtime.hardware.memory=80", "there is no such setting"),
        ("+runtime.expected_tokens.books=1e9", "must be one of general, corpus"),
        ("runtime.expected_tokens.corpus=-1", "must be positive"),
    ],
)
def test_settings_of_the_machine_are_checked(store, word, message):
    with pytest.raises(ValueError, match=message):
        job(store, word)
