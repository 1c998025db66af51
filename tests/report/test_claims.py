"""A planted effect holds, a null is undecided, a reversal fails.

Also margins, quotients and what is not measured.
"""

import csv

import numpy as np
import pytest

from soaes.data.jsonl import write_jsonl
from soaes.metrics.bootstrap import Effect, Measured
from soaes.metrics.samples import statistics
from soaes.report.claims import judge, verdict
from soaes.report.markdown import _claims, write_table, write_verdicts
from soaes.report.results import Table, TableRow
from soaes.report.table_spec import ColumnSpec, RowSpec, TableSpec, parse_claim, retained_at


def line(folder, row, gain, seeds=(0, 1, 2)):
    """A row whose Rouge-1 is `gain` above what the questions and the seed give all rows.

    Its predictions lie in a folder for each seed.
    """
    measured = {}
    for seed in seeds:
        rng = np.random.default_rng([seed, *row.encode()])
        hard_N = np.random.default_rng(0).normal(40, 12, size=150)
        scores_N = hard_N + gain + rng.normal(0, 0.4) + rng.normal(0, 5, size=150)
        rows = [
            {
                "id": f"test-{index}",
                "task": "qa",
                "question": f"{index}",
                "reference": "",
                "prediction": "",
                **dict.fromkeys(("rouge1", "rouge2", "rougeL", "bleu4"), float(score)),
            }
            for index, score in enumerate(scores_N)
        ]
        path = folder / f"{row}-{seed}" / "predictions.jsonl"
        write_jsonl(path, rows)
        measured[seed] = {
            "rouge1": Measured(float(scores_N.mean()), statistics(path)["rouge1"]),
            "proof": Measured("law"),
        }
    value = (
        float(np.mean([metrics["rouge1"].value for metrics in measured.values()]))
        if measured
        else None
    )
    return TableRow(
        row,
        values={"rouge1": value} if measured else {},
        paper={"rouge1": 40.0 + gain},
        missing="" if measured else "not built",
        measured=measured,
    )


def table(folder, claims, **gains):
    rows = {row: line(folder, row, gain) for row, gain in gains.items()} | {
        "absent": line(folder, "absent", 0.0, ())
    }
    return toy_table(rows, claims)


def toy_table(rows, claims):
    specs = {row: RowSpec(paper={"name": row}) for row in rows}
    columns = {"rouge1": ColumnSpec("Rouge-1", 1)}
    parsed = {key: parse_claim(spec) for key, spec in claims.items()}
    return Table(TableSpec("Toy", "Which is better?", specs, columns, parsed), rows)


def claim(*pairs, **changes):
    """A claim on Rouge-1 of (left, right) pairs."""
    sides = [{"left": left, "right": right} for left, right in pairs]
    return {"text": "a claim", "metric": "rouge1", "pairs": sides, **changes}


def judged(folder, changes=None, **claims):
    toy = table(folder, claims, base=0.0, same=0.0, better=4.0, worse=-4.0)
    return {result.claim: result for result in judge({"toy": toy} | (changes or {}), "toy")}


def test_effect_null_and_reversal(tmp_path):
    results = judged(
        tmp_path,
        effect=claim(["better", "base"]),
        null=claim(["same", "base"]),
        reversal=claim(["worse", "base"]),
    )
    assert {key: result.verdict for key, result in results.items()} == {
        "effect": "holds",
        "null": "undecided",
        "reversal": "fails",
    }
    effect = results["effect"].weakest.effect
    assert (
        effect.low < 4 < effect.high
        and effect.seeds == 3
        and results["effect"].weakest.paper == 4.0
    )


