"""The time profile counts the weights that a training step multiplies by."""

import pytest

from soaes.model.settings import PRECISIONS
from soaes.report import time_profile
from tests.helpers.toys import toy


def test_matrix_weights_are_all_but_embeddings_norms_and_biases():
    model = toy(0)
    counted = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and "embed" not in name
    )
    if model.config.tie_word_embeddings:
        counted += model.lm_head.weight.numel()
    assert time_profile.matrix_weights(model.config.to_dict()) == counted


def test_every_precision_has_the_type_of_its_products():
    assert set(time_profile.PRODUCTS) == set(PRECISIONS)


def test_a_row_that_is_not_built_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    with pytest.raises(ValueError, match="nothing of these rows is built"):
        time_profile.report(["experiment=table1", "scale=smoke"])
