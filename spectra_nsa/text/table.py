"""A checked table of texts from records. Each row is either kept in full or quarantined with a reason."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.classes import check_classes, classes_error
from spectra_nsa.text.columns import MAX_NEGATIVES, Layout, find_layout
from spectra_nsa.text.file_set import HEAD_ROWS
from spectra_nsa.text.final_columns import FinalColumns
from spectra_nsa.text.quarantine import Quarantine, printable
from spectra_nsa.text.readers.records import file_format
from spectra_nsa.text.row_cache import RowCacheEntry
from spectra_nsa.text.row_store import RowStore
from spectra_nsa.text.rows import Problem, Record, TextSet
from spectra_nsa.text.values import BadValue, label_value, passage_values, score_value, text_value

if TYPE_CHECKING:
    from datasets import Dataset


def build_table(
    records: Iterable[Record | Problem],
    *,
    name: str,
    file: str,
    columns: Mapping[str, str] | None,
    limit: int | None,
    negatives: int | None = None,
    quarantine: Quarantine,
    entry: RowCacheEntry,
    label_names: Mapping[str, list[str]] | None = None,
    notes: tuple[str, ...] = (),
    late_notes: Callable[[], tuple[str, ...]] = tuple,
) -> TextSet:
    """Checks records and collects them in a table.

    Args:
        records: rows and rows already quarantined, in order.
        name: the name of the table.
        file: the source being read, for errors and quarantined rows.
        columns: role → column, chosen by the user; ``None`` detects the roles.
        limit: how many rows to keep; ``None`` keeps all.
        negatives: see `find_layout`.
        quarantine: receives the quarantined rows.
        entry: the cache entry that receives the rows if they do not fit in memory.
        label_names: column → the names of its numbered labels.
        notes, late_notes: notes known beforehand, and a function that returns those known once the records are read.

    Raises:
        SpectraError: no row can be used, or the roles of the columns cannot be detected.
    """
    stream = iter(records)
    head = list(itertools.islice(stream, HEAD_ROWS))
    names = label_names or {}
    layout: Layout | None = None
    store: RowStore | None = None
    expanded = 0
    for item in itertools.chain(head, stream):
        if limit is not None and store is not None and store.summary.rows >= limit:
            break
        if isinstance(item, Problem):
            quarantine.add(item)
            continue
        if layout is None:
            layout, more_notes = _checked_layout([*head, item], columns, names, file, negatives)
            notes += more_notes
        store = store or RowStore(_stored_roles(layout), entry.draft_folder)
        rows, extra = _rows_or_quarantine(item, layout, names, negatives, quarantine)
        expanded += len(rows) > 1
        for row in rows[: None if limit is None else limit - store.summary.rows]:
            store.add(row, extra)
    if store is None or layout is None or not store.summary.rows:
        raise _no_rows(file, quarantine)
    dataset, digest, all_notes = _finished(
        store, layout, (*notes, *late_notes(), *_expansion(expanded, store)), entry, file
    )
    return TextSet(
        name=name, kind=layout.kind, dataset=dataset, quarantined=quarantine.count, quarantine_file=quarantine.path,
        problems=tuple(quarantine.first), notes=all_notes, digest=digest, label_names=names,
    )  # fmt: skip


def _checked_layout(
    head: Sequence[Record | Problem],
    columns: Mapping[str, str] | None,
    names: Mapping[str, list[str]],
    file: str,
    negatives: int | None,
) -> tuple[Layout, tuple[str, ...]]:
    """Returns the roles of the columns, and notes on classes without a role."""
    records = [item for item in head if isinstance(item, Record)]
    available = list(dict.fromkeys(key for record in records for key in record.values))
    layout = find_layout(available, columns, source=file, negatives=negatives)
    return layout, check_classes(records, layout, names, chosen=bool(columns), source=file)


def bad_value_problem(record: Record, bad: BadValue) -> Problem:
    """Returns the quarantined row of a record with a bad field."""
    raw = printable(record.values)
    return Problem(file=record.file, line=record.line, column=bad.column, reason=str(bad), raw=raw)


def _stored_roles(layout: Layout) -> list[str]:
    """Returns the roles to store. All negatives share one."""
    return list(dict.fromkeys("negative" if role.startswith("negative") else role for role in layout.columns))


def _finished(
    store: RowStore, layout: Layout, notes: tuple[str, ...], entry: RowCacheEntry, file: str
) -> tuple[Dataset, str | None, tuple[str, ...]]:
    """Returns the rows in their final columns, their SHA-256 (``None`` in memory), and all notes."""
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    all_notes = [*notes, *layout.notes]
    if layout.kind == "scored" and layout.classes is not None and store.summary.whole:
        all_notes += _whole_number_notes(layout.classes, store.summary.high, file)
    final = FinalColumns(store.roles, store.summary, all_notes)
    table = store.finish(final.schema, final.convert if final.changes_batches else None)
    if table is not None:
        return Dataset(table.select(final.columns).combine_chunks()), None, tuple(all_notes)
    facts = {"kind": layout.kind, "rows": store.summary.rows, "columns": final.columns, "notes": all_notes}
    return *entry.commit(facts), tuple(all_notes)


def _expansion(expanded: int, store: RowStore) -> list[str]:
    """Returns a note on the rows whose lists of positives became several rows."""
    total = store.summary.rows
    note = f"{counted(expanded, 'row')} with several positives; each positive became a row, {total:,} in total"
    return [note] if expanded else []


def _whole_number_notes(column: str, high: float, file: str) -> list[str]:
    """Returns a note on a column of whole numbers that became the score by its name, such as `label`.

    Raises:
        SpectraError: the numbers look like classes: they go beyond 1.
    """
    if high >= 2:
        problem = f"the column {column!r} holds only whole numbers up to {high:g}, which may be classes"
        raise classes_error(file, problem, column)
    return [f"the column {column!r} holds only whole numbers and is read as the score: the largest is the best match"]


def _no_rows(file: str, quarantine: Quarantine) -> SpectraError:
    if not quarantine.count:
        path = Path(file)
        if path.is_file() and path.stat().st_size == 0:
            return SpectraError(f"{file} is an empty file.")
        if path.is_file() and file_format(path) in (".csv", ".tsv"):
            return SpectraError(f"{file} has no rows: it holds a header line at most.")
        return SpectraError(
            f"{file}: no rows. Expected one JSON object per line, or a header line followed by CSV records."
        )
    first = quarantine.first[0]
    column = f", column {first.column!r}" if first.column else ""
    return SpectraError(
        f"{first.file}: none of its {counted(quarantine.count, 'row')} can be used. The first, "
        f"line {first.line}{column}: {first.reason}. Fix the rows, or "
        f"choose other columns with --columns ROLE=COLUMN (data.columns)."
    )


def class_name(value: object, column: str, names: Sequence[str] | None) -> str:
    """Returns the name of a label. In a column with numbered names, -1 stands for no label, as in Hub datasets.

    Raises:
        BadValue: it is no label.
    """
    number = value if names is not None and type(value) is int else None
    if names is not None and number == -1:
        raise BadValue(column, "no label (-1)")
    if names is not None and number is not None and 0 <= number < len(names):
        return names[number]
    return label_value(value, column)


def _rows_or_quarantine(
    record: Record, layout: Layout, names: Mapping[str, list[str]], most: int | None, quarantine: Quarantine
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns `_checked_rows` of a record; no rows if it is quarantined."""
    try:
        return _checked_rows(record.values, layout, names, MAX_NEGATIVES if most is None else most)
    except BadValue as bad:
        quarantine.add(bad_value_problem(record, bad))
        return [], {}


def _checked_rows(
    values: Mapping[str, Any], layout: Layout, label_names: Mapping[str, list[str]], most: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Checks a record.

    Returns:
        one row of roles for each positive, with `negative` always a list; and the values without a role.

    Raises:
        BadValue: a field with a role cannot be used.
    """
    row: dict[str, Any] = {}
    positives: list[str] = []
    negatives: list[str] = []
    for role, column in layout.columns.items():
        value = values.get(column)
        if role == "score":
            row[role] = score_value(value, column)
        elif role == "label":
            row[role] = class_name(value, column, label_names.get(column))
        elif role.startswith("negative"):
            negatives += passage_values(value, column, most)
        elif role == "positive":
            positives = passage_values(value, column)
        else:
            row[role] = text_value(value, column)
    if negatives:
        row["negative"] = negatives[:most]
    rows = [row | {"positive": positive} for positive in positives] or [row]
    used = {*layout.columns.values(), *layout.unused}
    return rows, {key: value for key, value in values.items() if key not in used}
