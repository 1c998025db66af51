"""Fixtures that tests of several packages share."""

import pytest

from tests.helpers.toys import save_decoding_world


@pytest.fixture(scope="module")
def decoding_world(tmp_path_factory):
    """A target, a draft and six questions as folders."""
    return save_decoding_world(tmp_path_factory.mktemp("decoding"))
