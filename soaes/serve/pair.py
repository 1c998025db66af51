"""Find the target and the draft to serve, and the speeds that were measured of them.

A model is named by a node of the graph (`target.chat`, `distill`), by a stage of the store
(`sft-a36daa18d715`, or how that begins) or by a folder. Without names it is the target of the given
settings with the draft that was measured to be the fastest for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from soaes.data.jsonl import read_jsonl
from soaes.metrics import bootstrap
from soaes.model import folder as model_folder
from soaes.pipeline import compose, conf_folders, labels, origins, sweep
from soaes.pipeline.command_line import key_of, parse
from soaes.pipeline.recipe import PARENT
from soaes.pipeline.store import STAGE, Store, read_recipe
from soaes.report.results import read_stage

TARGET = "target.chat"
DRAFTS = ("distill", "draft.chat")  # of the settings, where none was measured
DRAFTED = 3  # tokens in a block, where neither a measured row nor the settings have a number
BIASED = "biased"  # the proof of a row whose text is not the target's, see schema.SpeedMetrics

# A question for a model whose data are not known.
QUESTION = "国有企业改革的重点是什么？"


@dataclass(frozen=True)
class Model:
    """A model to serve."""

    role: str  # target or draft
    folder: Path
    name: str = ""  # of the stage that made it; empty for a folder that no stage of ours made

    @property
    def title(self) -> str:
        """Its stage, or its folder."""
        return self.name or str(self.folder)

    @property
    def stage(self) -> str:
        """The declared name of its stage: sft, distill ..."""
        return self.name.rpartition("-")[0]

    @property
    def setting(self) -> str:
        """How it is named on the command line, for messages."""
        return f"{self.role}={self.title}"

    @property
    def store(self) -> Store:
        """The store that holds it, if it has a name."""
        return Store(self.folder.parent)

    @property
    def label(self) -> str:
        """What it is in words, as tables call it; empty if no stage of ours made it."""
        return labels.label(read_recipe(self.store, self.name)) if self.name else ""


@dataclass(frozen=True)
class Speed:
    """A measured speed of a target with a draft: a row of the store."""

    name: str  # of the stage that measured it
    store: Store
    draft: str  # name of the draft's stage
    n: int  # drafted tokens in a block
    decoding: str  # n and whatever else differs from how vLLM serves, in words
    sampling: str
    library: str  # what decoded, and its version
    machine: str
    proof: str  # why the output may count, see schema.SpeedMetrics
    speedup: float  # over autoregression
    batch: int = 1  # texts decoded together, in the row and in its baseline

    @property
    def is_of_vllm(self) -> bool:
        """Whether vLLM decoded, as it will when the pair is served."""
        return "vllm" in self.library

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """The greatest is the best: vLLM's own rows, then those of one text, then by speedup.

        Speedups of different batches have different baselines and do not compare.
        """
        return self.is_of_vllm, self.batch == 1, self.speedup

    def interval(self) -> tuple[float, float]:
        """Compute the speedup's 95 % interval over the row's prompts."""
        measured = read_stage(self.store, self.name).measured[0]["speedup"]
        effect = bootstrap.effect([[measured]], lambda terms: terms[0])
        return effect.low, effect.high


@dataclass(frozen=True)
class Question:
    """What is asked to see that the server answers."""

    text: str
    reference: str = ""  # the expected answer, where the data have it


@dataclass(frozen=True)
class Pair:
    """What is served."""

    target: Model
    draft: Model
    n: int  # drafted tokens in a block
    store: Store  # of the settings; holds what is written to serve the pair
    device: str  # of the settings
    speeds: tuple[Speed, ...]  # that were measured of the two, the best first
    choice: str  # why this draft, in words; empty where the user named it
    measure: str  # the command that measures the pair; empty if it is not one of the settings
    question: Question
    dry: bool = False  # whether the settings say dry=true


def find_pair(
    words: list[str], target: str | None, draft: str | None, n: int | None = None
) -> Pair:
    """Find the models to serve.

    Args:
        words: Overrides, as given to soaes.run.
        target: A node, a stage or a folder; None: target.chat of the overrides.
        draft: Likewise; None: the fastest that was measured for the target, else the distilled
            draft of the overrides, else the undistilled.
        n: Drafted tokens in a block; None: as many as the best row of the pair had.

    Raises:
        ValueError: There is no such model, or it is not built; one line with the way out.
    """
    jobs = sweep.combinations(words)
    if len(jobs) > 1:
        raise ValueError(
            f"{' '.join(words)}: these are {len(jobs)} jobs and one pair is served; give every "
            "override one value"
        )
    cfg = compose.compose_job(jobs[0][1])
    runtime = compose.runtime_settings(cfg)
    finder = _Finder(_without_dry(words), cfg, Store(runtime.store))
    target_model = finder.model("target", TARGET if target is None else target)
    measured = _speeds_of(target_model, finder.store)
    choice = ""
    if draft is not None:
        draft_model = finder.model("draft", draft)
    elif measured:
        draft_model = Model("draft", measured[0].store.folder(measured[0].draft), measured[0].draft)
        count = len({speed.draft for speed in measured})
        choice = f"the fastest of {count} that were measured" if count > 1 else "measured"
    else:
        draft_model, choice = finder.unmeasured_draft(target_model)
    speeds = [speed for speed in measured if speed.draft == draft_model.name]
    if n is None:
        n = speeds[0].n if speeds else OmegaConf.select(cfg, "speed.decode.n", default=DRAFTED)
    return Pair(
        target_model,
        draft_model,
        n,
        finder.store,
        runtime.execution.device,
        tuple(speeds),
        choice,
        finder.measure(target_model, draft_model, draft),
        find_question(target_model),
        runtime.dry,
    )


def _without_dry(words: list[str]) -> list[str]:
    """Return the words of the commands that are shown: these build something."""
    keys = [key_of(override) for override in parse(words)]
    return [word for word, key in zip(words, keys, strict=True) if key != "dry"]


class _Finder:
    """Finds models by what a user calls them."""

    def __init__(self, words: list[str], cfg: DictConfig, store: Store) -> None:
        self.words = words
        self.cfg = cfg
        self.store = store

    def command(self, goal: str) -> str:
        """Return the command that builds a goal of these settings."""
        return conf_folders.command([f"goal={goal}", *self.words])

    def measure(self, target: Model, draft: Model, named: str | None) -> str:
        """Return the command that measures a pair; empty if it is not one of these settings.

        Args:
            target: The target.
            draft: The draft.
            named: How the user named the draft, if at all.
        """
        if not target.name or not draft.name:
            return ""
        if target.name != compose.recipe_at(self.cfg, TARGET).name:
            return ""
        nodes = DRAFTS if named is None or not _is_node(named) else (named,)
        for key in nodes:
            if compose.recipe_at(self.cfg, key).name == draft.name:
                return self.command(f"speed subject={key}")
        return ""

    def model(self, role: str, word: str) -> Model:
        """Find a model by a node, a stage or a folder."""
        if not word:
            raise ValueError(
                f"{role}=: is empty; name a node, a stage or a folder, or leave it out"
            )
        self._check_unambiguous(role, word)
        if _is_folder(word):
            model = _of_folder(role, word, Path(word).expanduser())
        elif _is_node(word):
            model = self._at_node(role, word)
        else:
            name = self.store.full_name(word)
            model = Model(role, self.store.folder(name), name)
        model_folder.check(f"{role}={word}", model.folder)
        return model

    def _check_unambiguous(self, role: str, word: str) -> None:
        is_ours = STAGE.fullmatch(word) or OmegaConf.select(self.cfg, word) is not None
        if "/" not in word and is_ours and Path(word).is_dir():
            raise ValueError(
                f"{role}={word}: is a folder here and a name of ours; write ./{word} for the "
                "folder, or start the command in another folder"
            )

    def _at_node(self, role: str, key: str) -> Model:
        recipe = compose.recipe_at(self.cfg, key)
        if self.store.holds(recipe.name):
            return Model(role, self.store.folder(recipe.name), recipe.name)
        raise ValueError(
            f"{role}={key}: {recipe.name} of these settings is not in {self.store.root}; build it "
            f"with `{self.command(key)}`{self._others()}"
        )

    def _others(self) -> str:
        """Name the fastest pair that the store does hold, of other settings."""
        written_speeds = _written_speeds(self.store).values()
        pairs = []
        for name in sorted({_parent(written, "target") for written in written_speeds}):
            if self.store.holds(name):
                target = Model("target", self.store.folder(name), name)
                speeds = _speeds_of(target, self.store)
                pairs += [(speed.rank, name, speed.draft) for speed in speeds]
        if not pairs:
            return ""
        _, name, draft = max(pairs)
        return f", or serve the fastest pair that is there: target={name} draft={draft}"

    def unmeasured_draft(self, target: Model) -> tuple[Model, str]:
        """Take the draft of the settings for a target of which no speed was measured."""
        for key in DRAFTS:
            recipe = compose.recipe_at(self.cfg, key)
            if self.store.holds(recipe.name):
                model = Model("draft", self.store.folder(recipe.name), recipe.name)
                return model, f"{key} of these settings, since none was measured"
        raise ValueError(
            f"{target.setting}: {self.store.root} has no draft for it; build one with "
            f"`{self.command('distill')}`, or name one with draft=PATH"
        )


def _is_folder(word: str) -> bool:
    return "/" in word or Path(word).expanduser().is_dir()


def _is_node(word: str) -> bool:
    return not _is_folder(word) and not STAGE.fullmatch(word)


def _of_folder(role: str, word: str, folder: Path) -> Model:
    """A model in a folder, which a store may hold."""
    if not folder.exists():
        fetch = ""
        if "@" in word and origins.PUBLISHED.fullmatch(word):
            fetch = (
                "; a published model is fetched first: `python -m soaes.run "
                f"goal=target.origin.base target.model={word}`"
            )
        raise ValueError(
            f"{role}={word}: there is no such folder; give the path of a model's folder, a stage "
            f"of the store, or a node such as {TARGET}{fetch}"
        )
    folder = folder.resolve()
    is_stage = (folder / "manifest.json").exists() and (folder / "recipe.yaml").exists()
    return Model(role, folder, folder.name if is_stage else "")


# ---------------------------------------------------------------- what was measured


def _speeds_of(target: Model, store: Store) -> list[Speed]:
    """Return the speeds of a target with drafts that are still there, the best first."""
    if not target.name:
        return []
    stores = {each.root.resolve(): each for each in (store, target.store)}
    speeds = []
    for each in stores.values():
        for name, written in _written_speeds(each).items():
            draft = _parent(written, "draft")
            if _parent(written, "target") == target.name and draft and each.holds(draft):
                speeds.append(_speed(each, name, written, draft))
    exact = [speed for speed in speeds if speed.proof != BIASED]
    return sorted(exact, key=lambda speed: speed.rank, reverse=True)


def _written_speeds(store: Store) -> dict[str, dict[str, Any]]:
    return {name: store.recipe(name) for name in store.names("speed")}


def _parent(written: dict[str, Any], role: str) -> str:
    """Return the name of a model that a stage reads; empty if it reads none."""
    parent = written.get(role)
    return parent[PARENT] if isinstance(parent, dict) else ""


def _speed(store: Store, name: str, written: dict[str, Any], draft: str) -> Speed:
    metrics = store.metrics(name)
    sampling = written["sampling"]
    temperature, top_p = sampling["temperature"], sampling["top_p"]
    return Speed(
        name,
        store,
        draft,
        metrics["n"],
        _decoding(metrics["n"], written["decode"]),
        f"temperature {temperature:g}, top-p {top_p:g}" if temperature else "greedy",
        metrics["library"],
        metrics["machine"],
        metrics["proof"],
        metrics["speedup"],
        written["decode"].get("batch", 1),
    )


def _decoding(n: int, decode: dict[str, Any]) -> str:
    """Say how a row drafted; a fixed n and one text at a time go without saying."""
    words = [f"n={n}"]
    if decode.get("adaptive"):
        words.append("adaptive")
    if decode.get("batch", 1) > 1:
        words.append(f"{decode['batch']} texts together")
    return ", ".join(words)


# ---------------------------------------------------------------- what is asked


def find_question(target: Model) -> Question:
    """Take the first question of the test split that a target of ours was trained for."""
    if not target.name:
        return Question(QUESTION)
    for name in read_recipe(target.store, target.name).ancestry():
        path = target.store.folder(name) / "qa" / "test.jsonl"
        if path.exists():
            return _first_question(path)
    return Question(QUESTION)


def _first_question(path: Path) -> Question:
    for sample in read_jsonl(path):
        question, answer = sample["messages"][:2]
        if sample.get("task") == "qa":
            return Question(question["content"], answer["content"])
    return Question(QUESTION)
