"""Deduplication beyond one machine: the functions of `near_duplicates` as blocks of datatrove.

A block is called as `block(data, rank, world_size)`, the protocol of datatrove's pipelines, so that
its executors run the blocks on one machine, by SLURM or by Ray; this module imports none of it.
All ranks see one file system, and a block begins when all ranks of the one before are done:

| block | a rank takes | writes to the work folder |
|---|---|---|
| `Signatures` | every world_size-th shard | its records and the keys of its bands |
| `Buckets` | every world_size-th band | the keys of all shards, and links between equal ones |
| `Verification` | every world_size-th group of linked documents | which of them are dropped |
| `Kept` | every world_size-th shard | to `out`: a folder of the step for each shard |

A shard is the folder of a step, such as what `clean` made of a part of the corpus. Documents that
share a band are linked, and so are equal texts and, if only the newest version is kept, equal
titles. Whatever decides on a document lies in its group, so that the decisions are those of the
stage `deduplicate` on all shards in the order of their names.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from soaes.data.curation import near_duplicates
from soaes.data.curation.document import DOCUMENTS, StepOutput
from soaes.data.curation.near_duplicates import RECORD, RECORDS, Duplicates, Sketches, key_file
from soaes.data.curation.settings import DeduplicationSettings

Indices = npt.NDArray[np.int64]

DECISION = np.dtype(
    [
        ("document", np.uint32),
        ("rule", np.uint8),
        ("keeper", np.uint32),
        ("similarity", np.float32),
        ("given", np.uint8),
    ]
)


@dataclass(frozen=True)
class Deduplication:
    """What all blocks share.

    Attributes:
        documents: Folder with a folder of the step before for each shard.
        work: Folder for what blocks hand on; it may be deleted afterwards.
        settings: What counts as a near-duplicate.
    """

    documents: Path
    work: Path
    settings: DeduplicationSettings

    @property
    def shards(self) -> list[str]:
        """The names of the shards, in order."""
        return sorted(path.parent.name for path in self.documents.glob(f"*/{DOCUMENTS}"))

    def sketch_folder(self, shard: str) -> Path:
        """Return the folder with the records and keys of a shard."""
        return self.work / "shards" / shard

    @property
    def counts(self) -> list[int]:
        """The documents of each shard."""
        files = [self.sketch_folder(shard) / RECORDS for shard in self.shards]
        return [file.stat().st_size // RECORD.itemsize for file in files]

    def sketches(self) -> Sketches:
        """Return what `Buckets` gathered of all shards."""
        files = [self.documents / shard / DOCUMENTS for shard in self.shards]
        return Sketches(files, self.counts, self.work)


@dataclass(frozen=True)
class Signatures(Deduplication):
    """Sketch the documents of shards."""

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run a rank."""
        for shard in self.shards[rank::world_size]:
            folder = self.sketch_folder(shard)
            folder.mkdir(parents=True, exist_ok=True)
            near_duplicates.sketch(self.documents / shard / DOCUMENTS, self.settings, folder)


@dataclass(frozen=True)
class Buckets(Deduplication):
    """Gather the keys of bands, and link the documents that share one."""

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run a rank."""
        num_bands = self.settings.bands[0]
        records = self._records()
        for band in range(rank, num_bands, world_size):
            self._gather(key_file(band))
            keys = np.fromfile(self.work / key_file(band), np.uint64)
            documents = np.flatnonzero(records["has_ngrams"])
            self._link(f"links-{band}", documents, keys[documents])
        if rank == 0:
            self._gather(RECORDS)
            self._link("links-texts", np.arange(len(records)), records["digest"])
            if self.settings.versions == "newest":
                titled = np.flatnonzero(records["title"])
                self._link("links-titles", titled, records["title"][titled])

    def _records(self) -> npt.NDArray[np.void]:
        files = [self.sketch_folder(shard) / RECORDS for shard in self.shards]
        return np.concatenate([np.fromfile(file, RECORD) for file in files])

    def _gather(self, name: str) -> None:
        """Write a file of all shards one after another."""
        with open(self.work / name, "wb") as target:
            for shard in self.shards:
                with open(self.sketch_folder(shard) / name, "rb") as source:
                    shutil.copyfileobj(source, target)

    def _link(self, name: str, documents: Indices, keys: npt.NDArray[np.generic]) -> None:
        """Write the pairs of documents that follow each other in a run of equal keys."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_equal = ordered[1:] == ordered[:-1]
        first, second = order[:-1][is_equal], order[1:][is_equal]
        pairs = np.stack([documents[first], documents[second]])
        pairs.astype(np.uint32).tofile(self.work / name)


@dataclass(frozen=True)
class Verification(Deduplication):
    """Decide on groups of linked documents as the stage does, by exact similarity."""

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run a rank."""
        sketches = self.sketches()
        group_of = self._groups(len(sketches.records))
        sizes = np.bincount(group_of)
        documents = np.flatnonzero((group_of % world_size == rank) & (sizes[group_of] > 1))
        duplicates = Duplicates(sketches)
        with TemporaryDirectory(dir=self.work) as scratch:
            near_duplicates.decide(sketches, documents, self.settings, Path(scratch), duplicates)
        dropped = np.flatnonzero(duplicates.rule)
        decisions = np.zeros(len(dropped), DECISION)
        decisions["document"] = dropped
        for name in ("rule", "keeper", "similarity", "given"):
            decisions[name] = getattr(duplicates, name)[dropped]
        decisions.tofile(self.work / f"decisions-{rank}")

    def _groups(self, count: int) -> npt.NDArray[np.int32]:
        """Return the number of each document's group."""
        files = self.work.glob("links-*")
        pairs = [np.fromfile(file, np.uint32).reshape(2, -1) for file in files]
        first, second = np.concatenate(pairs, axis=1)
        is_linked = np.ones(len(first), np.uint8)
        links = coo_array((is_linked, (first, second)), shape=(count, count))
        _, group_of = connected_components(links, directed=False)
        groups: npt.NDArray[np.int32] = group_of
        return groups


@dataclass(frozen=True)
class Kept(Deduplication):
    """Write the documents that are kept, and the drops, shard by shard.

    Attributes:
        out: Gets a folder for each shard, as the stage `deduplicate` writes it.
    """

    out: Path

    def __call__(self, data: object = None, rank: int = 0, world_size: int = 1) -> None:
        """Run a rank."""
        duplicates = self._duplicates()
        firsts = np.cumsum([0, *self.counts])
        shards = self.shards
        for number in range(rank, len(shards), world_size):
            with StepOutput("deduplicate", self.out / shards[number]) as output:
                parent = self.documents / shards[number]
                near_duplicates.write_kept(parent, output, duplicates, int(firsts[number]))

    def _duplicates(self) -> Duplicates:
        duplicates = Duplicates(self.sketches())
        for file in self.work.glob("decisions-*"):
            decisions = np.fromfile(file, DECISION)
            for name in ("rule", "keeper", "similarity", "given"):
                getattr(duplicates, name)[decisions["document"]] = decisions[name]
        return duplicates
