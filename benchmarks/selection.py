"""Whether selected text teaches more of the domain than random text of as many tokens does.

    python -m benchmarks.selection DOCUMENTS LABELS [--out benchmarks/results/selection.json]

DOCUMENTS is the folder of the stage `decontaminate` of soaes.stages.corpus. After the efficient
verification of Ultra-FineWeb (Wang et al. 2025): one base model, from which training goes on with
the data that are compared. Here CPT reads the documents that `data.select` keeps, or as much text
of documents drawn by chance from all of them: as many tokens of each, no row twice. The model is
the smallest of scale=smoke.

A fifth of the families of labelled documents (the versions of a law, the reports of five years) is
left out by each seed: no document of theirs is trained on, none of their labels is known to the
scorer that selects, and neither is a document trained on that holds half of a passage of theirs.
The loss is that of their passages, those labelled as relevant (domain) and the others (other). The
base model has seen general text alone: documents of families without a label.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from benchmarks.relevance import command_line, family_of
from benchmarks.rounds import markdown, row, write
from soaes.data import chat
from soaes.data.curation import ngrams
from soaes.data.curation.document import CuratedDocument, StepOutput, read_documents
from soaes.data.curation.labels import (
    LABELS,
    Label,
    LabelledPassage,
    labelled_passages,
    read_labels,
)
from soaes.data.curation.settings import DomainSettings, SelectionSettings
from soaes.data.curation.versions import title_key
from soaes.data.jsonl import write_jsonl
from soaes.model import checkpoint
from soaes.pipeline import sweep
from soaes.pipeline.provenance import provenance
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store
from soaes.pipeline.worker import realise
from soaes.stages import corpus, prepare, train

OVERRIDES = (
    "scale=smoke",
    "size=small",
    "optim.general.max_tokens=400_000",
    "optim.cpt.max_tokens=150_000",
    "optim.cpt.epochs=1",
    "validation.per_run=1",
    "validation.rows=8",
)
NUM_FOLDS = 5  # of families, each left out by one seed
GENERAL_ONE_IN = 3  # of the documents of families without a label, one in so many is general text
THRESHOLD = 0.5  # of relevance, from which a document is selected
N = 8  # characters of an n-gram by which a document is found to hold a passage
SHARE = 0.5  # of a passage's n-grams, from which a document holds it
ARMS = ("selected", "random")
KINDS = ("domain", "other")


class Recipes(NamedTuple):
    """What scale=smoke says of the stages, without their parents."""

    tokenizer: dict[str, Any]
    pack: dict[str, Any]
    pretrain: dict[str, Any]
    cpt: dict[str, Any]


def recipes() -> Recipes:
    """Return the arguments of the stages at scale=smoke under `OVERRIDES`."""
    (job,) = sweep.jobs(["goal=target.cpt", *OVERRIDES])
    pretrain = job.recipe.parents["parent"]
    stages = (pretrain.parents["tokenizer"], job.recipe.parents["rows"], pretrain, job.recipe)
    return Recipes(*map(_own_arguments, stages))


def _own_arguments(recipe: Recipe) -> dict[str, Any]:
    left_out = ("revision", "seed", "sources")
    return {
        key: realise(value, Store(Path()))
        for key, value in recipe.arguments.items()
        if not isinstance(value, Recipe) and key not in left_out
    }


# ------------------------------------------------------------------------------------- families


def families(labels: Iterable[Label], documents: Iterable[CuratedDocument]) -> dict[str, str]:
    """Return the family of every document, by its id; that of one without a label is its own.

    A document without a label that has the title of one with a label is of the same family.
    """
    of_file = {label.source: family_of(label) for label in labels}
    documents = list(documents)
    of_title = {}
    for document in documents:
        if family := of_file.get(document["source"]):
            of_title[title_key(document["title"])] = family
    of_title.pop("", None)
    return {
        document["id"]: of_file.get(document["source"])
        or of_title.get(title_key(document["title"]))
        or document["source"]
        for document in documents
    }


def is_left_out(family: str, seed: int) -> bool:
    """Tell whether a seed leaves a family out."""
    return zlib.crc32(family.encode()) % NUM_FOLDS == seed


def holders(passages: Sequence[str], documents: Iterable[CuratedDocument]) -> set[str]:
    """Return the ids of the documents that hold half of one of the passages."""
    grams = [_grams(passage) for passage in passages]
    owners = np.repeat(np.arange(len(grams)), list(map(len, grams)))
    of_passages = np.concatenate([np.zeros(0, np.uint64), *grams])
    sizes = np.maximum(1, list(map(len, grams)))
    found = set()
    for document in documents:
        is_in = np.isin(of_passages, _grams(document["text"]))
        num_in = np.bincount(owners[is_in], minlength=len(grams))
        if len(grams) and (num_in / sizes).max() >= SHARE:
            found.add(document["id"])
    return found


def _grams(text: str) -> ngrams.Hashes:
    return ngrams.distinct(ngrams.ngram_hashes(ngrams.folded(text), N))


# ------------------------------------------------------------------------------------- training


class Comparison:
    """One base model, and what CPT makes of it with each seed.

    Args:
        parent: Folder of a step of curation.
        labels: The file of the labels.
        domain: Topics and tiers.
        scratch: An empty folder.
    """

    def __init__(self, parent: Path, labels: Path, domain: DomainSettings, scratch: Path) -> None:
        self._parent = parent
        self._scratch = scratch
        self._domain = domain
        self._settings = recipes()
        self._labels = read_labels(labels)
        self._labelled = list(labelled_passages(self._labels, read_documents(parent)))
        self._family = families(self._labels, read_documents(parent))
        self._general = self._general_ids(set(map(family_of, self._labels)))
        self._tokenizer, self._base = scratch / "tokenizer", scratch / "base"
        self._train_base()

    @property
    def num_general(self) -> int:
        """How many documents the base model was trained on."""
        return len(self._general)

    def measure(self, seed: int) -> dict[str, Any]:
        """Train on both, and return the losses in nats a token.

        Args:
            seed: Which families are left out, and in which order rows are read.

        Raises:
            ValueError: A corpus is too small for the budget, so that no equal amount is read.
        """
        folder = self._scratch / f"seed-{seed}"
        left_out = [
            passage for passage in self._labelled if is_left_out(family_of(passage.label), seed)
        ]
        num_dropped = self._write_pool(folder / "pool", [each.text for each in left_out], seed)
        self._select(folder, seed)
        result: dict[str, Any] = {"seed": seed, **num_dropped}
        result["passages"] = {kind: len(_texts(left_out, kind)) for kind in KINDS}
        result["base"] = self._losses(self._base, left_out)
        selected = list(read_documents(folder / "select"))
        drawn = _drawn(list(read_documents(folder / "pool")), _num_chars(selected), seed)
        for arm, documents in zip(ARMS, (selected, drawn), strict=True):
            model = self._train(documents, folder / arm, seed)
            result[arm] = self._losses(model, left_out)
            result[arm] |= {"documents": len(documents), "characters": _num_chars(documents)}
        return result

    def _general_ids(self, labelled_families: set[str]) -> set[str]:
        """Choose documents of families without a label, of which none holds a labelled passage."""
        held = holders([each.text for each in self._labelled], read_documents(self._parent))
        return {
            name
            for name, family in self._family.items()
            if family not in labelled_families
            and name not in held
            and zlib.crc32(name.encode()) % GENERAL_ONE_IN == 0
        }

    def _train_base(self) -> None:
        documents, rows = self._scratch / "documents", self._scratch / "general"
        parts: dict[str, list[CuratedDocument]] = {"general": [], "corpus": []}
        for document in read_documents(self._parent):
            parts["general" if document["id"] in self._general else "corpus"].append(document)
        for part, records in parts.items():
            write_jsonl(documents / f"{part}.jsonl", records)
        for name in ("dialogue", "qa/train"):
            write_jsonl(documents / f"{name}.jsonl", [])
        settings = self._settings
        prepare.tokenizer(documents, **settings.tokenizer, out=self._tokenizer)
        prepare.pack(documents, self._tokenizer, ["general"], **settings.pack, out=rows)
        train.pretrain(self._tokenizer, rows, **settings.pretrain, seed=0, out=self._base)

    def _write_pool(self, out: Path, passages: Sequence[str], seed: int) -> dict[str, int]:
        """Write what a seed may train on; return how many documents it may not."""
        held = holders(passages, read_documents(self._parent))
        num_left_out = num_held = 0
        with StepOutput("pool", out) as output:
            for document in output.documents(self._parent):
                name = document["id"]
                if name in self._general:
                    output.drop(document, "general text")
                elif is_left_out(self._family[name], seed):
                    output.drop(document, "family that is left out")
                    num_left_out += 1
                elif name in held:
                    output.drop(document, "holds a passage that is left out")
                    num_held += 1
                else:
                    output.keep(document)
        return {"documents_left_out": num_left_out, "other_holders_of_passages": num_held}

    def _select(self, folder: Path, seed: int) -> None:
        """Select by a scorer that knows the labels of the other families alone."""
        known = [label for label in self._labels if not is_left_out(family_of(label), seed)]
        write_jsonl(folder / "labels" / LABELS, [label.record() for label in known])
        pool, scored = folder / "pool", folder / "score"
        corpus.score(pool, folder / "labels", domain=self._domain, out=scored)
        selection = SelectionSettings(threshold=THRESHOLD)
        corpus.select(scored, selection=selection, out=folder / "select")

    def _train(self, documents: Sequence[CuratedDocument], folder: Path, seed: int) -> Path:
        """Train the base model further on documents; return the model's folder."""
        write_jsonl(folder / "corpus.jsonl", documents)
        pack, cpt = self._settings.pack, self._settings.cpt
        prepare.pack(folder, self._tokenizer, ["corpus"], **pack, out=folder / "rows")
        report = json.loads((folder / "rows/packing_report.json").read_text("utf-8"))
        num_rows = report["train"]["rows"]
        if num_rows * pack["context"] < cpt["optim"].max_tokens:
            raise ValueError(
                f"{folder.name}: {num_rows} rows of {pack['context']} tokens are fewer than "
                f"{cpt['optim'].max_tokens:,} tokens; give more documents"
            )
        train.cpt(self._base, folder / "rows", **cpt, seed=seed, out=folder / "model")
        return folder / "model"

    def _losses(self, model: Path, passages: Sequence[LabelledPassage]) -> dict[str, float]:
        return {kind: mean_loss(model, _texts(passages, kind)) for kind in KINDS}


