"""The final form of a table's columns, which depends on all its rows: scores, lists of negatives, further columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.store import EXTRA, PLAIN, Survey

if TYPE_CHECKING:
    import pyarrow as pa

_SCALES = (5.0, 10.0, 100.0)


class Shape:
    """What is to be done to each batch.

    Args:
        roles: the columns that were taken, see `RowStore`.
        survey: of all rows.
        notes: gains what the reader should know.

    Raises:
        SpectraError: scores on no known scale.
    """

    def __init__(self, roles: Sequence[str], survey: Survey, notes: list[str]) -> None:
        import pyarrow as pa

        self.roles = [role for role in roles if role != "negative"]
        self.shift, self.scale = _unit(survey.low, survey.high, notes) if "score" in roles else (0.0, 1.0)
        self.negatives = _negative_names(survey.negatives, notes) if "negative" in roles else []
        taken = {*self.roles, *self.negatives}
        self.kinds = _extra_kinds(survey, taken, notes)
        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        types[list] = pa.list_(pa.float64())
        fields = [(role, pa.float64() if role == "score" else pa.string()) for role in self.roles]
        fields += [(name, pa.string()) for name in self.negatives]
        self.schema = pa.schema([*fields, *((name, types[kind]) for name, kind in self.kinds.items())])

    @property
    def columns(self) -> list[str]:
        """The columns that come out."""
        return list(self.schema.names)

    @property
    def changes(self) -> bool:
        """Whether a batch comes out otherwise than by leaving a column out."""
        return bool(self.negatives or self.kinds or (self.shift, self.scale) != (0.0, 1.0))

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch in its final form."""
        import pyarrow as pa

        columns: list[Any] = [batch.column(role) for role in self.roles]
        if "score" in self.roles:
            scores = batch.column("score").to_numpy()
            columns[self.roles.index("score")] = pa.array((scores + self.shift) / self.scale)
        if self.negatives:
            lists = batch.column("negative").to_pylist()
            columns += [[texts[i % len(texts)] for texts in lists] for i in range(len(self.negatives))]
        if self.kinds:
            extras = [{} if packed is None else json.loads(packed) for packed in batch.column(EXTRA).to_pylist()]
            columns += [[_as(kind, extra.get(name)) for extra in extras] for name, kind in self.kinds.items()]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.record_batch(arrays, schema=self.schema)


def _unit(low: float, high: float, notes: list[str]) -> tuple[float, float]:
    """What to add to scores, and then to divide them by, for the scale 0–1; the largest value tells a known scale."""
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= -1 and high <= 1:
        notes.append("scores from -1 to 1 were moved to 0–1: (score + 1) / 2")
        return 1.0, 2.0
    scale = next((scale for scale in _SCALES if high <= scale), None)
    if low < 0 or scale is None:
        raise SpectraError(
            f"the scores run from {low:g} to {high:g}. Rescale them to 0–1 (0–5, 0–10 and 0–100 are known)."
        )
    notes.append(f"scores were divided by {scale:g}: the largest is {high:g}")
    return 0.0, scale


def _negative_names(counts: Counter[int], notes: list[str]) -> list[str]:
    """Columns for lists of negatives: as many as most rows have; a row with fewer repeats its own."""
    k = max(counts, key=lambda size: (counts[size], size))
    fewer, more = sum(n for size, n in counts.items() if size < k), sum(n for size, n in counts.items() if size > k)
    if fewer:
        notes.append(f"{fewer:,} rows have fewer than {k} negatives and repeat them")
    if more:
        notes.append(f"{more:,} rows have more than {k} negatives; the first {k} are used")
    return ["negative", *(f"negative_{i}" for i in range(2, k + 1))]


def _extra_kinds(survey: Survey, taken: Iterable[str], notes: list[str]) -> dict[str, type]:
    """The columns without a role that are kept: lists of numbers, and plain values, of one kind or else as text."""
    kept: dict[str, type] = {}
    left_out = []
    for name, kinds in survey.kinds.items():
        if name in taken or not name or not kinds or not (kinds <= set(PLAIN) or kinds == {list}):
            left_out.append(name)
        elif len(kinds) == 1 and name not in survey.large:
            (kept[name],) = kinds
        else:
            kept[name] = float if kinds == {int, float} and name not in survey.large else str
    if left_out:
        notes.append(f"columns left out (not plain values, or named like a role): {', '.join(left_out)}")
    return kept


def _as(kind: type, value: Any) -> Any:
    if value is None or kind in (int, bool):
        return value
    if kind is float:
        return float(value)
    if kind is list:
        return [float(one) for one in value]
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode("utf-8")
