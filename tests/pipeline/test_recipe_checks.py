"""What a stage would refuse, or do wrong, is refused when its job is composed.

The settings and kinds of single values are in test_compose.py.
"""

import inspect
import re

import pytest

from soaes.decode.backends import vllm_environment
from soaes.pipeline import signatures, sweep
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import GIVEN_BY_DISTILL, PARTIALS, check_libraries
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
        check_libraries(store, [distill])
    with pytest.raises(ValueError, match="`make vllm` installs it.*teacher_logits=transformers"):
        run([f"runtime.store={tmp_path}", "goal=distill", "teacher_logits=vllm"])
    with store.build(read):
        pass
    check_libraries(store, [distill])


def test_vllm_on_a_cpu_speculates_under_greedy_decoding_alone(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path)
    for words in (["experiment=speed6"], [*SPEED, "decode=prompt_lookup"]):
        with pytest.raises(ValueError, match="temperature=1.0: on a CPU .*set sampling=greedy"):
            sweep.jobs([*words, "backend=vllm"])
    for words in (["sampling=greedy"], ["decode=autoregressive"], ["runtime=one_gpu"]):
        assert sweep.jobs([*SPEED, "backend=vllm", *words])


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
            ["+module.cpu_offload=true"],
            "module.cpu_offload: the stage itself sets cpu_offload",
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
