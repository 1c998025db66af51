"""A domain of one's own, from raw documents to what stage 2 is trained on, without any Python."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from soaes.data.annotation import item as contract
from soaes.data.curation.document import read_documents
from soaes.data.jsonl import read_jsonl
from soaes.pipeline import conf_folders, sweep, worker
from soaes.pipeline.store import Store
from tests.data.annotation.test_item import decision

ROOT = Path(__file__).parents[1]
DISHES = (
    "白灼虾 可乐鸡翅 糖醋排骨 清蒸鲈鱼 冬瓜茶 蒸水蛋 回锅肉 小炒肉 酸梅汤 茶叶蛋 水煮鱼 烤蛋挞"
).split()
DOMAIN = """
topics:
  heat: [大火, 小火, 收汁]
  nothing: [没有菜谱提及]
tiers: {recipes: 2}
rubric: page.md
qa_rubric: 照着答案做得出来
prompt:
  qa: |
    请针对下面的片段提出一个学做菜的人会问的问题，写出菜名。quote 逐字抄录原句。
    只输出 JSON 对象，字段为 "question"、"answer" 和 "quote"。
"""
PAGE = "# 标准\n\n有用量、时间或火候的是，其余的否。\n"


def recipe(number):
    """A recipe in Markdown with facts and characters of its own."""
    own = "".join(map(chr, random.Random(number).choices(range(0x4E00, 0x9F00), k=160)))
    steps = [
        f"取第{number + 1}号{own[:40]}{10 * number + 5}克，用{own[40:60]}腌制{number + 3}分钟。",
        f"大火煮{number + 2}分钟，放入{own[60:110]}，再转小火收汁{number + 11}分钟。",
        f"最后撒上{number + 7}克{own[110:]}，摆入{number + 13}厘米的盘中。",
    ]
    listed = "\n".join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
    return f"# {DISHES[number]}的做法\n\n## 必备原料\n\n* 盐\n* 糖\n\n## 操作\n\n{listed}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a conf folder, `mine`, and raw documents, `DIR`, in which commands run."""
    for number, dish in enumerate(DISHES):
        write(tmp_path / "DIR" / "corpus" / "recipes" / f"{dish}.md", recipe(number))
    write(tmp_path / "mine" / "domain" / "cooking.yaml", DOMAIN)
    write(tmp_path / "mine" / "domain" / "page.md", PAGE)
    monkeypatch.setenv("SOAES_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    conf_folders.use(None)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


MINE = ["--config-dir", "mine", "domain=cooking", "data.root=DIR", "logger=none"]
ASKED = ["author=rules", "data.ask.asking.reports=0"]


def built(*words):
    """Build what a command line of soaes.run names, in this process; return its folder."""
    words, own = conf_folders.split([*MINE, *words])
    conf_folders.use(own)
    (job,) = sweep.compose_jobs(words)
    store = Store(job.runtime.store)
    for name, stage in job.recipe.ancestry().items():
        if not store.holds(name):
            store.folder(name).mkdir(parents=True)
            worker.run(store, stage, job.runtime, store.folder(name))
    return store.folder(job.recipe.name)


def accept(items, export):
    """Write what a person decided on the review page."""
    contract.write_export(export, items, [decision(item, "甲") for item in items])


def test_raw_recipes_become_the_documents_of_stage_2(folder):
    screened = built("goal=data.screen", "data=files", *ASKED)
    items = contract.read_items(screened / "items.jsonl")
    account = json.loads((screened / "account.json").read_text("utf-8"))
    assert account["calls"] == len(items) == len(DISHES)
    assert {item["document"]["title"] for item in items} == {f"{dish}的做法" for dish in DISHES}
    assert (screened / "rubric.md").read_text("utf-8") == "照着答案做得出来"
    (scored,) = folder.glob("store/score-*")
    documents = list(read_documents(scored))
    assert {document["scores"]["tier"] for document in documents} == {2}
    assert all(document["scores"]["relevance"] > 0 for document in documents)
    text = next(document["text"] for document in documents if "白灼虾" in document["title"])
    assert "* 盐\n* 糖" in text and "1. 取第1号" in text, "lists and steps are kept"

    drawn = built("goal=data.draw_passages", "data=files", *ASKED)
    assert {item["kind"] for item in contract.read_items(drawn / "items.jsonl")} == {"relevance"}
    assert (drawn / "rubric.md").read_text("utf-8") == PAGE

    accept(items, folder / "DIR" / "annotation" / "reviewed")
    documents = built("goal=data.documents", "data=reviewed")
    questions = {
        split: read_jsonl(documents / "qa" / f"{split}.jsonl") for split in ("train", "dev", "test")
    }
    assert sum(map(len, questions.values())) == len(items) and all(questions.values())
    asked = questions["test"][0]["messages"][0]["content"]
    assert any(f"《{dish}的做法》" in asked for dish in DISHES)


@pytest.mark.nightly
def test_the_commands_train_stage_2(folder):
    def run(*words):
        command = [sys.executable, "-m", "soaes.run", *MINE, *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stdout + finished.stderr

    run("goal=data.screen", "data=files", *ASKED)
    (screened,) = folder.glob("store/screen-*")
    items = contract.read_items(screened / "items.jsonl")
    accept(items, folder / "DIR" / "annotation" / "reviewed")
    run("goal=evaluate", "data=reviewed", "chain@target=cpt_sft2")
    assert list(folder.glob("store/sft-*")) and list(folder.glob("store/evaluate-*/metrics.json"))
