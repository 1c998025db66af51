"""Compare two rows of tables, two stages or two stores: `python -m soaes.diff A B`.

    python -m soaes.diff table2.full table2.cpt_sft2 scale=tiny seed=0,1    two rows
    python -m soaes.diff evaluate-7823b7461728 evaluate-d4a0                two stages of a store
    python -m soaes.diff store/sft-41ebee83bfa1 other/sft-120a003c590c      two folders of any store
    python -m soaes.diff --stores store other                               all of two stores

Settings that differ, metric differences with paired intervals, the first step at which training
curves part, questions gained and lost. A difference is B - A; a question is gained where only B
answers it rightly. Builds nothing and imports no torch.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from soaes.pipeline import conf_folders
from soaes.pipeline.progress import escape_unencodable_text, one_line_errors
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import STAGE, Store
from soaes.report import recipe_diff, row_diff, store_diff
from soaes.report.layout import columns, printable, terminal_width, wrap
from soaes.report.recipe_diff import Setting
from soaes.report.results import TableRow, existing_store_of, read_row, read_stage
from soaes.report.row_diff import CurvesDiff, MetricDifference, Parting, QuestionsDiff, Side

SHOWN = 3  # questions gained, and lost, without --all
INDENT = "  "
DECIMALS = 9  # of an interval's ends, which rounding leaves a little off zero


def main() -> None:
    """Run the command line."""
    escape_unencodable_text()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader that has gone, as `| head`, ends it
    arguments = _parser().parse_intermixed_args()
    overrides = [word for word in arguments.words if "=" in word]
    names = [word for word in arguments.words if "=" not in word]
    limit = None if arguments.all else SHOWN
    with one_line_errors():
        conf_folders.use(arguments.config_dir)
        if len(names) != 2:
            given = ", ".join(names) or "none"
            raise ValueError(f"two things are compared, here are {len(names)} ({given}); {USAGE}")
        if arguments.stores:
            lines = _diff_stores(names, overrides, limit)
        else:
            left, right = (find(name, overrides) for name in names)
            lines = diff_sides(left, right, limit)
        for line in lines:
            print(line)


USAGE = "as in `python -m soaes.diff table2.full table2.sft2`, or --stores STORE STORE"


def _parser() -> argparse.ArgumentParser:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m soaes.diff",
        description=f"{summary}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="A B [OVERRIDE ...]",
        help="TABLE.ROW, a stage of the store or its folder; overrides as given to soaes.table",
    )
    parser.add_argument("--stores", action="store_true", help="A and B are stores")
    parser.add_argument(
        "--all", action="store_true", help="print every question, and metrics of all that is read"
    )
    conf_folders.add_option(parser)
    return parser


# ---------------------------------------------------------------- what is compared


def find(name: str, overrides: list[str]) -> Side:
    """Find a row of a table, or a stage, by what a user calls it.

    Args:
        name: `table2.full`, `evaluate-7823b7461728` or how it begins, or the path of a folder.
        overrides: As given to soaes.table.

    Raises:
        ValueError: There is no such thing, or the overrides leave the row out.
    """
    path = Path(name)
    if path.name != name:
        if not (path / "manifest.json").exists():
            raise ValueError(f"{name}: not the folder of a finished stage; {USAGE}")
        return _stage(name, Store(path.parent), path.name)
    store = existing_store_of(overrides)
    if STAGE.fullmatch(name):
        return _stage(name, store, store.full_name(name))
    table, _, key = name.partition(".")
    row = read_row(table, key, overrides)
    if not row.recipes:
        raise ValueError(f"{name}: {row.missing} under these overrides; {USAGE}")
    return Side(name, row, store)


def _stage(name: str, store: Store, folder: str) -> Side:
    return Side(name, read_stage(store, folder), store)


# ---------------------------------------------------------------- two rows or stages


def diff_sides(left: Side, right: Side, limit: int | None) -> Iterator[str]:
    """Compare two sides.

    Args:
        left: A.
        right: B.
        limit: Questions gained and questions lost that are shown of each goal; None: all.

    Yields:
        Lines: fitted to the terminal, or complete where there is none.

    Raises:
        ValueError: They have no seed or no goal in common.
    """
    seeds = [seed for seed in left.row.recipes if seed in right.row.recipes]
    pairs = {seed: _pairs(left.row, right.row, seed) for seed in seeds}
    if not any(pairs.values()):
        raise ValueError(
            f"{left.name} has {_contents(left.row)}, {right.name} has {_contents(right.row)}: "
            "nothing can be paired; compare two rows of one goal and seed, or two stages of a kind"
        )
    width = terminal_width()
    yield from columns([_heading("A", left), _heading("B", right)], width)
    for side in (left, right):
        if side.row.reason:
            yield from wrap(f"{side.name}: {side.row.reason}", width)
    diffs = {seed: recipe_diff.diff(of_seed) for seed, of_seed in pairs.items()}
    settings = list(diffs[seeds[0]].settings)
    for recipe, other in pairs[seeds[0]]:
        settings += _built_with(left.store, recipe, right.store, other)
    yield from _settings(list(dict.fromkeys(settings)), width)
    yield from _metrics(left, right, limit is None, width)
    curves = {seed: row_diff.diff_curves(left, right, diff.stages) for seed, diff in diffs.items()}
    yield from _curves(curves, width)
    yield from _questions(row_diff.diff_questions(left, right), limit, width)


def _pairs(left: TableRow, right: TableRow, seed: int) -> list[tuple[Recipe, Recipe]]:
    goals, others = left.recipes[seed], right.recipes[seed]
    return [(goals[role], others[role]) for role in goals if role in others]


def _contents(row: TableRow) -> str:
    """Say the goals and seeds of a row."""
    goals = dict.fromkeys(role for goals in row.recipes.values() for role in goals)
    seeds = "seed" if len(row.recipes) == 1 else "seeds"
    return f"{', '.join(goals)}; {seeds} {', '.join(map(str, row.recipes))}"


def _heading(letter: str, side: Side) -> list[str]:
    label = side.row.label if side.row.label != side.name else ""
    return [letter, side.name, label, _contents(side.row), side.row.missing]


def _built_with(left: Store, recipe: Recipe, right: Store, other: Recipe) -> Iterator[Setting]:
    """Yield what two built goals do not share of the code, machine and libraries."""
    if not (left.holds(recipe.name) and right.holds(other.name)):
        return
    manifest, other_manifest = left.manifest(recipe.name), right.manifest(other.name)
    facts = {key: (manifest.get(key), other_manifest.get(key)) for key in ("commit", "machine")}
    versions, other_versions = manifest.get("versions", {}), other_manifest.get("versions", {})
    for library in versions:
        facts[library] = versions[library], other_versions.get(library)
    for key, (ours, theirs) in facts.items():
        if ours != theirs:
            yield Setting(f"{recipe.stage}, built with", key, str(ours), str(theirs))


def _settings(settings: Sequence[Setting], width: int | None) -> Iterator[str]:
    yield from _title(f"Settings: {len(settings)} differ", width)
    rows = [["stage", "setting", "A", "B"]]
    for setting in settings:
        rows.append([setting.stage, setting.key or "(the stage)", setting.left, setting.right])
    if settings:
        yield from columns([list(map(printable, row)) for row in rows], width, INDENT)


# ---------------------------------------------------------------- metrics


def _metrics(left: Side, right: Side, with_parents: bool, width: int | None) -> Iterator[str]:
    """Print the metrics of the goals and, if wanted, `model.METRIC` of what they read."""
    diff = row_diff.diff_metrics(left.row, right.row)
    if not diff.seeds:
        yield from _title("Metrics: no seed of both is built", width)
        for side in (left, right):
            if not side.row.measured:
                missing = side.row.missing or "measures nothing"
                yield from wrap(f"{side.name}: {missing}", width, INDENT)
        return
    seeds = ", ".join(map(str, diff.seeds))
    yield from _title(f"Metrics: {len(diff.differences)} differ, {diff.num_equal} are equal", width)
    note = f"B - A with its 95 % interval, paired over seeds ({seeds}) and shared samples"
    shown = [
        difference
        for difference in diff.differences
        if with_parents or not _is_of_parent(difference.metric)
    ]
    if shown:
        yield from wrap(f"{note}; * lies on one side of zero", width, INDENT)
        rows = [["metric", "A", "B", "B - A", "interval", ""]]
        yield from columns([*rows, *map(_metric_cells, shown)], width, INDENT)
    left_out = len(diff.differences) - len(shown)
    if left_out:
        yield f"{INDENT}{left_out} more of the stages that are read, --all prints them"
    for name, metrics in (("A", diff.only_left), ("B", diff.only_right)):
        own = [metric for metric in metrics if with_parents or not _is_of_parent(metric)]
        others = len(metrics) - len(own)
        counted = [f"{others} of the stages that it reads"] if others else []
        if metrics:
            yield from wrap(f"only {name} has {', '.join([*own, *counted])}", width, INDENT)


def _is_of_parent(metric: str) -> bool:
    """Tell `model.val/perplexity`, of a stage that is read, from a goal's own metric."""
    return "." in metric


