"""Teacher stores of noise, in small shards, for the tests of what reads and of what writes them."""

import numpy as np
import pytest
import torch

from soaes.data import chat, shards, teacher_store, token_store
from soaes.model import soft_targets as formats
from soaes.pipeline.recipe import Recipe
from soaes.pipeline.store import Store, write_manifest
from tests.helpers.toys import save_pair

VOCABULARY = 20
TOKENS_R = np.array([3, 0, 5, 1, 4, 2, 0, 6, 3, 3, 1, 5])  # loss tokens of each row
FACTS = {"teacher": "sft-1", "tokenizer": "words", "rows": "pack-1", "seed": 0}
FORMATS = [
    formats.Hidden(),
    formats.Full("float16"),
    formats.TopK(4, (1.0, 2.0)),
    formats.Sampled(8, (1.0, 2.0)),
]
by_format = pytest.mark.parametrize(
    "soft_targets", FORMATS, ids=lambda soft_targets: soft_targets.name
)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 200)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    teacher_and_rows(root)
    return root


def encoded_row(soft_targets, row, teacher="sft-1"):
    """(fields, head_VD) of one row of a teacher that is all noise."""
    head_VD = torch.randn(VOCABULARY, 6, generator=torch.Generator().manual_seed(len(teacher)))
    hidden_ND = torch.randn(
        TOKENS_R[row], 6, generator=torch.Generator().manual_seed(100 * len(teacher) + row)
    )
    return soft_targets.encode(hidden_ND, head_VD, torch.Generator().manual_seed(row)), head_VD


def write(out, soft_targets=FORMATS[0], asked=None, die_at=None, **changed):
    """Write a store in small shards, as a stage does.

    asked: receives every row that is computed. die_at: the row at which the writer dies.
    """

    def fields_of(rows):
        for row in rows:
            if row == die_at:
                raise KeyboardInterrupt
            if asked is not None:
                asked.append(row)
            yield encoded_row(soft_targets, row, facts["teacher"])[0]

    facts = FACTS | changed
    out.mkdir(exist_ok=True)
    return teacher_store.write(
        out,
        soft_targets,
        encoded_row(soft_targets, 0, facts["teacher"])[1],
        TOKENS_R,
        fields_of,
        lambda: [],
        **facts,
    )


def build(root, asked=None):
    """The same as a worker builds it, with its manifest; its folder."""
    store, recipe = Store(root), Recipe("soaes.stages.teach.teach", {})
    with store.build(recipe) as out:
        if out is not None:
            write(out, asked=asked)
            write_manifest(out)
    return store.folder(recipe.name)


def load(out):
    return teacher_store.load(out, FACTS["rows"], FACTS["tokenizer"])


def read(out):
    """Everything that a store holds."""
    store = load(out)
    return store.rows(np.arange(len(TOKENS_R))), store.head_VD


def contents(out):
    return {path.name: path.read_bytes() for path in (out / "soft_targets").iterdir()}


def flipped(path, bit):
    with open(path, "r+b") as handle:
        handle.seek(bit // 8)
        byte = handle.read(1)[0] ^ 1 << bit % 8
        handle.seek(bit // 8)
        handle.write(bytes([byte]))


def teacher_and_rows(root):
    """Folders: a target of 64 words, and rows of several documents of which a part bears loss."""
    save_pair(root)
    rng = np.random.default_rng(0)
    ids_RT = rng.integers(4, 64, size=(20, 24)).astype(np.int32)
    labels_RT = np.where(rng.random(ids_RT.shape) < 0.4, ids_RT, token_store.IGNORE)
    positions_RT = np.array(
        [
            np.concatenate([np.arange(length) for length in (cut, 20 - cut, 4)])
            for cut in rng.integers(1, 20, size=20)
        ]
    )
    packed = token_store.Rows(ids_RT, labels_RT, positions_RT)
    token_store.write(root / "rows" / "train", packed, chat.tokenizer_digest(root / "target"))
