"""Files of predictions, ours and other projects': JSON lines, JSON arrays, OpenCompass' objects.

Reads each record's answer and reference, under any of the names in common use. A file is read whole
or refused: a score over the records that happen to be readable is another score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soaes.data.curation import parsing
from soaes.data.curation.parsing import ParseError
from soaes.metrics.scoring_recipes import TextPair

Record = dict[str, Any]
MAX_PROBLEMS = 5  # lines that an error shows


@dataclass(frozen=True)
class FieldNames:
    """Names of the two fields of a record that are read."""

    prediction: str
    reference: str


COMMON_FIELDS = {  # who writes them -> names
    "soaes": FieldNames("prediction", "reference"),
    "LLaMA-Factory": FieldNames("predict", "label"),
    "ms-swift": FieldNames("response", "labels"),
    "OpenCompass": FieldNames("prediction", "gold"),
}


@dataclass(frozen=True)
class PredictionFile:
    """What was read of a file."""

    fields: FieldNames
    pairs: list[TextPair]  # of the records that were asked for
    num_records: int  # of the file
    splits: dict[str, int]  # of `pairs`, where records name their split as ours do

    def num_blank(self, side: str) -> int:
        """Count the blank texts of a side, `prediction` or `reference`."""
        return sum(not getattr(pair, side).strip() for pair in self.pairs)


def read_predictions(
    path: Path, fields: FieldNames | None = None, only: Mapping[str, str] | None = None
) -> PredictionFile:
    """Read the pairs of a file.

    Args:
        path: JSON lines, a JSON array of records, or an object of records as OpenCompass writes it.
        fields: The two names; None takes those of `COMMON_FIELDS` that the first record has.
        only: Field -> value of the records that are scored; None scores all.

    Raises:
        ValueError: The file is broken or empty, a record lacks a field or has no text in it, the
            names are not told, or no record has the values of `only`.
    """
    if not path.exists():
        raise ValueError("there is no such file")
    places: list[str] = []
    records: list[Record] = []
    problems: list[str] = []
    for place, value in _records(path):
        if isinstance(value, ParseError):
            detail = f" ({value.detail})" if value.detail else ""
            problems.append(f"{place}: {value.reason}{detail}")
        else:
            places.append(place)
            records.append(value)
    if problems:
        raise ValueError(_listed("cannot be read in full: mend or remove these", problems))
    if not records:
        raise ValueError("no records; each is an object with a prediction and a reference")
    fields = fields or _common_fields(records[0])
    pairs = []
    splits: Counter[str] = Counter()
    for place, record in zip(places, records, strict=True):
        if not _is_selected(record, only or {}):
            continue
        if problem := _problem(record, fields):
            problems.append(f"{place}: {problem}")
        else:
            pairs.append(TextPair(record[fields.prediction], record[fields.reference]))
            splits.update([record["split"]] if isinstance(record.get("split"), str) else [])
    if problems:
        headline = (
            f"{len(problems)} of {len(records)} records cannot be scored: remove them, or name "
            "other fields with --prediction and --reference"
        )
        raise ValueError(_listed(headline, problems))
    if not pairs:
        raise ValueError(_nothing_selected(records, only or {}))
    return PredictionFile(fields, pairs, len(records), dict(splits))


def _records(path: Path) -> Iterator[tuple[str, Record | ParseError]]:
    """Yield where a record stands, and the record."""
    for line, value in parsing.objects(path):
        place = f"line {line}" if line else "the file"
        if isinstance(value, ParseError) or not _holds_records(value):
            yield place, value
            continue
        for key, record in value.items():
            yield f"record {key}", record


def _holds_records(value: Record) -> bool:
    """Tell OpenCompass' `{"0": {record}, "1": {record} ..}` from a record."""
    return bool(value) and all(isinstance(item, dict) for item in value.values())


def _common_fields(record: Record) -> FieldNames:
    known = [names for names in COMMON_FIELDS.values() if _has(record, names)]
    if len(known) == 1:
        return known[0]
    way_out = "name them with --prediction NAME --reference NAME"
    if known:
        pairs = " and ".join(f"{names.prediction}/{names.reference}" for names in known)
        raise ValueError(f"the first record has {pairs}: {way_out}")
    common = ", ".join(
        f"{names.prediction}/{names.reference} ({writer})"
        for writer, names in COMMON_FIELDS.items()
    )
    raise ValueError(
        f"the first record has the fields {_names(record)}, and none of the pairs in common use: "
        f"{common}; {way_out}"
    )


def _has(record: Record, names: FieldNames) -> bool:
    return names.prediction in record and names.reference in record


def _is_selected(record: Record, only: Mapping[str, str]) -> bool:
    return all(str(record.get(field)) == value for field, value in only.items())


def _nothing_selected(records: list[Record], only: Mapping[str, str]) -> str:
    """Say which values the fields of `only` have."""
    wanted = " ".join(f"{field}={value}" for field, value in only.items())
    found = []
    for field in only:
        values = dict.fromkeys(str(record.get(field)) for record in records)
        found.append(f"{field} is {', '.join(list(values)[:MAX_PROBLEMS])}")
    return f"none of {len(records)} records has {wanted}: {'; '.join(found)}"


def _problem(record: Record, fields: FieldNames) -> str | None:
    """Say why a record cannot be scored."""
    for name in (fields.prediction, fields.reference):
        if name not in record:
            return f"no field {name}; it has {_names(record)}"
        if not isinstance(record[name], str):
            kind = "null" if record[name] is None else type(record[name]).__name__
            return f"{name} is {kind}; one text is needed"
    return None


def _names(record: Record) -> str:
    return ", ".join(record) or "(none)"


def _listed(headline: str, problems: list[str]) -> str:
    lines = [headline, *(f"  {problem}" for problem in problems[:MAX_PROBLEMS])]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"  and {len(problems) - MAX_PROBLEMS} more")
    return "\n".join(lines)
