"""What a stage would refuse, or do wrong, is refused when its job is composed.

The settings and kinds of single values are in test_compose.py.
"""

import inspect
import itertools
import re

import pytest

from soaes.decode.backends import vllm_environment
from soaes.pipeline import model_checks, provenance, recipe_checks, signatures, sweep
from soaes.pipeline.lineage import SAME_TOKENIZER
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import (
    GIVEN_BY_DISTILL,
    PARTIALS,
    _check_tokenizers,
    check_libraries,
    check_machines,
    check_peft,
)
from soaes.pipeline.runtime import Runtime
from soaes.pipeline.store import Store
from soaes.run import run
from soaes.stages import train
from tests.helpers.vllm_stand_in import stand_in


@pytest.fixture(autouse=True)
def store(run_folder, monkeypatch):
    """The store of the tests of composition: what several compose is composed once."""
    monkeypatch.setenv("SOAES_STORE", str(run_folder / "compose" / "store"))


SPEED = ["goal=speed", "subject=distill"]


@pytest.mark.parametrize("backend", ["transformers", "vllm"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["rule=block"], "rule=block: .*set rule=rejection, or backend=n", id="rule"),
        pytest.param(
            ["rule=token_match", "decode=prompt_lookup"], "rule=token_match: ", id="lookup-rule"
        ),
        pytest.param(
            ["speed.decode.adaptive=true"],
            "adaptive=true: .*set adaptive=false, or backend=native",
            id="adaptive",
        ),
        pytest.param(
            ["speed.decode.batch=4"], "batch=4: .*set batch=1, or backend=native", id="batch"
        ),
    ],
)
def test_what_another_library_cannot_decode_is_refused_by_name(
    monkeypatch, tmp_path, backend, words, message
):
    stand_in(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        sweep.jobs([*SPEED, "sampling=greedy", f"backend={backend}", *words])
    assert backend in str(error.value)
    sweep.jobs([*SPEED, "sampling=greedy", *words])


def test_a_missing_vllm_is_refused_with_the_way_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    for words in (["experiment=speed6"], [*SPEED, "decode=autoregressive"]):
        with pytest.raises(ValueError, match="none is not there; `make vllm` installs it"):
            sweep.jobs([*words, "backend=vllm"])


def test_a_vllm_that_is_to_read_a_teacher_is_missed_before_the_teacher_is_trained(
    monkeypatch, tmp_path
):
    """And not at all where it has been read."""
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    store = Store(tmp_path / "store")
    teacher = Recipe("soaes.stages.train.sft", {})
    read = Recipe("soaes.stages.teach.teach_vllm", {"model": teacher})
    distill = Recipe("soaes.stages.train.distill", {"teacher_logits": read})
    with pytest.raises(ValueError, match="`make vllm` installs it.*teacher_logits=transformers"):
        check_libraries(store, [distill], Runtime(store.root))
    with pytest.raises(ValueError, match="`make vllm` installs it.*teacher_logits=transformers"):
        run([f"runtime.store={tmp_path}", "goal=distill", "teacher_logits=vllm"])
    with store.build(read):
        pass
    check_libraries(store, [distill], Runtime(store.root))


def test_vllm_on_a_cpu_speculates_under_greedy_decoding_alone(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path)
    for words in (["experiment=speed6"], [*SPEED, "decode=prompt_lookup"]):
        with pytest.raises(ValueError, match="temperature=1.0: on a CPU .*set sampling=greedy"):
            sweep.jobs([*words, "backend=vllm"])
    for words in (["sampling=greedy"], ["decode=autoregressive"], ["runtime=one_gpu"]):
        assert sweep.jobs([*SPEED, "backend=vllm", *words])


VLLM = [*SPEED, "sampling=greedy", "backend=vllm"]
HEADS_OF_16 = ["target.origin.base.width=96", "target.origin.base.heads=6"]
DRAFT_OF_16 = ["draft.origin.base.width=64", "draft.origin.base.heads=4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            [*VLLM, *HEADS_OF_16],
            "target: width=96 over heads=6 gives heads of 16 .*or backend=native",
            id="target",
        ),
        pytest.param([*VLLM, *DRAFT_OF_16], "draft: width=64 over heads=4", id="draft"),
        pytest.param(
            ["goal=distill", "teacher_logits=vllm", *HEADS_OF_16],
            "model: width=96 over heads=6 .*or teacher_logits=transformers",
            id="teacher",
        ),
    ],
)
def test_heads_that_vllm_does_not_read_are_refused(monkeypatch, tmp_path, words, message):
    stand_in(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match=message):
        sweep.jobs(words)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([*SPEED, *HEADS_OF_16], id="native"),
        pytest.param([*VLLM, *DRAFT_OF_16, "decode=prompt_lookup"], id="no-draft"),
        pytest.param([*VLLM, *HEADS_OF_16, "runtime=one_gpu"], id="gpu"),
        pytest.param(["goal=distill", "teacher_logits=vllm"], id="teacher"),
    ],
)
def test_heads_that_nothing_forbids_are_composed(monkeypatch, tmp_path, words):
    stand_in(monkeypatch, tmp_path)
    assert sweep.jobs(words)


