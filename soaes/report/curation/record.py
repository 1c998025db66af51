"""All that the page of a curation shows, as one value that JSON holds.

Counts come from the account of each step; the documents are read for what no account has, one at a
time: lengths, topics, and excerpts of those that were dropped. Lists are capped, and every cap is
said with the number of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from soaes.data.curation.document import WARNED_SHARE, Drop, read_accounts, read_drops
from soaes.data.curation.near_duplicates import EXACT
from soaes.data.curation.settings import SelectionSettings
from soaes.pipeline import labels
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, read_json
from soaes.report.curation import differences, survey
from soaes.report.curation.differences import Comparison
from soaes.report.curation.steps import FILES, Step, built_steps, unbuilt
from soaes.report.curation.survey import LENGTHS, Excerpt, Passage

MAX_DROPS = 100  # of each rule
MAX_PAIRS = 20  # of each rule, which are shown side by side
MAX_ORIGINS = 40
KINDS = ("general", "corpus", "dialogue", "qa", "exam")
NOT_SHOWN = ("digest", ".topics.", ".tiers.", ".rules.", ".boilerplate.", "_target_")  # settings


class RuleRecord(TypedDict):
    """What one rule of a step did."""

    rule: str
    documents_changed: int
    documents_dropped: int
    records_rejected: int
    characters: int  # removed, and those of the documents dropped
    samples: list[dict[str, Any]]  # of texts that it changed: source, before and after as pieces


class StepRecord(TypedDict):
    """One step: what came in, what went out, and by which rules."""

    step: str
    folder: str  # its name in the store
    seconds: float
    settings: dict[str, str]
    documents: dict[str, int]  # in, out, dropped
    characters: dict[str, int]  # in, out, removed, dropped
    tokens: dict[str, int]  # in, out; estimated
    records_rejected: int
    rules: list[RuleRecord]  # those that took most first
    idle: list[str]  # rules of cleaning that found nothing


class Warning(TypedDict):
    """A rule that takes more than its share of an origin."""

    step: str
    rule: str
    origin: str
    unit: str  # documents or characters
    share: float


class OriginRecord(TypedDict):
    """What came of an origin, and what is kept of it."""

    origin: str
    tier: int | None  # its credibility, where it was scored
    documents_in: int
    documents: int
    characters_in: int
    characters: int


class DropRecord(TypedDict):
    """A document that was dropped, or a record that was rejected."""

    source: str
    detail: str
    similarity: float | None
    keeper: str  # source of the document that stands for it
    document: Excerpt | None


class DropList(TypedDict):
    """What one rule of a step dropped."""

    step: str
    rule: str
    total: int
    shown: list[DropRecord]


class PairRecord(TypedDict):
    """A document that was dropped for another, beside it."""

    rule: str
    similarity: float | None
    dropped: Excerpt
    kept: Excerpt
    comparison: Comparison


class ContaminationRecord(TypedDict):
    """A held-out question in a document."""

    rule: str
    stem: str
    source: str
    title: str
    passage: Passage


class CurationRecord(TypedDict):
    """What the page shows at once; its blocks have the rest."""

    name: str  # of the last stage in the store
    made: str  # when the newest step was built, in UTC
    commit: str
    machine: str
    unbuilt: list[str]  # stages that are planned and not built
    characters_per_token: float
    steps: list[StepRecord]
    warnings: list[Warning]
    warned_share: float
    origins: list[OriginRecord]  # those with most characters
    more_origins: int
    length_classes: list[int]  # lower ends, in characters
    lengths: dict[str, list[int]]  # documents read and kept, by class
    length_characters: dict[str, list[int]]  # their characters
    relevance: dict[str, list[int]]  # documents scored and kept, by class of relevance
    topics: list[dict[str, Any]]  # topic, and the documents read and kept that speak of it
    scoring: dict[str, Any] | None  # scoring.json of the step `score`
    frontier: list[dict[str, Any]]  # frontier.json of the step `select`
    num_judged: int  # labelled passages behind its precision and recall
    threshold: float | None
    drops: list[dict[str, Any]]  # step, rule and total of each list in the block `drops`
    pairs_total: int
    contamination_total: int
    kinds: dict[str, Any]  # what the data folder has of each kind of data; empty before it is made
    problems: list[str]
    problems_total: int


@dataclass(frozen=True)
class Curation:
    """The page's record, and the blocks `drops`, `pairs` and `contamination`."""

    record: CurationRecord
    blocks: Mapping[str, Any]


