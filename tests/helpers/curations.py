"""A small store with the curation of a toy folder, whose every text holds a given one."""

from soaes.data.curation import sources
from soaes.data.curation.document import StepOutput
from soaes.data.curation.settings import CleaningSettings, DeduplicationSettings, SelectionSettings
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_json
from soaes.stages import corpus
from tests.helpers.reports import build

RULES = ["white space", "spaces between Han", "character table"]
QUESTION = "国有资产监督管理机构的职责是什么呢"
TOPICS = {"state assets": ["国有资产"], "nothing": ["没有文档提及"]}


def law(text, changed=""):
    """A document that is long enough for near-duplicates: 260 articles."""
    articles = [
        f"第{number}条　国有资产归国家所有，由第{number}号机构监管。" for number in range(260)
    ]
    articles[130] += changed
    return f"{text}\n" + "\n".join(articles) + "\n"


def write_folder(root, text):
    """Write the user's folder: documents of two origins, of which each step drops something."""
    files = {
        "laws/law.txt": law(text),
        "laws/other.txt": law(text, f"另有规定的除外{text}。"),
        "laws/same.txt": law(text, f"另有规定的除外{text}。"),
        "web/leak.txt": f"{text}\n{QUESTION}？\n以下是关于这个问题的一篇很长的文章。",
        "web/page.txt": f"{text}\n" + "国 务 院 关 于 此 事 的 通 知　全文如下。\n\n\n\n" * 4,
        "web/low.txt": f"{text}\n把洋葱切成小块，放进锅里，用小火炒到金黄。",
        "web/empty.txt": "\n",
        "web/old.doc": "",
    }
    for name, content in files.items():
        path = root / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def recipes():
    """The recipes of the six steps."""
    settings = {
        "clean": {"cleaning": {"rules": [*RULES, "page numbers"], "boilerplate": {}}},
        "score": {"domain": {"topics": TOPICS, "tiers": {}}},
        "select": {"selection": {"threshold": 0.5}},
    }
    steps = {"read": Recipe("soaes.stages.corpus.read", {"digest": "0"})}
    previous = steps["read"]
    for name in ("clean", "deduplicate", "decontaminate", "score", "select"):
        arguments = {"documents": previous, **settings.get(name, {})}
        previous = steps[name] = Recipe(f"soaes.stages.corpus.{name}", arguments)
    return steps


def toy_curation(folder, text):
    """Build the six steps in a store.

    Args:
        folder: Where the store and the user's folder are made.
        text: Stands in every document, and in some titles and reasons.

    Returns:
        The store and the last recipe.
    """
    write_folder(folder / "root", text)
    store, steps = Store(folder / "store"), recipes()
    out = {name: store.folder(recipe.name) for name, recipe in steps.items()}
    digest = sources.digest(folder / "root", kinds=corpus.KINDS)
    corpus.read(digest, root=str(folder / "root"), timeout=60, out=out["read"])
    cleaning = CleaningSettings(RULES, {})
    corpus.clean(out["read"], cleaning=cleaning, out=out["clean"])
    corpus.deduplicate(out["clean"], deduplication=DeduplicationSettings(), out=out["deduplicate"])
    questions = folder / "questions"
    questions.mkdir()
    stem = QUESTION
    row = f'{{"split": "exam/toy", "stem": "{stem}", "options": []}}\n'
    (questions / "held_out.jsonl").write_text(row, encoding="utf-8")
    corpus.decontaminate(out["deduplicate"], questions, out=out["decontaminate"])
    _score(out["decontaminate"], out["score"], text)
    selection = SelectionSettings(threshold=0.5)
    corpus.select(out["score"], selection=selection, out=out["select"])
    for recipe in steps.values():
        build(store, recipe)
    return store, steps["select"]


def _score(parent, out, text):
    """Score documents as the stage does, without fitting a scorer; reject one by hostile words."""
    with StepOutput("score", out) as output:
        for document in output.documents(parent):
            is_law = document["origin"] == "laws"
            scores = {"tier": 1 if is_law else 5, "importance": 0.5, "relevance": 0.9 * is_law}
            output.keep({**document, "title": text, "scores": scores})
    judged = [
        '{"score": 0.9, "relevant": true, "weight": 1.0}',
        '{"score": 0.1, "relevant": false, "weight": 1.0}',
    ]
    (out / "judged.jsonl").write_text("\n".join(judged) + "\n", encoding="utf-8")
    scoring = {"relevance_by": "labels", "auc_unseen_families": 0.95, "labels": 2}
    write_json(out / "scoring.json", {**scoring, "labels_found": 2, "as_of": text})
