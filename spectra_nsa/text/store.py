"""Checked rows as Arrow batches: in memory while they are few, in a file from then on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.cache import cannot_keep
from spectra_nsa.core.errors import SpectraError, missing_extra

if TYPE_CHECKING:
    import pyarrow as pa

IN_MEMORY = 32_000_000  # bytes of a table that is not worth a file
FILE = "rows.arrow"
EXTRA = ""  # the column of what has no role, as JSON; no role has this name
PLAIN = (str, int, float, bool)
_ROWS, _CHARACTERS = 1_000, 4_000_000  # of a batch
_INT64 = 2**63


@dataclass
class Survey:
    """What the columns hold, as far as their final form depends on all rows.

    Attributes:
        rows: how many.
        low, high: the scores' range.
        negatives: number of negatives → rows that have so many.
        kinds: column without a role → the types of its values, in the order of appearance.
        large: columns with an integer beyond 64 bits.
    """

    rows: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    negatives: Counter[int] = field(default_factory=Counter)
    kinds: dict[str, set[type]] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Looks at one row."""
        self.rows += 1
        if (score := row.get("score")) is not None:
            self.low, self.high = min(self.low, score), max(self.high, score)
        if (negatives := row.get("negative")) is not None:
            self.negatives[len(negatives)] += 1
        for name, value in extra.items():
            kinds = self.kinds.setdefault(name, set())
            if value is not None:
                kinds.add(list if is_numbers(value) else object if isinstance(value, list) else type(value))
                if isinstance(value, int) and not -_INT64 <= value < _INT64:
                    self.large.add(name)


def is_numbers(value: object) -> bool:
    """Whether a value is a list of finite numbers, such as a teacher's scores."""
    return isinstance(value, list) and all(type(one) in (int, float) and abs(one) < _INT64 for one in value)


class RowStore:
    """Takes rows one by one and holds at most one batch of them as Python objects.

    Args:
        roles: the columns: `negative` holds lists of texts, `score` numbers, the others texts.
        folder: called once the rows outgrow `IN_MEMORY`: gives the folder of the file.
    """

    def __init__(self, roles: Iterable[str], folder: Callable[[], Path]) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise missing_extra("pyarrow", "data") from error
        kinds = {"score": pa.float64(), "negative": pa.list_(pa.string())}
        self.roles = list(roles)
        fields = [(role, kinds.get(role, pa.string())) for role in self.roles]
        self.schema = pa.schema([*fields, (EXTRA, pa.string())])
        self.survey = Survey()
        self.file: Path | None = None  # where the rows are, once they are not in memory
        self._folder = folder
        self._writer: ArrowFile | None = None
        self._batches: list[pa.RecordBatch] = []
        self._size = self._characters = 0
        self._rows: list[Mapping[str, Any]] = []
        self._extras: list[str | None] = []

    def add(self, row: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Takes a row: its roles, and what else the source had."""
        self.survey.add(row, extra)
        plain = {name: value for name, value in extra.items() if type(value) in PLAIN or is_numbers(value)}
        packed = json.dumps(plain) if plain else None
        self._rows.append(row)
        self._extras.append(packed)
        self._characters += len(packed or "") + sum(
            len(value) if isinstance(value, str) else sum(map(len, value)) if isinstance(value, list) else 8
            for value in row.values()
        )
        if len(self._rows) >= _ROWS or self._characters >= _CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        columns = [pa.array([row[role] for row in self._rows], self.schema.field(role).type) for role in self.roles]
        batch = pa.record_batch([*columns, pa.array(self._extras, pa.string())], schema=self.schema)
        self._rows, self._extras, self._characters = [], [], 0
        if self._writer is None and self._size + batch.nbytes <= IN_MEMORY:
            self._size += batch.nbytes
            self._batches.append(batch)
            return
        if self._writer is None:
            self.file = self._folder() / FILE
            self._writer = ArrowFile(self.file, self.schema)
            for held in self._batches:
                self._writer.write(held)
            self._batches = []
        self._writer.write(batch)

    def finish(self, schema: pa.Schema, change: Callable[[pa.RecordBatch], pa.RecordBatch] | None) -> pa.Table | None:
        """Brings all batches into their final form.

        Args:
            schema: of the final form.
            change: makes it of a batch as it was taken; ``None`` keeps the batches as they are, with `EXTRA`.

        Returns:
            the table; ``None`` where it is in `file`.
        """
        import pyarrow as pa

        self._flush()
        if self._writer is None:
            batches = self._batches if change is None else list(map(change, self._batches))
            return pa.Table.from_batches(batches, self.schema if change is None else schema)
        self._writer.close()
        if change is not None:
            assert self.file is not None
            rough = self.file.rename(self.file.with_name("rough.arrow"))
            writer = ArrowFile(self.file, schema)
            for batch in _read(rough):
                writer.write(change(batch))
            writer.close()
            rough.unlink()
        return None


class ArrowFile:
    """An Arrow stream in a file; a disk that is full is told with its remedy."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        try:
            self._stream.write_batch(batch)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        try:
            self._stream.close()
            self._sink.close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SpectraError:
        return cannot_keep(self.path.parent, error)


def _read(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream
