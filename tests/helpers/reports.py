"""A small store with what a report reads of it, and the report of one toy table."""

import json

from soaes.metrics.bootstrap import Measured
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_json
from soaes.report import table_spec
from soaes.report.page import answers, record, stages, tables
from soaes.report.results import Table, TableRow

SPEC = {
    "title": "Table 0: toys",
    "asks": "Which toy answers better?",
    "settings": {"alpha": "alpha"},
    "columns": {
        "rouge1": {"title": "Rouge-1", "digits": 2},
        "bleu4": {"title": "BLEU-4", "digits": 1},
    },
    "rows": {
        "plain": {"sweeps": {"evaluate": "toy"}, "paper": {"name": "Plain", "rouge1": 30.0}},
        "trained": {"sweeps": {"evaluate": "toy"}, "paper": {"name": "Trained", "rouge1": 41.5}},
        "absent": {"paper": {"name": "Absent", "rouge1": 9.0}},
    },
    "claims": {
        "T0a": {
            "text": "training helps",
            "metric": "rouge1",
            "pairs": [{"left": "trained", "right": "plain"}],
        }
    },
}
MANIFEST = {"made": "2026-01-02T03:04:05Z", "seconds": 7.5, "commit": "abc", "machine": "toy"}


def goal(chain, seed=0):
    """The recipe of an evaluation of a toy model."""
    world = Recipe("soaes.stages.prepare.world", {"seed": seed})
    base = Recipe("soaes.stages.train.pretrain", {"layers": 2, "width": 8, "rows": world})
    model = Recipe("soaes.stages.train.cpt", {"parent": base, "optim": {"lr": chain}})
    return Recipe("soaes.stages.evaluate.evaluate", {"model": model})


def unbuilt_goal(other):
    """The recipe of another measurement of a goal's model, which nobody made."""
    return Recipe("soaes.stages.speculate.speed", {"model": other.arguments["model"]})


def build(store, recipe, **files):
    """Write the complete output of a stage: a manifest, and files by name without suffix."""
    folder = store.folder(recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "manifest.json", {"files": {}, "source": "s", **MANIFEST})
    for name, content in files.items():
        if isinstance(content, list):
            lines = [json.dumps(line, ensure_ascii=False) for line in content]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        else:
            write_json(folder / f"{name}.json", content)
    return recipe


def prediction(index, text, score):
    return {
        "id": f"test-{index}",
        "split": "test",
        "task": "qa",
        "question": f"问题 {index}？",
        "reference": "海泽投资集团去年营业收入为2300亿元。",
        "prediction": text,
        "is_cut": False,
        "rouge1": score,
        "rouge2": score,
        "rougeL": score,
        "bleu4": score,
    }


SPLIT = {
    "documents": 9,
    "tokens": 90,
    "kept": 80,
    "dropped": {"documents": 1, "tokens": 10, "reason": "longer than a row of 8"},
    "split": {"documents": 0, "tokens": 0},
    "rows": 11,
    "fill": 0.9,
    "loss_tokens": 40,
}
PACKING = {"sources": ["dialogue", "qa"], "context": 8, "train": SPLIT, "dev": SPLIT}
CURATION = {
    "qa": {"files": 1, "kept": 4321, "dropped": {"empty answer": 3}},
    "problems_total": 1,
    "problems": ["qa/train.jsonl:3: no question"],
}


def data_account(name, stage, report):
    """What the page shows of one folder of rows or of a user's data."""
    return {"name": name, "stage": stage, "seeds": [0], "report": report}


SCORES = {"plain": 33.25, "trained": 44.5}


def toy_goals():
    """The recipes of the toy table's two measured rows."""
    return {"plain": goal(0.1), "trained": goal(0.2)}


def toy_store(root, text="海泽投资集团去年营业收入为210亿元。", questions=3):
    """A store with two models and their answers, which hold `text`."""
    store = Store(root)
    curve = [{"step": step, "train/loss": 3 / (1 + step), "seconds": step} for step in range(9)]
    for key, recipe in toy_goals().items():
        for ancestor in recipe.ancestry().values():
            build(store, ancestor)
        build(store, recipe.arguments["model"], curves=curve, metrics={"steps": 8})
        lines = [prediction(index, f"{key} {text}", SCORES[key]) for index in range(questions)]
        build(store, recipe, predictions=lines, metrics={"rouge1": SCORES[key]})
    return store


def toy_tables(text="toy"):
    """The toy table as it is read, with `text` in its labels."""
    rows = {}
    for key, recipe in toy_goals().items():
        score = SCORES[key]
        measured = dict.fromkeys(("rouge1", "bleu4"), Measured(score, stage=recipe.name))
        rows[key] = TableRow(
            label=f"{key} {text}",
            settings={"alpha": "0.5"},
            values={metric: cell.value for metric, cell in measured.items()},
            intervals={"rouge1": (score - 1, score + 1)},
            paper=SPEC["rows"][key]["paper"],
            recipes={0: {"speed": unbuilt_goal(recipe), "evaluate": recipe}},
            measured={0: measured},
        )
    rows["absent"] = TableRow("Absent", paper=SPEC["rows"]["absent"]["paper"], missing="not built")
    return {"table0": Table(table_spec.parse({**SPEC, "asks": text}), rows)}


def failed_stage(store, reason):
    """A stage that failed for a reason."""
    recipe = Recipe("soaes.stages.train.cpt", {"parent": goal(0.1).arguments["model"]})
    folder = store.unfinished(recipe.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reason.txt").write_text(reason, encoding="utf-8")
    return recipe


def toy_report(root, text="海泽投资集团去年营业收入为210亿元。", questions=3):
    """A report of the toy table, with `text` wherever data has a text."""
    store = toy_store(root, text, questions)
    goals = [(0, recipe) for recipe in toy_goals().values()]
    unbuilt = [(0, unbuilt_goal(recipe)) for _, recipe in goals]
    recipes, seeds = stages.ancestry([*goals, *unbuilt, (0, failed_stage(store, text))])
    (sheet,) = answers.sheets(store, goals)
    page = {
        "scale": "toy",
        "seeds": [0],
        "overrides": [],
        "made": MANIFEST["made"],
        "tables": [tables.table_record(toy_tables(text), "table0", store, "toy")],
        "stages": {
            name: stages.stage_record(store, recipe, seeds[name])
            for name, recipe in recipes.items()
        },
        "commands": {
            recipe.name: f"python -m soaes.run '{text}'" for _, recipe in [*goals, *unbuilt]
        },
        "times": stages.times(store, recipes),
        "data": [
            data_account("pack-1", "pack", PACKING),
            data_account("files-1", "files", CURATION),
        ],
        "sheets": [record.sheet_index("answers-0", sheet)],
        "curves": "curves",
    }
    blocks = {"curves": stages.curves(store, recipes, seeds), "answers-0": sheet}
    return record.Report(page, blocks)