def _drawn(
    documents: Sequence[CuratedDocument], num_chars: int, seed: int
) -> list[CuratedDocument]:
    """Draw documents by chance until they hold so many characters."""
    drawn: list[CuratedDocument] = []
    for document in Random(seed).sample(documents, len(documents)):
        if _num_chars(drawn) >= num_chars:
            break
        drawn.append(document)
    return drawn


def _num_chars(documents: Iterable[CuratedDocument]) -> int:
    return sum(len(document["text"]) for document in documents)


def mean_loss(folder: Path, texts: Sequence[str]) -> float:
    """Return the mean loss of a model over the tokens of texts, in nats; their first bear none."""
    model = checkpoint.load(folder).eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in chat.document(chat.load_tokenizer(folder), list(texts)):
            ids_BT = torch.from_numpy(ids.astype(np.int64))[None]
            logits_TV = model(input_ids=ids_BT).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits_TV, ids_BT[0, 1:], reduction="sum")
            total += float(loss)
            count += len(ids) - 1
    return total / max(1, count)


def _texts(passages: Sequence[LabelledPassage], kind: str) -> list[str]:
    return [each.text for each in passages if each.label.relevant == (kind == "domain")]


# ------------------------------------------------------------------------------------- results


def rows(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the losses and their differences, one value a seed."""
    results = []
    for kind in KINDS:
        for name in ("base", *ARMS):
            losses = [seed[name][kind] for seed in measured]
            results.append(row(f"{kind} text, {name}", "nats/token", losses, better="lower"))
        pairs = [(seed["selected"][kind], seed["random"][kind]) for seed in measured]
        differences = [selected - random for selected, random in pairs]
        target = 0.0 if kind == "domain" else None
        name = f"{kind} text, selected - random"
        results.append(row(name, "nats/token", differences, target=target, better="lower"))
    return results


def main() -> None:
    """Compare, write the results and print them."""
    arguments = command_line(__doc__.splitlines()[0], "selection")
    plain = yaml.safe_load(arguments.domain.read_text(encoding="utf-8"))
    domain = DomainSettings(plain["topics"], plain["tiers"])
    torch.set_num_threads(1)
    measured = []
    with tempfile.TemporaryDirectory() as scratch:
        comparison = Comparison(arguments.documents, arguments.labels, domain, Path(scratch))
        for seed in range(NUM_FOLDS):
            measured.append(comparison.measure(seed))
            print(json.dumps(measured[-1]), flush=True)
    facts = {
        **provenance(),
        "recipe": {
            "overrides": list(OVERRIDES),
            **{name: str(value) for name, value in recipes()._asdict().items()},
        },
        "threshold": THRESHOLD,
        "general_documents": comparison.num_general,
        "seeds": measured,
    }
    results = rows(measured)
    write(arguments.out, results, **facts)
    print(markdown(results))


if __name__ == "__main__":
    # Lightning warns that the data loaders have no worker processes
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    main()
