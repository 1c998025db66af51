"""Read .parquet: a row is a document; read by batches of the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
from pyarrow import parquet

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import records
from soaes.data.readers.base import Unreadable

BATCH_ROWS = 64


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the documents of a table."""
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as table:
            yield from _rows(table, name)
    except pyarrow.ArrowException as error:
        raise Unreadable("broken parquet file", str(error)[:100]) from None


def _rows(table: parquet.ParquetFile, name: str) -> Iterator[SourceDocument | Rejection]:
    names = table.schema_arrow.names
    known = {column for columns in records.COLUMNS.values() for column in columns}
    read_columns = [column for column in names if column.strip().lower() in known]
    if not {column.strip().lower() for column in read_columns} & set(records.COLUMNS["text"]):
        raise Unreadable(records.NO_TEXT, f"columns: {', '.join(names)[:80]}")
    number = 0
    for batch in table.iter_batches(BATCH_ROWS, columns=read_columns, use_threads=False):
        for record in batch.to_pylist():
            number += 1
            yield records.document(record, f"{name}:{number}")
