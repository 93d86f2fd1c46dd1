"""Checked rows as Arrow batches: in memory while they are small, then in a file."""

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

IN_MEMORY = 32_000_000  # bytes; a larger table goes to a file
FILE = "rows.arrow"
EXTRA = ""  # the column that holds, as JSON, the values without a role; no role has this name
PLAIN_TYPES = (str, int, float, bool)
_BATCH_ROWS, _BATCH_CHARACTERS = 1_000, 4_000_000
_INT64 = 2**63


@dataclass
class TableSummary:
    """The facts about all rows on which the final columns depend.

    Attributes:
        rows: the number of rows.
        low, high: the range of the scores.
        whole: whether all scores are whole numbers.
        negatives: number of negatives → number of rows with that many.
        extra_types: column without a role → the types of its values.
        large: columns with an integer that does not fit in 64 bits.
    """

    rows: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    whole: bool = True
    negatives: Counter[int] = field(default_factory=Counter)
    extra_types: dict[str, set[type]] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Includes one row."""
        self.rows += 1
        if (score := row.get("score")) is not None:
            self.low, self.high = min(self.low, score), max(self.high, score)
            self.whole = self.whole and float(score).is_integer()
        if (negatives := row.get("negative")) is not None:
            self.negatives[len(negatives)] += 1
        for name, value in extra.items():
            types = self.extra_types.setdefault(name, set())
            if value is not None:
                types.add(list if is_numbers(value) else object if isinstance(value, list) else type(value))
                if isinstance(value, int) and not -_INT64 <= value < _INT64:
                    self.large.add(name)


def is_numbers(value: object) -> bool:
    """Returns whether a value is a list of finite numbers, such as the scores of a teacher."""
    return isinstance(value, list) and all(type(item) in (int, float) and abs(item) < _INT64 for item in value)


class RowStore:
    """Collects rows. At most one batch of them exists as Python objects.

    Args:
        roles: the columns. `negative` holds lists of texts, `score` numbers, the others texts.
        folder: returns the folder of the file; called if the rows exceed `IN_MEMORY`.
    """

    def __init__(self, roles: Iterable[str], folder: Callable[[], Path]) -> None:
        try:
            import pyarrow as pa
        except ImportError as error:
            raise missing_extra("pyarrow", "data") from error
        types = {"score": pa.float64(), "negative": pa.list_(pa.string())}
        self.roles = list(roles)
        fields = [(role, types.get(role, pa.string())) for role in self.roles]
        self.schema = pa.schema([*fields, (EXTRA, pa.string())])
        self.summary = TableSummary()
        self.file: Path | None = None  # set once the rows no longer fit in memory
        self._folder = folder
        self._writer: ArrowFile | None = None
        self._batches: list[pa.RecordBatch] = []
        self._size = self._characters = 0
        self._rows: list[Mapping[str, Any]] = []
        self._extras: list[str | None] = []

    def add(self, row: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Adds a row.

        Args:
            row: role → checked value.
            extra: the values without a role.
        """
        self.summary.add(row, extra)
        plain = {name: value for name, value in extra.items() if type(value) in PLAIN_TYPES or is_numbers(value)}
        encoded = json.dumps(plain) if plain else None
        self._rows.append(row)
        self._extras.append(encoded)
        self._characters += len(encoded or "") + sum(
            len(value) if isinstance(value, str) else sum(map(len, value)) if isinstance(value, list) else 8
            for value in row.values()
        )
        if len(self._rows) >= _BATCH_ROWS or self._characters >= _BATCH_CHARACTERS:
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
            for earlier in self._batches:
                self._writer.write(earlier)
            self._batches = []
        self._writer.write(batch)

    def finish(self, schema: pa.Schema, convert: Callable[[pa.RecordBatch], pa.RecordBatch] | None) -> pa.Table | None:
        """Converts all batches to the final columns.

        Args:
            schema: the schema of the final columns.
            convert: converts one batch; ``None`` keeps the batches as they are, including `EXTRA`.

        Returns:
            the table; ``None`` if it is in `file`.
        """
        import pyarrow as pa

        self._flush()
        if self._writer is None:
            batches = self._batches if convert is None else list(map(convert, self._batches))
            return pa.Table.from_batches(batches, self.schema if convert is None else schema)
        self._writer.close()
        if convert is not None:
            assert self.file is not None
            unconverted = self.file.rename(self.file.with_name("unconverted.arrow"))
            writer = ArrowFile(self.file, schema)
            for batch in _read_batches(unconverted):
                writer.write(convert(batch))
            writer.close()
            unconverted.unlink()
        return None


class ArrowFile:
    """An Arrow stream in a file. A full disk raises an error that names the remedy."""

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


def _read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        yield from stream
