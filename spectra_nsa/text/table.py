"""Records in, a checked table of roles out. A row is taken whole or refused with a reason; nothing is lost silently."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.columns import MOST_NEGATIVES, Layout, layout
from spectra_nsa.text.quarantine import Quarantine, printable
from spectra_nsa.text.records import Record
from spectra_nsa.text.rows import Problem, TextSet

if TYPE_CHECKING:
    from datasets import Dataset

_PEEK = 100  # rows whose keys make up the columns of a JSON Lines file
_SCALES = (5.0, 10.0, 100.0)


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


def negative_values(value: object, column: str) -> list[str]:
    """The first eight texts of a list of negatives."""
    if not isinstance(value, list):
        return [text_value(value, column)]
    if not value:
        raise BadValue(column, "an empty list")
    return [text_value(item, column) for item in value[:MOST_NEGATIVES]]


def build(
    records: Iterable[Record | Problem],
    *,
    name: str,
    file: str,
    columns: Mapping[str, str] | None,
    limit: int | None,
    quarantine: Quarantine,
    label_names: Mapping[str, list[str]] | None = None,
    notes: tuple[str, ...] = (),
) -> TextSet:
    """Checks records and makes the table.

    Args:
        records: rows and already refused rows, in order.
        name: the set's name.
        file: what is being read, for errors and refused rows.
        columns: the user's role → column; ``None`` guesses.
        limit: how many good rows to take; ``None`` takes all.
        quarantine: where refused rows go.
        label_names: column → the names of its numbered labels.
        notes: notes for the set that are known beforehand.

    Raises:
        SpectraError: no row is usable, or the columns' roles cannot be told.
    """
    stream = iter(records)
    peeked = list(itertools.islice(stream, _PEEK))
    available = list(dict.fromkeys(key for item in peeked if isinstance(item, Record) for key in item.values))
    rows: list[dict[str, Any]] = []
    found: Layout | None = layout(available, columns, source=file) if available else None
    for item in itertools.chain(peeked, stream):
        if limit is not None and len(rows) >= limit:
            break
        if isinstance(item, Problem):
            quarantine.add(item)
            continue
        found = found or layout(list(item.values), columns, source=file)
        try:
            rows.append(_row(item.values, found, label_names or {}))
        except BadValue as bad:
            raw = printable(item.values)
            quarantine.add(Problem(file=item.file, line=item.line, column=bad.column, reason=str(bad), raw=raw))
    if not rows or found is None:
        raise _no_rows(file, quarantine)
    return _text_set(rows, found, name, quarantine, notes)


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


def _row(values: Mapping[str, Any], found: Layout, label_names: Mapping[str, list[str]]) -> dict[str, Any]:
    """One checked row: its roles, `negative` always as a list, then the other plain values."""
    row: dict[str, Any] = {}
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
            negatives += negative_values(value, column)
        else:
            row[role] = text_value(value, column)
    if negatives:
        row["negative"] = negatives[:MOST_NEGATIVES]
    taken = set(found.columns.values())
    extra = {key: value for key, value in values.items() if key not in taken}
    return row | {"": extra}


def _text_set(
    rows: list[dict[str, Any]], found: Layout, name: str, quarantine: Quarantine, known: tuple[str, ...]
) -> TextSet:
    notes = [*known, *found.notes]
    extras = [row.pop("") for row in rows]
    table = {role: [row[role] for row in rows] for role in rows[0] if role != "negative"}
    if "score" in table:
        table["score"] = _unit_scores(table["score"], notes)
    if found.kind == "triplets":
        table |= _spread_negatives([row["negative"] for row in rows], notes)
    table |= _extra_columns(extras, set(table), notes)
    return TextSet(
        name=name, kind=found.kind, dataset=_dataset(table), quarantined=quarantine.count,
        quarantine_file=quarantine.path, problems=tuple(quarantine.first), notes=tuple(notes),
    )  # fmt: skip


def _dataset(table: dict[str, list[Any]]) -> Dataset:
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    return Dataset.from_dict(table)


def _unit_scores(scores: list[float], notes: list[str]) -> list[float]:
    """Scores on the scale 0–1; a known scale is recognised by its largest value."""
    low, high = min(scores), max(scores)
    if low >= 0 and high <= 1:
        return scores
    if low >= -1 and high <= 1:
        notes.append("scores from -1 to 1 were moved to 0–1: (score + 1) / 2")
        return [(score + 1) / 2 for score in scores]
    scale = next((scale for scale in _SCALES if high <= scale), None)
    if low < 0 or scale is None:
        raise SpectraError(
            f"the scores run from {low:g} to {high:g}. Rescale them to 0–1 (0–5, 0–10 and 0–100 are known)."
        )
    notes.append(f"scores were divided by {scale:g}: the largest is {high:g}")
    return [score / scale for score in scores]


def _spread_negatives(lists: list[list[str]], notes: list[str]) -> dict[str, list[str]]:
    """Lists of negatives as columns: as many as most rows have; a row with fewer repeats its own."""
    counts = Counter(len(negatives) for negatives in lists)
    k = max(counts, key=lambda size: (counts[size], size))
    fewer, more = sum(n for size, n in counts.items() if size < k), sum(n for size, n in counts.items() if size > k)
    if fewer:
        notes.append(f"{fewer:,} rows have fewer than {k} negatives and repeat them")
    if more:
        notes.append(f"{more:,} rows have more than {k} negatives; the first {k} are used")
    names = ["negative", *(f"negative_{i}" for i in range(2, k + 1))]
    return {name: [negatives[i % len(negatives)] for negatives in lists] for i, name in enumerate(names)}


def _extra_columns(extras: list[dict[str, Any]], taken: set[str], notes: list[str]) -> dict[str, list[Any]]:
    """The columns without a role, kept where they hold plain values of one kind, else written as text."""
    names = list(dict.fromkeys(key for extra in extras for key in extra))
    kept: dict[str, list[Any]] = {}
    left_out = []
    for name in names:
        values = [extra.get(name) for extra in extras]
        kinds = {type(value) for value in values if value is not None}
        if name in taken or not name or not kinds or not kinds <= {str, int, float, bool}:
            left_out.append(name)
        else:
            kept[name] = list(_uniform(values, kinds))
    if left_out:
        notes.append(f"columns left out (not plain values, or named like a role): {', '.join(left_out)}")
    return kept


def _uniform(values: list[Any], kinds: set[type]) -> Iterator[Any]:
    small = all(-(2**63) <= value < 2**63 for value in values if isinstance(value, int))
    for value in values:
        if value is None or (len(kinds) == 1 and kinds != {str} and small):
            yield value
        elif kinds == {int, float} and small:
            yield float(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield text.encode("utf-8", "replace").decode("utf-8")