def _metric_cells(difference: MetricDifference) -> list[str]:
    effect = difference.effect
    has_interval = effect.low == effect.low  # not NaN
    low = round(effect.low, DECIMALS) + 0.0  # no -0
    high = round(effect.high, DECIMALS) + 0.0
    interval = f"[{low:+.4g}, {high:+.4g}]" if has_interval else "-"
    numbers = [f"{difference.left:.5g}", f"{difference.right:.5g}", f"{effect.value:+.4g}"]
    return [difference.metric, *numbers, interval, "*" if difference.is_decided else ""]


# ---------------------------------------------------------------- curves


def _curves(curves: dict[int, list[CurvesDiff]], width: int | None) -> Iterator[str]:
    count = sum(len(of_seed) for of_seed in curves.values())
    yield from _title(f"Training curves of both: {count}", width)
    rows = []
    for seed, of_seed in curves.items():
        for diff in of_seed:
            rows.append([diff.stages.title, f"seed {seed}", _parting(diff)])
    yield from columns(rows, width, INDENT)


def _parting(diff: CurvesDiff) -> str:
    if diff.first is None:
        return f"equal at all {diff.common_steps} common steps"
    text = f"part at step {_at(diff.first)}"
    if diff.loss is None:
        return f"{text}; the training loss is equal at all {diff.common_steps} common steps"
    if diff.loss == diff.first:
        return text
    return f"{text}; the training loss at step {_at(diff.loss)}"