def test_further_metrics_are_judged_beside_a_claim_and_decide_nothing(tmp_path):
    (result,) = judged(
        tmp_path, effect=claim(["better", "base"], also=["rouge2", "rouge1"])
    ).values()
    assert result.verdict == "holds"
    assert result.also["rouge1"].verdict == "holds"
    assert result.also["rouge1"].weakest.text == "better.rouge1 - base.rouge1"
    assert result.also["rouge2"].verdict == "not measured"
    toy = table(tmp_path, {"effect": claim(["better", "base"], also=["rouge1"])}, base=0, better=4)
    text = "\n".join(_claims(judge({"toy": toy}, "toy")))
    assert "beside the claim, by rouge1: holds; better.rouge1 - base.rouge1: +4" in text
    with pytest.raises(ValueError, match="also= beside margin or within"):
        parse_claim(claim(["better", "base"], also=["rouge2"], within=1.0))


def test_a_metric_of_which_less_is_better_swaps_the_sides(tmp_path):
    (result,) = judged(tmp_path, effect=claim(["worse", "base"], also=["-rouge1"])).values()
    assert (result.verdict, result.also["rouge1"].verdict) == ("fails", "holds")
    assert result.also["rouge1"].weakest.text == "base.rouge1 - worse.rouge1"


def test_a_claim_holds_with_all_of_its_pairs_and_fails_with_any(tmp_path):
    good, open_, bad, absent = (
        ["better", "base"],
        ["same", "base"],
        ["worse", "base"],
        ["better", "absent"],
    )
    results = judged(
        tmp_path,
        all=claim(good, good),
        some=claim(good, open_),
        any=claim(good, open_, bad, absent),
        gone=claim(good, absent),
    )
    assert {key: result.verdict for key, result in results.items()} == {
        "all": "holds",
        "some": "undecided",
        "any": "fails",
        "gone": "not measured",
    }
    assert (
        results["some"].weakest.text == "same.rouge1 - base.rouge1"
        and results["any"].weakest.text == "worse.rouge1 - base.rouge1"
    )
    assert results["gone"].weakest.effect is None and results["gone"].weakest.paper == 4.0


def test_a_quotient_against_a_number_with_a_margin(tmp_path):
    same_quotient, worse_quotient = (
        [{"numerator": "same", "denominator": "base"}, 1],
        [{"numerator": "worse", "denominator": "base"}, 1],
    )
    results = judged(
        tmp_path,
        kept=claim(same_quotient, margin=0.05),
        lost=claim(worse_quotient, margin=0.05),
        strict=claim(same_quotient),
    )
    assert {key: result.verdict for key, result in results.items()} == {
        "kept": "holds",
        "lost": "fails",
        "strict": "undecided",
    }
    assert (
        results["lost"].weakest.effect.value == pytest.approx(-0.1, abs=0.03)
        and results["kept"].text == "a claim (margin 0.05)"
    )


def test_rows_of_other_tables(tmp_path):
    other = table(tmp_path / "other", {}, full=4.0)
    results = judged(
        tmp_path, {"other": other}, across=claim([{"table": "other", "row": "full"}, "base"])
    )
    assert results["across"].verdict == "holds"


@pytest.mark.parametrize(
    ("low", "high", "plain", "margin", "within"),
    [
        (0.1, 0.3, "holds", "holds", "holds"),
        (-0.3, 0.4, "undecided", "holds", "holds"),
        (-0.7, -0.1, "fails", "undecided", "holds"),
        (-1.5, 3.0, "undecided", "undecided", "undecided"),
        (-9.0, -3.0, "fails", "fails", "fails"),
        (3.0, 9.0, "holds", "holds", "fails"),
        (float("nan"), float("nan"), "undecided", "undecided", "undecided"),
    ],
)
def test_intervals_against_zero_a_margin_and_a_band(low, high, plain, margin, within):
    effect = Effect((low + high) / 2, low, high, 5)
    assert (verdict(effect), verdict(effect, margin=0.5), verdict(effect, within=2.0)) == (
        plain,
        margin,
        within,
    )


