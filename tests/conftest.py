"""Fixtures that tests of several packages share."""

import fcntl
import gc
import os

import pytest

# One thread, as the worker gives a stage: tests that run side by side share the cores. torch reads
# this when it is imported, here and in the processes that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"

# What collecting the tests imports is no garbage, and looking for some takes a third of the time.
gc.disable()


# The modules of the longest tests, which start first: of two workers none is left with one alone.
LONGEST = ("test_notebooks.py", "test_run.py", "test_store.py", "test_bench_train.py")


def pytest_collection_modifyitems(items):
    """Order the tests: those of LONGEST before all others."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """Collect garbage again, but not among the modules."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A folder that the workers of one test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def made_once(run_folder):
    """Call make(folder) in the first worker that asks for a folder; the others wait for it."""

    def made(name, make):
        folder = run_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "made.txt", "a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock.fileno()).st_size:
                make(folder)
                lock.write("yes")
        return folder

    return made


@pytest.fixture(scope="session", autouse=True)
def shared_compositions(run_folder):
    """A folder in which the processes of one test run find what one of them composed."""
    from tests.helpers import compositions

    folder = run_folder / "compositions"
    folder.mkdir(exist_ok=True)
    os.environ[compositions.FOLDER] = str(folder)
    compositions.share()


@pytest.fixture(scope="session", autouse=True)
def one_server_of_forks():
    """Let stages that are built be forks of the same process as the tests' own."""
    from soaes.pipeline import scheduler
    from tests.helpers import forks

    scheduler.PRELOAD = forks.PRELOAD


@pytest.fixture(scope="module")
def decoding_world(tmp_path_factory):
    """A target, a draft and six questions as folders."""
    from tests.helpers.toys import save_decoding_world  # imports torch, which not all tests need

    return save_decoding_world(tmp_path_factory.mktemp("decoding"))