def _at(parting: Parting) -> str:
    return f"{parting.step} ({parting.metric} {parting.left:.6g}, {parting.right:.6g})"


# ---------------------------------------------------------------- questions


def _questions(
    diffs: Sequence[QuestionsDiff], limit: int | None, width: int | None
) -> Iterator[str]:
    gained = sum(len(diff.gained) for diff in diffs)
    lost = sum(len(diff.lost) for diff in diffs)
    if not diffs:
        yield from _title("Questions: no answers of both that could be right or wrong", width)
        return
    yield from _title(f"Questions: {gained} gained, {lost} lost", width)
    for diff in diffs:
        yield from wrap(_summary(diff), width, INDENT)
        for word, questions in (("gained", diff.gained), ("lost", diff.lost)):
            for question in questions[:limit]:
                lines = {word: question.question, "reference": question.reference}
                lines |= {"A": question.left, "B": question.right}
                rows = [[label, printable(text)] for label, text in lines.items()]
                yield from columns(rows, width, INDENT * 2)
            left_out = len(questions[limit:]) if limit is not None else 0
            if left_out:
                yield f"{INDENT * 2}{left_out} more {word}, --all prints them"


def _summary(diff: QuestionsDiff) -> str:
    right, other_right = diff.num_right
    text = (
        f"{diff.goal}, seed {diff.seed}: {len(diff.gained)} gained, {len(diff.lost)} lost of "
        f"{diff.num_shared}; right, an answer that {diff.criterion}: A {right}, B {other_right}"
    )
    left_out = [count - diff.num_shared for count in diff.num_questions]
    if any(left_out):
        text += f"; not compared, since only one has them: A {left_out[0]}, B {left_out[1]}"
    return text


