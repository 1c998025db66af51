"""What a sound smoke run owes is owed by models that are pre-trained here."""

import pytest

from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.report import sanity_checks
from soaes.report.results import Table, TableRow


def tables(base):
    goal = Recipe("soaes.stages.evaluate.evaluate", {"model": base})
    return {"table2": Table(None, {"full": TableRow("", recipes={0: {"evaluate": goal}})})}


def test_of_a_model_of_the_users_training_alone_is_checked(tmp_path):
    for stage in ("fetch", "local_model"):
        base = Recipe(f"soaes.stages.prepare.{stage}", {"repo": "owner/name"})
        (only,) = sanity_checks.check(tables(base), Store(tmp_path))
        assert only.text.startswith("every training stage lowers its validation perplexity")
    base = Recipe("soaes.stages.train.pretrain", {"layers": 1})
    with pytest.raises(KeyError, match="table1"):  # the exams of the base model come next
        sanity_checks.check(tables(base), Store(tmp_path))