ANSWERING = pytest.mark.parametrize("goal", ["evaluate", "benchmark"])
ANSWERS = ["goal=evaluate", "backend=vllm"]
CUT = "runtime.execution.tensor_parallel"


@ANSWERING
def test_vllm_answers_by_one_option_and_other_recipes_keep_their_names(goal):
    (by_default,), (by_vllm,) = (
        sweep.jobs([f"goal={goal}", *words]) for words in ([], ["backend=vllm"])
    )
    assert "backend" not in by_default.recipe.written
    written = by_vllm.recipe.written
    assert written.pop("backend")["dtype"] == "float32"
    assert written == by_default.recipe.written
    (half,) = sweep.jobs([f"goal={goal}", "backend=vllm", "evaluate.backend.dtype=bfloat16"])
    assert half.recipe.written["backend"]["dtype"] == "bfloat16"


@ANSWERING
def test_a_missing_vllm_is_said_before_a_stage_is_built_and_not_in_a_plan(
    monkeypatch, tmp_path, goal
):
    monkeypatch.setenv(vllm_environment.VLLM, str(tmp_path / "none"))
    words = [f"runtime.store={tmp_path}", f"goal={goal}", "backend=vllm"]
    with pytest.raises(ValueError, match="`make vllm` installs it.*or backend=native"):
        run(words)
    assert run([*words, "dry=true"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            [*ANSWERS, "+evaluate.backend.device=cuda"],
            "backend.device: open_vllm_model has no such setting",
            id="unknown",
        ),
        pytest.param(
            ["goal=evaluate", "+evaluate.backend=${speed.backend}"],
            "not a backend of evaluate, open_native does not take model, execution",
            id="of-speed",
        ),
        pytest.param(
            [*ANSWERS, "evaluate.backend.dtype=float64"],
            "backend.dtype=float64: must be one of float32, bfloat16, float16",
            id="dtype",
        ),
        pytest.param([*ANSWERS, *HEADS_OF_16], "heads of 16 .*or backend=native", id="heads"),
        pytest.param(
            [*ANSWERS, "runtime=fsdp2", "runtime.execution.devices=4", f"{CUT}=2"],
            "tensor_parallel=2: vLLM cuts model, of 3 query and 1 key heads, evenly over 1, 3 of ",
            id="tensor-parallel",
        ),
    ],
)
def test_what_vllm_cannot_answer_with_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        sweep.jobs(words)


OTHER_TOKENIZER = (
    "{_target_:soaes.stages.prepare.tokenizer,documents:${data.documents},vocabulary:512,"
    "alphabet_size:100,alphabet_weight:20}"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["goal=target.cpt", f"rows.corpus.tokenizer={OTHER_TOKENIZER}"],
            "cpt: parent=.* holds token ids of tokenizer-.*, and rows=pack-.*; build both with",
            id="rows",
        ),
        pytest.param(
            ["goal=target.base", f"target.origin.base.tokenizer={OTHER_TOKENIZER}"],
            "pretrain: tokenizer=tokenizer-.* holds token ids of tokenizer-.*, and rows=pack-",
            id="pretrain",
        ),
    ],
)
def test_a_tokenizer_other_than_the_models_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        sweep.jobs(words)