def gather(store: Store, last: Recipe) -> Curation:
    """Read all that the page shows.

    Args:
        store: Where the steps are; `read` is built.
        last: The last stage of curation.
    """
    steps = built_steps(store, last)
    accounts = {account["step"]: account for account in read_accounts(steps[-1].folder)}
    by_name = {step.name: step for step in steps}
    selection = _selection(by_name)
    topics = _topics(by_name)
    first, final = steps[0], steps[-1]
    counts_read = survey.counts(first.folder, topics)
    counts_kept = survey.counts(final.folder, topics)
    counts_scored = counts_kept
    if "score" in by_name and accounts[final.name]["documents"]["dropped"]:
        counts_scored = survey.counts(by_name["score"].folder, {})
    drops, pairs, contamination = _dropped(steps)
    origins = _origins(accounts[first.name], accounts[final.name], counts_scored.tiers)
    frontier = by_name["select"].json("frontier.json") if "select" in by_name else {}
    report = _report(store, last)
    manifests = [store.manifest(step.recipe.name) for step in steps]
    record: CurationRecord = {
        "name": last.name,
        "made": max(manifest["made"] for manifest in manifests),
        "commit": ", ".join(dict.fromkeys(manifest["commit"] for manifest in manifests)),
        "machine": ", ".join(dict.fromkeys(manifest["machine"] for manifest in manifests)),
        "unbuilt": unbuilt(store, last),
        "characters_per_token": selection.characters_per_token,
        "steps": [
            _step(step, accounts[step.name], manifest["seconds"], selection.characters_per_token)
            for step, manifest in zip(steps, manifests, strict=True)
        ],
        "warnings": [line for account in accounts.values() for line in _warnings(account)],
        "warned_share": WARNED_SHARE,
        "origins": origins[:MAX_ORIGINS],
        "more_origins": max(0, len(origins) - MAX_ORIGINS),
        "length_classes": list(LENGTHS),
        "lengths": {"read": counts_read.lengths, "kept": counts_kept.lengths},
        "length_characters": {"read": counts_read.characters, "kept": counts_kept.characters},
        "relevance": {"scored": counts_scored.relevance, "kept": counts_kept.relevance},
        "topics": [
            {"topic": topic, "read": counts_read.topics[topic], "kept": counts_kept.topics[topic]}
            for topic in topics
        ],
        "scoring": by_name["score"].json("scoring.json") if "score" in by_name else None,
        "frontier": frontier.get("frontier", []),
        "num_judged": frontier.get("judged", 0),
        "threshold": selection.threshold,
        "drops": [
            {"step": each["step"], "rule": each["rule"], "total": each["total"]} for each in drops
        ],
        "pairs_total": _total(drops, "deduplicate"),
        "contamination_total": _total(drops, "decontaminate"),
        "kinds": {kind: report[kind] for kind in KINDS if kind in report},
        "problems": report.get("problems", []),
        "problems_total": report.get("problems_total", 0),
    }
    blocks = {"drops": drops, "pairs": pairs, "contamination": contamination}
    return Curation(record, blocks)


def _selection(steps: Mapping[str, Step]) -> SelectionSettings:
    """Return the settings of the selection; the defaults before there is one."""
    if "select" not in steps:
        return SelectionSettings()
    settings = dict(steps["select"].recipe.arguments["selection"])
    settings.pop("_target_", None)
    return SelectionSettings(**settings)


