"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.rows import Record

_BATCH_ROWS = 1_000


def read_parquet(path: Path) -> Iterator[Record]:
    """Yields the rows of a Parquet file, numbered from 1.

    Raises:
        SpectraError: the file cannot be read or is damaged, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                columns = {name: _values(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for row in range(batch.num_rows):
                    number += 1
                    yield Record(number, {name: values[row] for name, values in columns.items()}, str(path))
    except (pa.ArrowException, OSError) as error:
        raise SpectraError(
            f"{path}: not a valid Parquet file after row {number:,} ({error}). Download or export it again."
        ) from error


def _values(column: Any) -> list[Any]:
    """Returns the values of a column. Strings that are not UTF-8 stay bytes, which the checks refuse row by row."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        import pyarrow as pa

        return list(column.cast(pa.binary()).to_pylist()) if pa.types.is_string(column.type) else [None] * len(column)
