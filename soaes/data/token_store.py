"""Packed token rows on disk, memory-mapped when read.

Row i of every array is row i for every reader, and for a teacher store over the same rows. This
module knows arrays, and which tokenizer their ids are of; neither text nor the packing algorithm.

# R rows of T tokens, P pieces of documents.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from soaes.pipeline.store import write_text

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")

DIGEST = "tokenizer_digest.txt"  # of the tokenizer whose ids the rows hold

IGNORE = -100  # the label of a token that bears no loss; torch's cross entropy skips it


class Rows(NamedTuple):
    """Packed rows.

    Attributes:
        ids_RT: token ids.
        labels_RT: the token's own id where it bears loss, else IGNORE; not shifted.
        positions_RT: position of each token in its document; a zero starts a document.
    """

    ids_RT: np.ndarray
    labels_RT: np.ndarray
    positions_RT: np.ndarray

    @property
    def loss_tokens_R(self) -> np.ndarray:
        """Number of loss tokens of each row, see `loss_mask`."""
        return loss_mask(self.labels_RT, self.positions_RT).sum(axis=1)


def loss_mask(labels: Array, positions: Array) -> Array:
    """Mark the tokens that a model is trained to predict; this is the only definition of them.

    A token bears loss where it has a label and is not the first of its document: the first token
    would be predicted from nothing.

    Args:
        labels: token ids, or IGNORE where a token bears no loss; not shifted.
        positions: position of each token within its document, of the shape of `labels`.

    Returns:
        Booleans of the same shape. The hidden state that predicts token t stands at t - 1.
    """
    return (labels != IGNORE) & (positions > 0)


def write(folder: Path, rows: Rows, tokenizer: str) -> None:
    """Write each array of `rows` to a .npy file of its name.

    Args:
        folder: where to.
        rows: the rows.
        tokenizer: digest of the tokenizer whose ids they hold, see `chat.tokenizer_digest`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in rows._asdict().items():
        np.save(folder / f"{name}.npy", array)
    write_text(folder / DIGEST, tokenizer)


def load(folder: Path, tokenizer: str) -> Rows:
    """Open the rows of a folder as memory maps.

    Args:
        folder: where they were written to.
        tokenizer: digest of the reader's tokenizer.

    Raises:
        ValueError: if the folder holds no rows, or ids of another tokenizer.
    """
    if not (folder / DIGEST).exists():
        raise ValueError(f"{folder} holds no token rows; build them with goal=rows.<phase>")
    rows_tokenizer = (folder / DIGEST).read_text("utf-8")
    if rows_tokenizer != tokenizer:
        raise ValueError(
            f"{folder} holds ids of tokenizer {rows_tokenizer}, and the model that reads them has "
            f"{tokenizer}: the same ids would be other words; build the rows with the model's own "
            "tokenizer, as in 'tokenizer=${target.origin.base}'"
        )
    return Rows(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in Rows._fields))


def fill(
    documents: list[np.ndarray],
    loss: list[np.ndarray],
    pieces_P4: np.ndarray,
    rows: int,
    context: int,
    pad: int,
) -> Rows:
    """Lay out pieces of documents in rows.

    Positions restart at 0 in each piece, also where it continues a document:

    # positions [0 1 2 0 1]: a zero starts a document, so the fourth token must not see the first
    # three.

    Padding is a run of one-token documents (position 0, no loss), so no token attends to it.

    Args:
        documents: token ids of each document.
        loss: for each document, which of its tokens bear loss.
        pieces_P4: (row, document, start, stop) of each piece, sorted by row.
        rows: number of rows.
        context: tokens of a row.
        pad: token id of the padding.
    """
    shape = (rows, context)
    ids_RT = np.full(shape, pad, np.int32)
    labels_RT = np.full(shape, IGNORE, np.int32)
    positions_RT = np.zeros(shape, np.int32)
    for row, pieces in groupby(pieces_P4.tolist(), itemgetter(0)):
        column = 0
        for _, document, start, stop in pieces:
            tokens = documents[document][start:stop]
            bears_loss = loss[document][start:stop]
            end = column + stop - start
            ids_RT[row, column:end] = tokens
            labels_RT[row, column:end] = np.where(bears_loss, tokens, IGNORE)
            positions_RT[row, column:end] = np.arange(stop - start)
            column = end
    return Rows(ids_RT, labels_RT, positions_RT)
