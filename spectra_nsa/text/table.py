"""Records in, a checked table of roles out. A row is taken whole or refused with a reason; nothing is lost silently."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.columns import MOST_NEGATIVES, Layout, layout
from spectra_nsa.text.quarantine import Quarantine, printable
from spectra_nsa.text.readers.records import Record
from spectra_nsa.text.rows import Problem, TextSet
from spectra_nsa.text.several import PEEK
from spectra_nsa.text.shape import Shape
from spectra_nsa.text.shelf import Shelf
from spectra_nsa.text.store import RowStore

if TYPE_CHECKING:
    from datasets import Dataset


class BadValue(Exception):
    """A field that cannot be used: its column and why."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def text_value(value: object, column: str) -> str:
    """The value as a text. Raises `BadValue` for what is missing, blank, not a string or not encodable."""
    if value is None:
        raise BadValue(column, "missing")
    if isinstance(value, bytes):
        raise BadValue(column, "not UTF-8")
    if not isinstance(value, str):
        raise BadValue(column, f"not text but {'a list' if isinstance(value, list) else type(value).__name__}")
    if not value.strip():
        raise BadValue(column, "empty")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadValue(column, "holds half a character (a lone surrogate)") from None
    return value


def document_text(values: Mapping[str, object]) -> str:
    """Title and text, joined by a space where both are there. Raises `BadValue` for what is not text."""
    parts = [(name, values.get(name)) for name in ("title", "text")]
    return " ".join(text_value(part, name) for name, part in parts if part is not None and str(part).strip())


def score_value(value: object, column: str) -> float:
    """The value as a finite number; a string of digits counts."""
    if value is None or value == "":
        raise BadValue(column, "missing")
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(column, "not a number")
    return number


def label_value(value: object, column: str) -> str:
    """The value as a label's name; numbers become their digits."""
    return str(value) if isinstance(value, (bool, int, float)) else text_value(value, column)


def passage_value(value: object, column: str) -> str:
    """A text, or the title and text of an object that has them."""
    if not isinstance(value, dict):
        return text_value(value, column)
    try:
        return text_value(document_text(value), "text")
    except BadValue as bad:
        raise BadValue(column, f"a passage whose {bad.column!r} is {bad}") from None


def passage_values(value: object, column: str, most: int | None = None) -> list[str]:
    """The first `most` passages (``None``: all) of a list, or the one that stands alone."""
    if not isinstance(value, list):
        return [passage_value(value, column)]
    if not value:
        raise BadValue(column, "an empty list")
    return [passage_value(item, column) for item in value[:most]]


def build(
    records: Iterable[Record | Problem],
    *,
    name: str,
    file: str,
    columns: Mapping[str, str] | None,
    limit: int | None,
    quarantine: Quarantine,
    shelf: Shelf,
    label_names: Mapping[str, list[str]] | None = None,
    notes: tuple[str, ...] = (),
) -> TextSet:
    """Checks records and makes the table.

    Args:
        records: rows and already refused rows, in order.
        name: the set's name.
        file: what is being read, for errors and refused rows.
        columns: the user's role → column; ``None`` guesses.
        limit: how many rows to take; ``None`` takes all.
        quarantine: where refused rows go.
        shelf: where the rows go that are too many for the memory.
        label_names: column → the names of its numbered labels.
        notes: notes for the set that are known beforehand.

    Raises:
        SpectraError: no row is usable, or the columns' roles cannot be told.
    """
    stream = iter(records)
    peeked = list(itertools.islice(stream, PEEK))
    available = list(dict.fromkeys(key for item in peeked if isinstance(item, Record) for key in item.values))
    found: Layout | None = layout(available, columns, source=file) if available else None
    store: RowStore | None = None
    several = 0
    for item in itertools.chain(peeked, stream):
        if limit is not None and store is not None and store.survey.rows >= limit:
            break
        if isinstance(item, Problem):
            quarantine.add(item)
            continue
        found = found or layout(list(item.values), columns, source=file)
        store = store or RowStore(_roles(found), shelf.folder)
        try:
            rows, extra = _rows(item.values, found, label_names or {})
        except BadValue as bad:
            raw = printable(item.values)
            quarantine.add(Problem(file=item.file, line=item.line, column=bad.column, reason=str(bad), raw=raw))
            continue
        several += len(rows) > 1
        for row in rows[: None if limit is None else limit - store.survey.rows]:
            store.add(row, extra)
    if store is None or found is None or not store.survey.rows:
        raise _no_rows(file, quarantine)
    if several:
        notes += (f"{several:,} rows have several positives and became a row for each: {store.survey.rows:,} in all",)
    dataset, digest, noted = _table(store, found, notes, shelf)
    return TextSet(
        name=name, kind=found.kind, dataset=dataset, quarantined=quarantine.count, quarantine_file=quarantine.path,
        problems=tuple(quarantine.first), notes=noted, digest=digest,
    )  # fmt: skip


def _roles(found: Layout) -> list[str]:
    """The columns to take: all negatives are one."""
    return list(dict.fromkeys("negative" if role.startswith("negative") else role for role in found.columns))


def _table(
    store: RowStore, found: Layout, known: tuple[str, ...], shelf: Shelf
) -> tuple[Dataset, str | None, tuple[str, ...]]:
    """The rows in their final form, their SHA-256 where they are on disk, and the notes."""
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    notes = [*known, *found.notes]
    shape = Shape(store.roles, store.survey, notes)
    table = store.finish(shape.schema, shape.apply if shape.changes else None)
    if table is not None:
        return Dataset(table.select(shape.columns).combine_chunks()), None, tuple(notes)
    facts = {"kind": found.kind, "rows": store.survey.rows, "columns": shape.columns, "notes": notes}
    return *shelf.keep(facts), tuple(notes)


def _no_rows(file: str, quarantine: Quarantine) -> SpectraError:
    if not quarantine.count:
        return SpectraError(
            f"{file}: no rows. Give a file with a JSON object (or, below the header, a CSV record) a line."
        )
    first = quarantine.first[0]
    column = f", column {first.column!r}" if first.column else ""
    saved = f" All of them are in {quarantine.path}." if quarantine.path else ""
    return SpectraError(
        f"{first.file}: none of the {quarantine.count:,} rows can be used. The first, line {first.line}{column}: "
        f"{first.reason}. Mend the rows, or name other columns with --columns ROLE=COLUMN (data.columns).{saved}"
    )


def _rows(
    values: Mapping[str, Any], found: Layout, label_names: Mapping[str, list[str]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A checked record as a row for each positive: its roles, `negative` always as a list; and what has no role."""
    row: dict[str, Any] = {}
    positives: list[str] = []
    negatives: list[str] = []
    for role, column in found.columns.items():
        value = values.get(column)
        if role == "score":
            row[role] = score_value(value, column)
        elif role == "label":
            names = label_names.get(column, [])
            named = isinstance(value, int) and 0 <= value < len(names)
            row[role] = names[int(value or 0)] if named else label_value(value, column)
        elif role.startswith("negative"):
            negatives += passage_values(value, column, MOST_NEGATIVES)
        elif role == "positive":
            positives = passage_values(value, column)
        else:
            row[role] = text_value(value, column)
    if negatives:
        row["negative"] = negatives[:MOST_NEGATIVES]
    rows = [row | {"positive": positive} for positive in positives] or [row]
    taken = found.columns.values()
    return rows, {key: value for key, value in values.items() if key not in taken}