def folder_of(name, maker):
    """What a stage reads under an argument, with the token ids of a tokenizer or fetched model."""
    if name == "tokenizer":
        return maker
    rows = Recipe("soaes.stages.prepare.pack", {"tokenizer": maker})
    base = Recipe("soaes.stages.train.pretrain", {"tokenizer": maker, "rows": rows})
    model = Recipe("soaes.stages.train.sft", {"parent": base if maker.stage != "fetch" else maker})
    others = {
        "rows": rows,
        "teacher_logits": Recipe("soaes.stages.teach.teach", {"model": model, "rows": rows}),
        "target_trace": Recipe("soaes.stages.trace.target_trace", {"target": model}),
    }
    return others.get(name, model)


MAKERS = {
    "ours": Recipe("soaes.stages.prepare.tokenizer", {"vocabulary": 512}),
    "other": Recipe("soaes.stages.prepare.tokenizer", {"vocabulary": 513}),
    "fetched": Recipe("soaes.stages.prepare.fetch", {"repo": "a/b"}),
    "other_fetched": Recipe("soaes.stages.prepare.fetch", {"repo": "a/c"}),
}


@pytest.mark.parametrize("names", itertools.combinations(SAME_TOKENIZER, 2), ids="-".join)
def test_all_that_a_stage_reads_has_one_tokenizer(names):
    """Whether two fetched models share one is known once they are fetched."""

    def check(*makers):
        folders = [folder_of(name, MAKERS[maker]) for name, maker in zip(names, makers)]
        _check_tokenizers(Recipe("soaes.stages.some", dict(zip(names, folders))))

    for makers in (("ours", "ours"), ("fetched", "fetched"), ("fetched", "other_fetched")):
        check(*makers)
    for makers in (("ours", "other"), ("ours", "fetched"), ("fetched", "ours")):
        with pytest.raises(ValueError, match=f"some: {names[0]}=.* and {names[1]}=.* other words"):
            check(*makers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["subject=distill", "distill.module=${module}"],
            "not a module of distill, CausalLM does not take teacher_store, alpha, tau",
            id="loss-of-another-stage",
        ),
        pytest.param(
            ["target.cpt.module=${distill.module}"],
            "not a module of cpt, DistilledLM needs teacher_store, alpha, tau",
            id="loss-without-a-teacher",
        ),
        pytest.param(
            [*SPEED, "speed.backend=${module}"],
            "not a backend of speed, CausalLM does not take folders, settings",
            id="module-for-a-backend",
        ),
        pytest.param(
            ["target.cpt.module=${speed.backend}"],
            "not a module of cpt, open_native does not take model, lr",
            id="backend-for-a-module",
        ),
        pytest.param(
            [*SPEED, "speed.library=${module}"],
            "library=.*CausalLM, ...}: speed takes no option here, but str",
            id="option-for-a-word",
        ),
        pytest.param(
            ["subject=distill", "distill.module.divergence=${packing}"],
            "module.divergence=.*PackingSettings, ...}: DistilledLM takes no option here, but str",
            id="option-for-a-word-of-an-option",
        ),
        pytest.param(
            ["+module.adamw=true"],
            "module.adamw: the stage itself sets adamw",
            id="given-by-the-stage",
        ),
    ],
)
def test_an_option_where_another_belongs_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        sweep.jobs(words)


def test_stages_give_a_module_what_they_are_said_to_give():
    """What is checked at composition is what soaes.stages.train calls."""
    given = set(PARTIALS["module"])
    assert given == set(signatures.parameters("soaes.model.causal_lm.CausalLM"))
    distilled = signatures.parameters("soaes.model.distilled_lm.DistilledLM")
    needed = {name for name, parameter in distilled.items() if parameter.required}
    assert needed - given == set(GIVEN_BY_DISTILL) and given < set(distilled)
    (call,) = re.findall(r"lit = module\((.*?)\n    \)", inspect.getsource(train), re.DOTALL)
    assert re.findall(r"^        (\w+)=", call, re.MULTILINE) == list(PARTIALS["module"])