def _topics(steps: Mapping[str, Step]) -> survey.Topics:
    if "score" not in steps:
        return {}
    topics: survey.Topics = steps["score"].recipe.arguments["domain"]["topics"]
    return topics


def _report(store: Store, last: Recipe) -> dict[str, Any]:
    """Return the report of the data folder; empty before it is made."""
    if last.stage != FILES or not store.holds(last.name):
        return {}
    report: dict[str, Any] = read_json(store.folder(last.name) / "curation_report.json")
    return report


# ------------------------------------------------------------------------------------- steps


def _step(
    step: Step, account: Mapping[str, Any], seconds: float, characters_per_token: float
) -> StepRecord:
    characters = account["characters"]
    tokens = {way: round(characters[way] / characters_per_token) for way in ("in", "out")}
    rules = [_rule(rule, counts) for rule, counts in account["rules"].items()]
    rules.sort(key=lambda rule: (-rule["documents_dropped"], -abs(rule["characters"])))
    arguments = labels.own_arguments(step.recipe)
    return {
        "step": step.name,
        "folder": step.recipe.name,
        "seconds": seconds,
        "settings": {
            key: str(value)
            for key, value in arguments.items()
            if not any(part in f".{key}" for part in NOT_SHOWN)
        },
        "documents": account["documents"],
        "characters": characters,
        "tokens": tokens,
        "records_rejected": account["records_rejected"],
        "rules": rules,
        "idle": _idle(step, account),
    }


def _rule(rule: str, counts: Mapping[str, Any]) -> RuleRecord:
    samples = []
    for sample in counts["samples"] if counts["documents_changed"] else ():
        before, after = differences.marked(sample["before"], sample["after"])
        samples.append({"source": sample["source"], "before": before, "after": after})
    return {
        "rule": rule,
        "documents_changed": counts["documents_changed"],
        "documents_dropped": counts["documents_dropped"],
        "records_rejected": counts["records_rejected"],
        "characters": counts["characters_removed"] + counts["characters_dropped"],
        "samples": samples,
    }


def _idle(step: Step, account: Mapping[str, Any]) -> list[str]:
    """Return the rules of cleaning that ran and changed nothing."""
    cleaning = step.recipe.arguments.get("cleaning")
    if not cleaning:
        return []
    names = [*cleaning["rules"], *(f"boilerplate: {name}" for name in cleaning["boilerplate"])]
    return [name for name in names if name not in account["rules"]]


def _warnings(account: Mapping[str, Any]) -> list[Warning]:
    """Return the rules of a step that take more than their share of an origin."""
    warnings: list[Warning] = []
    for origin, rules in account["taken"].items():
        for rule, taken in rules.items():
            for unit in ("documents", "characters"):
                share = taken[unit] / max(1, account["origins"][origin][f"{unit}_in"])
                if share > WARNED_SHARE:
                    warning: Warning = {
                        "step": account["step"],
                        "rule": rule,
                        "origin": origin,
                        "unit": unit,
                        "share": share,
                    }
                    warnings.append(warning)
    return warnings


def _origins(
    first: Mapping[str, Any], final: Mapping[str, Any], tiers: Mapping[str, int]
) -> list[OriginRecord]:
    """Return what came of each origin and what is kept, the largest first."""
    origins: list[OriginRecord] = []
    for origin, counts in first["origins"].items():
        kept = final["origins"].get(origin, {})
        origins.append(
            {
                "origin": origin,
                "tier": tiers.get(origin),
                "documents_in": counts["documents_in"],
                "documents": kept.get("documents_out", 0),
                "characters_in": counts["characters_in"],
                "characters": kept.get("characters_out", 0),
            }
        )
    return sorted(origins, key=lambda origin: -origin["characters_in"])


# ------------------------------------------------------------------------------------- drops


