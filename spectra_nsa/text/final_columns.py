"""The final columns of a table, which depend on all its rows: scores, lists of negatives, columns without a role."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import is_utf8
from spectra_nsa.text.row_store import EXTRA, PLAIN_TYPES, TableSummary

if TYPE_CHECKING:
    import pyarrow as pa

_SCALES = (1.0, 5.0, 10.0, 100.0)
_TOLERANCE = 1e-3  # of the scale; the rounding errors of cosines in float16 are smaller


class FinalColumns:
    """The conversion of stored batches to the final columns.

    Args:
        roles: the stored roles, see `RowStore`.
        summary: the summary of all rows.
        notes: a list that receives what the user should know.

    Raises:
        SpectraError: the scores are on no known scale.
    """

    def __init__(self, roles: Sequence[str], summary: TableSummary, notes: list[str]) -> None:
        import pyarrow as pa

        self.roles = [role for role in roles if role != "negative"]
        self.shift, self.scale = _score_scaling(summary.low, summary.high, notes) if "score" in roles else (0.0, 1.0)
        self.rescales = (self.shift, self.scale) != (0.0, 1.0) or summary.low < 0 or summary.high > 1
        self.negatives = _negative_names(summary.negatives, notes) if "negative" in roles else []
        self.extra_types = _extra_types(summary, {*self.roles, *self.negatives}, notes)
        types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        types[list] = pa.list_(pa.float64())
        fields = [(role, pa.float64() if role == "score" else pa.string()) for role in self.roles]
        fields += [(name, pa.string()) for name in self.negatives]
        self.schema = pa.schema([*fields, *((name, types[kind]) for name, kind in self.extra_types.items())])

    @property
    def columns(self) -> list[str]:
        """The names of the final columns."""
        return list(self.schema.names)

    @property
    def changes_batches(self) -> bool:
        """True unless selecting columns is enough to convert a batch."""
        return bool(self.negatives or self.extra_types or self.rescales)

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Returns a batch with the final columns."""
        import pyarrow as pa

        columns: list[Any] = [batch.column(role) for role in self.roles]
        if "score" in self.roles:
            scores = batch.column("score").to_numpy()
            columns[self.roles.index("score")] = pa.array(((scores + self.shift) / self.scale).clip(0.0, 1.0))
        if self.negatives:
            lists = batch.column("negative").to_pylist()
            columns += [[texts[i % len(texts)] for texts in lists] for i in range(len(self.negatives))]
        if self.extra_types:
            extras = [{} if text is None else json.loads(text) for text in batch.column(EXTRA).to_pylist()]
            columns += [
                [_converted(extra.get(name), kind) for extra in extras] for name, kind in self.extra_types.items()
            ]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, self.schema, strict=True)
        ]
        return pa.record_batch(arrays, schema=self.schema)


def _score_scaling(low: float, high: float, notes: list[str]) -> tuple[float, float]:
    """Returns what to add to the scores, and what to divide the sum by, so that they run from 0 to 1.

    One scale holds for all scores: the smallest that reaches the largest score. Scores beyond an end by a rounding
    error are clipped to it.
    """
    scale = next((scale for scale in _SCALES if high <= scale * (1 + _TOLERANCE)), None)
    signed = low < -_TOLERANCE * (scale or 1.0)
    if scale is None or (signed and (scale > 1 or low < -1 - _TOLERANCE)):
        raise SpectraError(
            f"the scores range from {low:g} to {high:g}, which is no known scale. Rescale them to 0–1 "
            "(-1–1, 0–5, 0–10 and 0–100 are rescaled automatically)."
        )
    if high > scale or (low < -1 if signed else low < 0):
        notes.append(f"scores just beyond the scale were clipped to it ({low:.7g} to {high:.7g})")
    if signed:
        notes.append("scores from -1 to 1 were rescaled to 0–1: (score + 1) / 2")
        return 1.0, 2.0
    if scale > 1:
        notes.append(f"scores were divided by {scale:g} (the largest is {high:g})")
    return 0.0, scale


def _negative_names(counts: Counter[int], notes: list[str]) -> list[str]:
    """Returns the columns for lists of negatives, as many as the most common list has. Shorter lists are repeated."""
    k = max(counts, key=lambda size: (counts[size], size))
    fewer, more = sum(n for size, n in counts.items() if size < k), sum(n for size, n in counts.items() if size > k)
    if fewer:
        notes.append(f"{counted(fewer, 'row')} with fewer than {counted(k, 'negative')}, repeated to make {k}")
    if more:
        notes.append(f"{counted(more, 'row')} with more than {counted(k, 'negative')}; the first {k} used")
    return ["negative", *(f"negative_{i}" for i in range(2, k + 1))]


def _extra_types(summary: TableSummary, reserved: Container[str], notes: list[str]) -> dict[str, type]:
    """Returns the type of each column without a role that is kept: plain values and lists of numbers.

    Plain values of different types become text.
    """
    kept: dict[str, type] = {}
    dropped = []
    for name, types in summary.extra_types.items():
        if not name:
            notes.append("columns without a name were dropped")
        elif "\0" in name or not is_utf8(name):  # no table can have it
            dropped.append(ascii(name))
        elif _is_reserved(name, reserved) or not types or not (types <= set(PLAIN_TYPES) or types == {list}):
            dropped.append(name)
        elif len(types) == 1 and name not in summary.large:
            (kept[name],) = types
        else:
            kept[name] = float if types == {int, float} and name not in summary.large else str
    if dropped:
        notes.append(f"columns dropped (not plain values, or named like a role): {', '.join(dropped)}")
    return kept


def _is_reserved(name: str, roles: Container[str]) -> bool:
    """Returns whether a column would be taken for one with a role: in triplets any name of a further negative is."""
    return name in roles or ("negative" in roles and re.fullmatch(r"negative_\d+", name) is not None)


def _converted(value: Any, kind: type) -> Any:
    if value is None or kind in (int, bool):
        return value
    if kind is float:
        return float(value)
    if kind is list:
        return [float(number) for number in value]
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode("utf-8")