@pytest.mark.parametrize(
    ("words", "cycle"),
    [
        pytest.param(
            ["target.cpt.parent=${target.sft2}"],
            "target.sft2 -> target.sft1 -> target.cpt -> target.sft2",
            id="through-stages",
        ),
        pytest.param(
            ["target.base=${target.base}"], "target.base -> target.base", id="of-one-reference"
        ),
        pytest.param(
            ["target.chat=${draft.chat}", "draft.chat=${target.chat}"],
            "target.chat -> draft.chat -> target.chat",
            id="of-references",
        ),
        pytest.param(["subject=evaluate"], "evaluate.model -> evaluate", id="the-goal-itself"),
        pytest.param(
            ["target.cpt.rows=${target.cpt}"], "target.cpt.rows -> target.cpt", id="in-a-stage"
        ),
    ],
)
def test_a_stage_that_reads_itself_is_refused_with_the_cycle(words, cycle):
    with pytest.raises(ValueError, match=f"{cycle}: nothing can read itself"):
        sweep.jobs(words)


def test_a_block_that_no_prediction_covers_is_refused():
    for goal in ("speed", "acceptance"):
        with pytest.raises(ValueError, match="n=9: .*set predict_acceptance.max_n=9"):
            sweep.jobs([f"goal={goal}", "subject=distill", "speed.decode.n=9"])
    words = ["speed.decode.n=9", "predict_acceptance.max_n=9"]
    assert sweep.jobs([*SPEED, *words])
    assert sweep.jobs([*SPEED, "speed.decode.n=9", "speed.prediction=null"])


def test_a_batch_of_one_is_no_part_of_a_recipe():
    for goal in ("speed", "acceptance"):
        words = [f"goal={goal}", "subject=distill"]
        (plain,), (one,), (four,) = (
            sweep.jobs([*words, *more])
            for more in ([], ["speed.decode.batch=1"], ["speed.decode.batch=4"])
        )
        assert "batch" not in plain.recipe.written["decode"]
        assert plain.recipe.name == one.recipe.name != four.recipe.name
        assert four.recipe.written["decode"]["batch"] == 4
    for batch in (9, 0, "true"):
        with pytest.raises(ValueError, match="batch=.*texts that are decoded together"):
            sweep.jobs([*SPEED, f"speed.decode.batch={batch}"])


def test_adapters_need_peft_where_a_stage_is_to_train_them(monkeypatch, tmp_path):
    monkeypatch.setattr(recipe_checks, "find_spec", lambda name: None)
    store = Store(tmp_path)
    (whole,) = sweep.jobs(["goal=target.cpt"])
    (adapted,) = sweep.jobs(["goal=target.cpt", "optim=lora"])
    check_peft(store, [whole.recipe])
    with pytest.raises(ValueError, match="peft, which is not installed; .*lora.*optim=phases"):
        check_peft(store, [adapted.recipe])


def test_adapters_of_matrices_that_a_known_family_lacks_are_refused(tmp_path):
    (job,) = sweep.jobs(["goal=target.cpt", "optim=lora", "optim.lora.target_modules=[q_proj,qkv]"])
    with pytest.raises(ValueError, match="target_modules: qkv: a model of type qwen2 has no such"):
        model_checks.check(Store(tmp_path), [job.recipe], job.runtime)


def test_a_speed_is_not_measured_on_a_gpu_of_which_nothing_is_known(tmp_path):
    """As from a login node: two kinds of GPU would share a recipe, and the second find the first's
    numbers."""
    words = [*SPEED, "runtime.execution.device=cuda"]
    store = Store(tmp_path / "store")
    (job,) = sweep.jobs([*words, f"speed.machine={provenance.NO_GPU}"])
    with pytest.raises(ValueError, match="device=cuda: a speed is valid .* set speed.machine to"):
        check_machines(store, [job.recipe])
    (named,) = sweep.jobs([*words, 'speed.machine="NVIDIA A"'])
    check_machines(store, [named.recipe])
    assert named.recipe.name != job.recipe.name
