"""What a stage would refuse, or do wrong, is refused when its job is composed.

The settings and kinds of single values are in test_compose.py.
"""

import sys

import pytest

from soaes.decode.backends import vllm_environment
from soaes.pipeline import sweep
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.recipe_checks import check_libraries
from soaes.pipeline.store import Store
from soaes.run import run


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
    monkeypatch, backend, words, message
):
    monkeypatch.setenv(vllm_environment.VLLM, sys.executable)
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


def test_vllm_on_a_cpu_speculates_under_greedy_decoding_alone(monkeypatch):
    monkeypatch.setenv(vllm_environment.VLLM, sys.executable)
    for words in (["experiment=speed6"], [*SPEED, "decode=prompt_lookup"]):
        with pytest.raises(ValueError, match="temperature=1.0: on a CPU .*set sampling=greedy"):
            sweep.jobs([*words, "backend=vllm"])
    for words in (["sampling=greedy"], ["decode=autoregressive"], ["runtime=one_gpu"]):
        assert sweep.jobs([*SPEED, "backend=vllm", *words])


def test_a_block_that_no_prediction_covers_is_refused():
    for goal in ("speed", "acceptance"):
        with pytest.raises(ValueError, match="n=9: .*set predict_acceptance.max_n=9"):
            sweep.jobs([f"goal={goal}", "subject=distill", "speed.decode.n=9"])
    words = ["speed.decode.n=9", "predict_acceptance.max_n=9"]
    assert sweep.jobs([*SPEED, *words])
    assert sweep.jobs([*SPEED, "speed.decode.n=9", "speed.prediction=null"])
