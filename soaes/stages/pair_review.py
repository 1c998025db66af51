"""From deduplication to what people say of it.

documents (data.clean), deduplicate    what was dropped for what, and what was kept
draw_pairs                             pairs near the threshold, for the review page
pairs/ of the user's folder            exports of that review
judged_pairs                           precision of the drops, share of missed pairs
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from soaes.data.annotation import item as contract
from soaes.data.annotation import pair_estimates
from soaes.data.annotation.drawn_items import count_strata, draw_name, sample_of, shown_part
from soaes.data.annotation.item import ReviewItem
from soaes.data.annotation.pair_estimates import Stratum
from soaes.data.annotation.reviews import Reviewed, folders_of, gather
from soaes.data.annotation.verdicts import common, verdict
from soaes.data.curation import near_duplicates, sources
from soaes.data.curation.curation_report import printable
from soaes.data.curation.document import ACCOUNT, DROPS, read_documents, read_drops
from soaes.data.curation.near_duplicates import Similar
from soaes.data.curation.passage_sampling import Draw, Population
from soaes.data.curation.passages import Passage
from soaes.data.curation.settings import DeduplicationSettings, PairDrawing
from soaes.data.jsonl import write_jsonl
from soaes.metrics.schema import write_metrics
from soaes.pipeline.store import write_json

PAIRS = "pairs.json"
DROPPED, KEPT = "dropped", "kept"  # what became of a pair
BANDS = 20  # of similarity, between 0 and 1
NO_PAIR = "no pair of documents that was drawn"  # why an item is not used


def draw_pairs(
    documents: Path,
    deduplicated: Path,
    *,
    deduplication: DeduplicationSettings,
    drawing: PairDrawing,
    out: Path,
) -> None:
    """Draw pairs of documents that were taken for near-duplicates, or nearly.

    Strata are what became of a pair (one was dropped for the other, or both were kept) and the band
    of its similarity. Of the documents that were kept, all pairs count that are at least as similar
    as `lowest`, whatever kept them apart. Equal texts and older versions are not drawn.

    Writes items.jsonl of kind near_duplicate, and account.json: every stratum with its size.

    Args:
        documents: Folder of the documents before deduplication.
        deduplicated: Folder of soaes.stages.corpus.deduplicate.
        deduplication: Its settings.
        drawing: How many pairs, and from which similarity.
        out: The stage's output folder.

    Raises:
        ValueError: No two documents are so similar.
    """
    dropped, num_too_long = _dropped_pairs(documents, deduplicated, drawing.max_chars)
    with TemporaryDirectory(dir=out) as scratch:
        looser = replace(deduplication, jaccard=drawing.lowest)
        kept, num_not_compared = near_duplicates.similar(
            deduplicated, looser, drawing.max_chars, Path(scratch)
        )
    population = Population()
    for fate, similar in ((DROPPED, dropped), (KEPT, kept)):
        for pair in similar:
            population.add(f"{fate}/{_band(pair.similarity)}", [""])
    if not len(population):
        raise ValueError(
            f"{deduplicated.name}: no two documents are similar enough to be judged; lower "
            f"data.draw_pairs.drawing.lowest={drawing.lowest}"
        )
    # as many as there are strata: of each at least one pair, since all are drawn alike often
    number = max(drawing.number, len(population.sizes()))
    draws = population.draw(number, 1, drawing.seed)
    items = _pair_items(documents, [*dropped, *kept], draws)
    contract.write_items(out / contract.ITEMS, items)
    account = {
        "dropped": len(dropped),
        "kept": len(kept),
        "too_long": num_too_long,
        "not_compared": num_not_compared,
        "strata": count_strata(population, draws, "pairs"),
    }
    write_json(out / ACCOUNT, account)
    metrics = {
        "items": len(items),
        "dropped": len(dropped),
        "kept": len(kept),
        "num_too_long": num_too_long,
        "num_not_compared": num_not_compared,
    }
    write_metrics(out, metrics)


def judged_pairs(digest: str, *, root: str, out: Path) -> None:
    """Measure deduplication by what people said of the pairs that were drawn.

    Writes pairs.json: the share of dropped pairs that are duplicates, and the share of all
    duplicates that were kept (soaes.data.annotation.pair_estimates), with 95 % intervals, by
    stratum and with the agreement of people, and the strata whose size differs between draws, as
    of other documents. Writes drops.jsonl: each item that gives no pair, with its reason. Changes
    no decision.

    Args:
        digest: Digest of pairs/ in the user's folder, which stands for it in the recipe.
        root: The user's folder.
        out: The stage's output folder.

    Raises:
        ValueError: The folder changed since the job was planned, holds something else than exports,
            or no pair that was drawn.
    """
    sources.check_unchanged(root, digest, (sources.PAIRS,))
    folders, others = folders_of(sources.listing(root)[sources.PAIRS])
    if others:
        raise ValueError(
            f"{printable(others[0])}: is no file of an export; move it out of {sources.PAIRS}/"
        )
    reviewed = gather(Path(root), folders)
    strata, drops = _judged(reviewed)
    if not strata:
        raise ValueError(
            f"{root}/{sources.PAIRS}: no pair that data.draw_pairs drew; review its folder, and "
            "export it there"
        )
    precision = pair_estimates.precision(list(strata.values()))
    missed = pair_estimates.missed(list(strata.values()))
    agreed = reviewed.agreement("near_duplicate")
    several = _of_several_sizes(reviewed)
    if several:
        print(
            f"the draws in {sources.PAIRS}/ are not of the same documents: {', '.join(several)} "
            "have several sizes, and the largest counts; for exact figures keep one draw there"
        )
    report = {
        "precision": precision._asdict() if precision else None,
        "missed": missed._asdict() if missed else None,
        "strata": {name: asdict(stratum) for name, stratum in strata.items()},
        "of_several_sizes": several,
        "dropped": dict(Counter(drop["rule"] for drop in drops).most_common()),
        "agreement": agreed,
    }
    write_jsonl(out / DROPS, drops)
    write_json(out / PAIRS, report)
    metrics: dict[str, Any] = {
        "precision": precision.value if precision else None,
        "missed": missed.value if missed else None,
        "decided": sum(stratum.decided for stratum in strata.values()),
        "num_replaced": reviewed.num_replaced,
    }
    for name, share in (("precision", precision), ("missed", missed)):
        if share:
            metrics |= {f"{name}_low": share.low, f"{name}_high": share.high}
            print(f"{name}: {share.value} [{share.low:.4f}, {share.high:.4f}]")
    write_metrics(out, {**metrics, "num_dropped": len(drops)})


# ------------------------------------------------------------------------------------ draw_pairs


def _dropped_pairs(
    documents: Path, deduplicated: Path, max_chars: int
) -> tuple[list[Similar], int]:
    """Return the near-duplicates that were dropped, and how many are too long to be shown."""
    pairs_of_drops = [
        Similar(drop["id"], drop["keeper"], drop["similarity"] or 0.0)
        for drop in read_drops(deduplicated)
        if drop["rule"] == near_duplicates.NEAR
    ]
    wanted = {name for pair in pairs_of_drops for name in (pair.first, pair.second)}
    short = {
        document["id"]
        for document in read_documents(documents)
        if document["id"] in wanted and len(document["text"]) <= max_chars
    }
    shown = [pair for pair in pairs_of_drops if {pair.first, pair.second} <= short]
    return shown, len(pairs_of_drops) - len(shown)


def _band(similarity: float) -> str:
    """Return the band of a similarity, by where it begins: 0.80."""
    return f"{min(BANDS - 1, int(similarity * BANDS + 1e-9)) / BANDS:.2f}"


def _pair_items(
    documents: Path, similar: Sequence[Similar], draws: Sequence[Draw]
) -> list[ReviewItem]:
    """Return the items of the pairs that were drawn; which document was kept does not show."""
    drawn = [(draw, sorted(similar[draw.document][:2])) for draw in draws]
    wanted = {name for _, names in drawn for name in names}
    whole: dict[str, contract.ReviewDocument] = {}
    for document in read_documents(documents):
        if document["id"] in wanted:
            whole[document["id"]] = shown_part(document, Passage(0, len(document["text"])), 0)
    name = draw_name([*names, draw.probability] for draw, names in drawn)
    return [
        contract.review_item(
            "near_duplicate",
            document=whole[first],
            other=whole[second],
            sample=sample_of(draw, name),
        )
        for draw, (first, second) in drawn
    ]


# ---------------------------------------------------------------------------------- judged_pairs


def _of_several_sizes(reviewed: Reviewed) -> list[str]:
    """Return the strata whose size differs between draws, in alphabetical order."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for item in reviewed.items.values():
        sample = item.get("sample")
        if sample is not None and item["kind"] == "near_duplicate":
            sizes[sample["stratum"]].add(sample["size"])
    return sorted(name for name, found in sizes.items() if len(found) > 1)


def _judged(reviewed: Reviewed) -> tuple[dict[str, Stratum], list[dict[str, Any]]]:
    """Return what people said of each stratum, and a drop for every item that says nothing."""
    strata: dict[str, Stratum] = {}
    drops = []
    for identifier, item in sorted(reviewed.items.items()):
        sample = item.get("sample")
        is_pair = item["kind"] == "near_duplicate" and sample is not None
        word = common(reviewed.decisions[identifier], verdict) if is_pair else NO_PAIR
        if sample is not None and is_pair:
            name = sample["stratum"]
            known = strata.get(name) or Stratum(name.startswith(DROPPED), 0, 0, 0)
            decided = known.decided + (word in ("yes", "no"))
            strata[name] = replace(
                known,
                size=max(known.size, sample["size"], decided),  # of several draws the largest
                decided=decided,
                duplicates=known.duplicates + (word == "yes"),
            )
        if word not in ("yes", "no"):
            drops.append({"rule": word, "item": identifier})
    return dict(sorted(strata.items())), drops
