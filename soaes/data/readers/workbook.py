"""Read workbooks (.xlsx, .xls, .ods): each sheet is a table with a header, each row a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from python_calamine import CalamineError, CalamineWorkbook

from soaes.data.curation.document import Rejection, SourceDocument
from soaes.data.readers import records
from soaes.data.readers.base import Unreadable
from soaes.data.readers.zip_files import check_tables


def read(path: Path, name: str) -> Iterator[SourceDocument | Rejection]:
    """Yield the documents of every sheet that is not empty. Formulas are values, never run."""
    check_tables(path)
    try:
        workbook = CalamineWorkbook.from_path(path)
    except CalamineError as error:
        detail = "open it and save it anew as .xlsx or .csv"
        raise Unreadable("broken workbook", f"{str(error)[:100]}; {detail}") from None
    with workbook:
        for sheet in workbook.sheet_names:
            yield from _sheet(workbook, sheet, name)


def _sheet(
    workbook: CalamineWorkbook, sheet: str, name: str
) -> Iterator[SourceDocument | Rejection]:
    try:
        rows = workbook.get_sheet_by_name(sheet).iter_rows()
        header: list[str] | None = None
        for number, row in enumerate(rows, start=1):
            if all(cell == "" for cell in row):
                continue
            if header is None:
                header = [str(cell).strip().lower() for cell in row]
                continue
            record = dict(zip(header, row, strict=True))
            document = records.document(record, f"{name}#{sheet}:{number}")
            yield document
            if isinstance(document, Rejection) and not set(records.COLUMNS["text"]) & set(header):
                return  # the same holds for every row
    except CalamineError as error:
        yield Rejection(f"{name}#{sheet}", "broken workbook", str(error)[:100])
