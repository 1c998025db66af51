"""Fixtures that tests of several packages share."""

import pytest
import torch

from tests.helpers.toys import save_decoding_world

torch.set_num_threads(1)  # as the worker does for a stage: tests that run side by side share cores


@pytest.fixture(scope="module")
def decoding_world(tmp_path_factory):
    """A target, a draft and six questions as folders."""
    return save_decoding_world(tmp_path_factory.mktemp("decoding"))
