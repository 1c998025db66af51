"""Score a file of predictions under the recipes for Rouge and BLEU that are in use.

    python -m soaes.score predictions.jsonl                ours or another project's file
    python -m soaes.score result.json --recipe ms-swift    one recipe; repeat it for several
    python -m soaes.score a.jsonl --prediction output --reference target
    python -m soaes.score predictions.jsonl --only split=test    some records of a file
    cat a.jsonl | python -m soaes.score - --json           for machines

Scores of two recipes are not comparable: each has a column of its own, and its definition below the
table. docs/metrics.md compares them. Loads no model and imports no torch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soaes.metrics.prediction_files import FieldNames, PredictionFile, read_predictions
from soaes.metrics.scoring_info import DEFINITION
from soaes.metrics.scoring_recipes import METRICS, SCORING_RECIPES, Scores
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors

STANDARD_INPUT = "-"
MAX_WIDTH = 100  # characters of a definition's line


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has gone, as `| head`, ends it
    arguments = _parser().parse_args()
    with one_line_errors():
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    source = arguments.predictions
    title = "standard input" if source == STANDARD_INPUT else source
    try:
        fields = _fields(arguments.prediction, arguments.reference)
        predictions = _read(source, fields, _conditions(arguments.only))
    except ValueError as error:
        raise ValueError(f"{title}: {error}") from None
    names = list(dict.fromkeys(arguments.recipe or SCORING_RECIPES))
    scores = {name: SCORING_RECIPES[name].score(predictions.pairs) for name in names}
    if arguments.json:
        print(json.dumps(report(title, predictions, scores), ensure_ascii=False, indent=1))
    else:
        width = shutil.get_terminal_size((MAX_WIDTH, 0)).columns
        print("\n".join(table(title, predictions, scores, min(width, MAX_WIDTH))))


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m soaes.score", description=summary)
    parser.add_argument(
        "predictions", help=f"JSON lines or JSON; {STANDARD_INPUT} reads the standard input"
    )
    parser.add_argument(
        "--prediction", metavar="NAME", help="the field of the answer, if not one in common use"
    )
    parser.add_argument("--reference", metavar="NAME", help="the field of the expected answer")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="score the records with this value, e.g. split=test; may be given several times",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        choices=list(SCORING_RECIPES),
        help="all by default; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _fields(prediction: str | None, reference: str | None) -> FieldNames | None:
    if prediction and reference:
        return FieldNames(prediction, reference)
    if prediction or reference:
        missing = "--reference" if prediction else "--prediction"
        raise ValueError(f"{missing} is missing: name both fields, or neither")
    return None


def _conditions(words: list[str]) -> dict[str, str]:
    """Parse what `--only` got."""
    for word in words:
        if "=" not in word:
            raise ValueError(f"--only {word}: write FIELD=VALUE")
    return dict(word.split("=", 1) for word in words)


def _read(source: str, fields: FieldNames | None, only: Mapping[str, str]) -> PredictionFile:
    path = Path("/dev/stdin" if source == STANDARD_INPUT else source)
    if source != STANDARD_INPUT and not path.is_fifo():
        return read_predictions(path, fields, only)
    # a pipe is copied: the reader goes through a file twice, for its encoding first
    with path.open("rb") as pipe, tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(pipe, copy)
        copy.flush()
        return read_predictions(Path(copy.name), fields, only)


# ---------------------------------------------------------------- output


def report(title: str, predictions: PredictionFile, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Return what `--json` prints.

    Args:
        title: Where the predictions come from.
        predictions: What was scored.
        scores: Recipe -> what it says.
    """
    fields = predictions.fields
    return {
        "predictions": title,
        "records": predictions.num_records,
        "selected": len(predictions.pairs),
        "splits": predictions.splits,
        "fields": {"prediction": fields.prediction, "reference": fields.reference},
        "blank": {side: predictions.num_blank(side) for side in ("prediction", "reference")},
        "recipes": {
            name: {
                "metrics": recipe_scores.metrics,
                "scored": recipe_scores.num_scored,
                "left_out": recipe_scores.num_left_out,
                "stamp": SCORING_RECIPES[name].stamp(),
            }
            for name, recipe_scores in scores.items()
        },
    }


def table(
    title: str, predictions: PredictionFile, scores: Mapping[str, Scores], width: int
) -> list[str]:
    """Return the lines of a table with a column a recipe, and the recipes' definitions.

    Args:
        title: Where the predictions come from.
        predictions: What was scored.
        scores: Recipe -> what it says.
        width: Characters of a line of the definitions.
    """
    lines = [*_heading(title, predictions), "", *_aligned(_columns(scores))]
    if len(scores) > 1:
        lines += ["", "Scores of different columns are not comparable."]
    for name in scores:
        lines += ["", *_definition(name, width)]
    return lines


def _heading(title: str, predictions: PredictionFile) -> list[str]:
    """Say what was scored."""
    fields, splits = predictions.fields, predictions.splits
    num_answers = predictions.num_blank("prediction")
    num_references = predictions.num_blank("reference")
    lines = [
        f"{title}: {len(predictions.pairs)} of {predictions.num_records} records, "
        f"answers in {fields.prediction}, references in {fields.reference}",
        f"blank answers: {num_answers}, blank references: {num_references}",
    ]
    if len(splits) > 1:
        counts = ", ".join(f"{split} {count}" for split, count in splits.items())
        first = next(iter(splits))
        lines.append(f"splits are scored together: {counts}; --only split={first} takes one")
    return lines


def _columns(scores: Mapping[str, Scores]) -> list[list[str]]:
    """Return the names of the metrics that there are, then a column for each recipe."""
    used = {metric for recipe_scores in scores.values() for metric in recipe_scores.metrics}
    metrics = [metric for metric in METRICS if metric in used]
    columns = [["", *(METRICS[metric] for metric in metrics), "scored", "left out"]]
    for name, recipe_scores in scores.items():
        columns.append(_column(SCORING_RECIPES[name].title, recipe_scores, metrics))
    return columns


def _column(title: str, scores: Scores, metrics: list[str]) -> list[str]:
    values = [_number(scores.metrics.get(metric)) for metric in metrics]
    return [title, *values, str(scores.num_scored), str(scores.num_left_out)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _aligned(columns: list[list[str]]) -> list[str]:
    """Lay out columns side by side: the first to the left, the others to the right."""
    first, *others = columns
    padded = [[cell.ljust(max(map(len, first))) for cell in first]]
    for column in others:
        padded.append([cell.rjust(max(map(len, column))) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _definition(name: str, width: int) -> list[str]:
    """The stamp of a recipe, as lines."""
    recipe = SCORING_RECIPES[name]
    stamp = recipe.stamp()
    versions = ", ".join(f"{package} {stamp[package]}" for package in recipe.packages)
    ours = ", this project's" if recipe.definition is DEFINITION else ""
    lines = [f"{recipe.title} (--recipe {name}{ours})"]
    for key, text in {**recipe.definition, "versions": versions}.items():
        lines += textwrap.wrap(
            text, width, initial_indent=f"  {key:10}", subsequent_indent=" " * 12
        )
    return lines


if __name__ == "__main__":
    main()