# ---------------------------------------------------------------- two stores


def _diff_stores(names: list[str], overrides: list[str], limit: int | None) -> Iterator[str]:
    if overrides:
        raise ValueError(
            f"{' '.join(overrides)}: --stores compares all that two stores hold; leave it out, or "
            "compare two rows without --stores"
        )
    for name in names:
        if not Path(name).is_dir():
            raise ValueError(f"{name}: there is no such store; {USAGE}")
    left, right = (Store(Path(name)) for name in names)
    return diff_stores(left, right, limit)


def diff_stores(left: Store, right: Store, limit: int | None) -> Iterator[str]:
    """Compare two stores.

    Args:
        left: A.
        right: B.
        limit: Changed metrics, and pairs of stages, that are shown; None: all.

    Yields:
        Lines: fitted to the terminal, or complete where there is none.
    """
    width = terminal_width()
    diff = store_diff.diff_stores(left, right)
    yield from columns([["A", str(left.root)], ["B", str(right.root)]], width)
    yield from _title(
        f"Stages: {len(diff.shared)} in both, {len(diff.only_left)} in A alone, "
        f"{len(diff.only_right)} in B alone",
        width,
    )
    for letter, names in (("A", diff.only_left), ("B", diff.only_right)):
        if names:
            yield from wrap(f"only {letter}: {_kinds(names)}", width, INDENT)
    timed = f"; {diff.num_timed} that time a clock are not compared" if diff.num_timed else ""
    yield from _title(f"Stages of one recipe: {len(diff.changes)} metrics differ{timed}", width)
    rows = [
        [change.stage, change.metric, str(change.left), str(change.right)]
        for change in diff.changes
    ]
    yield from _limited(rows, ["stage", "metric", "A", "B"], limit, width)
    if not diff.matches:
        return
    yield from _title(f"Settings that differ, of {len(diff.matches)} matching stages", width)
    settings = [
        [setting.stage, setting.key, setting.left, setting.right, str(count)]
        for setting, count in diff.settings.items()
    ]
    yield from _limited(settings, ["stage", "setting", "A", "B", "stages"], None, width)
    yield from _title("Matching stages that measure: first metric, B - A with its interval", width)
    rows = []
    for name, other in diff.matches:
        metrics = row_diff.diff_metrics(read_stage(left, name), read_stage(right, other))
        if (left.folder(name) / "predictions.jsonl").exists() and metrics.differences:
            rows.append([name, other, *_metric_cells(metrics.differences[0])])
    heading = ["A", "B", "metric", "A", "B", "B - A", "interval", ""]
    yield from _limited(rows, heading, limit, width)


def _kinds(names: Sequence[str]) -> str:
    """Count names by stage: `2 cpt, 3 sft`."""
    stages = [name.rpartition("-")[0] for name in names]
    return ", ".join(f"{stages.count(stage)} {stage}" for stage in sorted(set(stages)))


def _limited(
    rows: list[list[str]], heading: list[str], limit: int | None, width: int | None
) -> Iterator[str]:
    if rows:
        shown = [list(map(printable, row)) for row in rows[:limit]]
        yield from columns([heading, *shown], width, INDENT)
    left_out = len(rows[limit:]) if limit is not None else 0
    if left_out:
        yield f"{INDENT}{left_out} more, --all prints them"


def _title(text: str, width: int | None) -> Iterator[str]:
    yield ""
    yield from wrap(text, width)


if __name__ == "__main__":
    main()
