"""Fixtures that tests of several packages share."""

import os

import pytest
import torch

from tests.helpers.toys import save_decoding_world

# One thread, as the worker gives a stage: tests that run side by side share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that a test starts
torch.set_num_threads(1)


# The modules of the longest tests, which start first: of two workers none is left with one alone.
LONGEST = ("test_notebooks.py", "test_run.py", "test_store.py", "test_bench_train.py")


def pytest_collection_modifyitems(items):
    """Order the tests: those of LONGEST before all others."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A folder that the workers of one test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="module")
def decoding_world(tmp_path_factory):
    """A target, a draft and six questions as folders."""
    return save_decoding_world(tmp_path_factory.mktemp("decoding"))