def test_verdicts_and_tables_are_written(tmp_path):
    toy = table(
        tmp_path,
        {
            "X1": claim(["better", "base"]),
            "X2": claim(["absent", "base"]),
        },
        base=0.0,
        better=4.0,
    )
    printed = write_verdicts({"toy": toy}, "tiny", tmp_path)
    assert "| X1    | holds " in printed and "not measured" in printed
    with open(tmp_path / "verdicts.csv", encoding="utf-8", newline="") as handle:
        measured, unmeasured = csv.DictReader(handle)
    assert float(measured["low"]) < float(measured["effect"]) < float(measured["high"])
    assert (
        measured["verdict"],
        measured["paper_effect"],
        measured["seeds"],
        measured["scale"],
    ) == (
        "holds",
        "4",
        "3",
        "tiny",
    )
    assert (unmeasured["verdict"], unmeasured["effect"], unmeasured["low"]) == (
        "not measured",
        "",
        "",
    )
    markdown = write_table({"toy": toy}, "toy", None, tmp_path)
    assert (
        "- **X1 holds**: a claim\n  - better.rouge1 - base.rouge1: +" in markdown
        and "not built" in markdown
    )
    with open(tmp_path / "toy.csv", encoding="utf-8", newline="") as handle:
        rows = {row["row"]: row for row in csv.DictReader(handle)}
    assert (
        rows["better"]["seeds"] == "3"
        and rows["better"]["rouge1_paper"] == "44"
        and rows["absent"]["rouge1"] == ""
    )
    assert rows["absent"]["missing"] == "not built"


def test_what_is_kept_is_read_off_the_curve_where_the_other_metric_reaches_the_level():
    assert retained_at([90.0, 80.0, 40.0], [25.0, 50.0, 70.0], 60.0) == pytest.approx(60 / 90)
    assert np.isnan(retained_at([90.0, 80.0], [25.0, 50.0], 60.0)), "no point knows as much"
    replicates = retained_at(
        [np.array([90.0, 90.0]), np.array([80.0, 60.0])],
        [np.array([20.0, 20.0]), np.array([60.0, 80.0])],
        50.0,
    )
    assert replicates == pytest.approx([(90 - 10 * 0.75) / 90, (90 - 30 * 0.5) / 90])


def test_sizes_are_compared_where_they_know_equally_much(tmp_path):
    curve = {
        "base": (90.0, 25.0),
        "low": (85.0, 45.0),
        "high": (50.0, 80.0),
        "small_base": (80.0, 25.0),
        "small_high": (40.0, 65.0),
    }
    rows = {
        row: TableRow(
            row,
            values={"average": average, "domain": domain},
            measured={0: {"average": Measured(average), "domain": Measured(domain)}},
        )
        for row, (average, domain) in curve.items()
    }
    along = {"score": "average", "matched": "domain", "level": 60}
    pair = {
        "left": {"curve": ["base", "low", "high"], **along},
        "right": {"curve": ["small_base", "small_high"], **along},
    }
    toy = toy_table(rows, {"T": {"text": "a claim", "pairs": [pair]}})
    (result,) = judge({"toy": toy}, "toy")
    large = "average retained at domain 60: base, low, high"
    assert result.weakest.text == f"{large} - average retained at domain 60: small_base, small_high"
    assert result.weakest.effect.value == pytest.approx(
        (85 - 35 * 15 / 35) / 90 - (80 - 40 * 35 / 40) / 80
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"left": "full", "right": 1}, "has no metric"),
        ({"left": {"row": "full"}, "right": 1, "metric": "rouge1"}, "is none of"),
        ({"left": 2, "right": 1}, "compares two numbers"),
        ({"left": "full", "right": 1, "metrc": "rouge1"}, "metrc: .*no such key"),
    ],
    ids=["no_metric", "unknown_side", "two_numbers", "misspelt_key"],
)
def test_a_pair_that_cannot_be_read_is_an_error(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_claim({"text": "a claim", "pairs": [spec]})


def test_a_misspelt_key_is_an_error():
    with pytest.raises(ValueError, match="margn is no key of a ClaimSpec; Did you mean margin"):
        parse_claim({**claim(["full", "base"]), "margn": 0.1})


def test_margin_and_within_exclude_each_other():
    with pytest.raises(ValueError, match="give one of the two"):
        parse_claim(claim(["full", "base"], margin=0.1, within=2.0))
