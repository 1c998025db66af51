"""Blocks of any number of ranks decide as the stage does on all shards at once."""

import json
from random import Random

import numpy as np
import pytest

from soaes.data.curation import deduplication_blocks, near_duplicates
from soaes.data.curation.deduplication_blocks import Buckets, Kept, Signatures, Verification
from soaes.data.curation.document import SourceDocument, StepOutput, curated
from soaes.data.curation.settings import DeduplicationSettings

HAN = [chr(point) for point in range(0x4E00, 0x5E00)]
BLOCKS = (Signatures, Buckets, Verification, Kept)


def text(seed, length=2500):
    return "".join(Random(f"block {seed}").choices(HAN, k=length))


def documents():
    """Texts, their near and equal copies, and versions of some, spread over all shards."""
    rows = []
    for number in range(12):
        original = text(number)
        rows.append((original, {"title": f"{HAN[number] * 4}法", "date": f"20{number + 10}-01-01"}))
        if number % 2:
            rows.append((original[:-20], {}))
        if number % 3 == 0:
            rows.append((original, {}))
            rows.append((original[200:] + text(-number, 30), {"url": "http://a.cn"}))
    for year in (1998, 2008, 2018):
        rows.append((text("law") + text(year, 200), {"title": "资产法", "date": f"{year}-01-01"}))
    rows += [("。", {}), ("，", {}), ("", {})]
    Random("order").shuffle(rows)
    for number, (content, fields) in enumerate(rows):
        name = f"{'general' if number % 7 == 0 else 'corpus'}/{number}.txt"
        yield curated(name.partition("/")[0], name, SourceDocument(content, name, **fields))


def write(folder, rows):
    with StepOutput("clean", folder) as output:
        for row in rows:
            output.account.take(row)
            output.keep(row)


@pytest.fixture
def folders(tmp_path):
    """The same documents as one folder and as three shards, of which one is empty."""
    rows = list(documents())
    write(tmp_path / "whole", rows)
    bounds = [0, 7, 7, len(rows)]
    for shard in range(3):
        write(tmp_path / "shards" / str(shard), rows[bounds[shard] : bounds[shard + 1]])
    return tmp_path


def lines_of_stage(tmp_path, settings):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    duplicates = near_duplicates.find(tmp_path / "whole", settings, scratch)
    with StepOutput("deduplicate", tmp_path / "stage") as output:
        near_duplicates.write_kept(tmp_path / "whole", output, duplicates)
    assert set(duplicates.rule) >= {0, 1, 2}
    return [(tmp_path / "stage" / name).read_text("utf-8") for name in NAMES]


def blocks(tmp_path, settings):
    shared = (tmp_path / "shards", tmp_path / "work", settings)
    return [block(*shared, *[tmp_path / "out"] * (block is Kept)) for block in BLOCKS]


NAMES = ("documents.jsonl", "drops.jsonl")


def lines_of_blocks(tmp_path):
    shards = sorted((tmp_path / "out").iterdir())
    return ["".join((shard / name).read_text("utf-8") for shard in shards) for name in NAMES]


@pytest.mark.parametrize("versions", ["all", "newest"])
@pytest.mark.parametrize("world_size", [1, 4])
def test_blocks_decide_as_the_stage_does(folders, versions, world_size):
    settings = DeduplicationSettings(versions=versions, num_hashes=128)
    for block in blocks(folders, settings):
        for rank in reversed(range(world_size)):
            assert block(None, rank, world_size) is None
    expected = lines_of_stage(folders, settings)
    assert lines_of_blocks(folders) == expected
    rules = {json.loads(line)["rule"] for line in expected[1].splitlines()}
    assert ("older version" in rules) == (versions == "newest")


def test_no_group_is_decided_by_two_ranks(folders):
    settings = DeduplicationSettings(num_hashes=128)
    signatures, buckets, verification, _ = blocks(folders, settings)
    signatures()
    buckets()
    decided = []
    for rank in range(3):
        verification(None, rank, 3)
        file = folders / "work" / f"decisions-{rank}"
        decided += np.fromfile(file, deduplication_blocks.DECISION)["document"].tolist()
    assert decided and len(decided) == len(set(decided))


def test_the_local_executor_of_datatrove_runs_them(folders):
    local = pytest.importorskip("datatrove.executor.local")
    settings = DeduplicationSettings(num_hashes=128)
    for number, block in enumerate(blocks(folders, settings)):
        logs = str(folders / "logs" / str(number))
        local.LocalPipelineExecutor([block], tasks=2, workers=1, logging_dir=logs).run()
    assert lines_of_blocks(folders) == lines_of_stage(folders, settings)