def _dropped(
    steps: Sequence[Step],
) -> tuple[list[DropList], list[PairRecord], list[ContaminationRecord]]:
    """Return what every step dropped by rule, duplicates side by side, and contamination."""
    lists: list[DropList] = []
    pairs: list[PairRecord] = []
    contamination: list[ContaminationRecord] = []
    for parent, step in zip((None, *steps), steps, strict=False):
        totals, shown = _capped(step)
        compared = _compared(shown)
        num_chars = {drop["id"]: survey.EXCERPT_CHARS for drop in _all(shown) if drop["id"]}
        num_chars |= {drop["keeper"]: 0 for drop in _all(shown) if drop["keeper"]}
        for drop in compared:  # one character more, by which it is seen that there are more
            num_chars |= dict.fromkeys((drop["id"], drop["keeper"]), survey.COMPARED_CHARS + 1)
        excerpts = survey.excerpts(parent.folder, num_chars) if parent else {}
        pairs += [_pair(drop, excerpts) for drop in compared]
        if parent and step.name == "decontaminate":
            contamination += _contamination(parent, _all(shown), excerpts)
        for rule, drops in shown.items():
            records = [_drop(drop, excerpts) for drop in drops]
            of_rule: DropList = {
                "step": step.name,
                "rule": rule,
                "total": totals[rule],
                "shown": records,
            }
            lists.append(of_rule)
    return lists, pairs, contamination


def _capped(step: Step) -> tuple[dict[str, int], dict[str, list[Drop]]]:
    """Return how much each rule of a step dropped, and the first drops of each."""
    totals: dict[str, int] = defaultdict(int)
    shown: dict[str, list[Drop]] = defaultdict(list)
    for drop in read_drops(step.folder):
        totals[drop["rule"]] += 1
        if len(shown[drop["rule"]]) < MAX_DROPS:
            shown[drop["rule"]].append(drop)
    return totals, shown


def _all(shown: Mapping[str, Sequence[Drop]]) -> list[Drop]:
    return [drop for drops in shown.values() for drop in drops]


def _compared(shown: Mapping[str, Sequence[Drop]]) -> list[Drop]:
    """Return the drops that are shown beside their keepers; equal texts need no comparison."""
    compared = []
    for rule, drops in shown.items():
        if rule != EXACT:
            compared += [drop for drop in drops if drop["keeper"]][:MAX_PAIRS]
    return compared


def _drop(drop: Drop, excerpts: Mapping[str, Excerpt]) -> DropRecord:
    document = excerpts.get(drop["id"])
    if document:
        document = {**document, "text": document["text"][: survey.EXCERPT_CHARS]}
    keeper = excerpts.get(drop["keeper"])
    return {
        "source": drop["source"],
        "detail": drop["detail"],
        "similarity": drop["similarity"],
        "keeper": keeper["source"] if keeper else drop["keeper"],
        "document": document,
    }


def _pair(drop: Drop, excerpts: Mapping[str, Excerpt]) -> PairRecord:
    dropped, kept = excerpts[drop["id"]], excerpts[drop["keeper"]]
    comparison = differences.side_by_side(dropped["text"], kept["text"], survey.COMPARED_CHARS)
    return {
        "rule": drop["rule"],
        "similarity": drop["similarity"],
        "dropped": {**dropped, "text": ""},
        "kept": {**kept, "text": ""},
        "comparison": comparison,
    }


def _contamination(
    parent: Step, drops: Sequence[Drop], excerpts: Mapping[str, Excerpt]
) -> list[ContaminationRecord]:
    """Return where the documents of drops hold the questions for which they were dropped."""
    passages = survey.passages(parent.folder, {drop["id"]: drop["detail"] for drop in drops})
    return [
        {
            "rule": drop["rule"],
            "stem": drop["detail"],
            "source": drop["source"],
            "title": excerpts[drop["id"]]["title"],
            "passage": passages[drop["id"]],
        }
        for drop in drops
    ]


def _total(drops: Sequence[DropList], step: str) -> int:
    return sum(each["total"] for each in drops if each["step"] == step)
