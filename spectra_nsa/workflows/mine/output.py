"""The files that mining writes: rows with their negatives, rows with too few, and their provenance."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import UsageError, missing_extra, unknown_name
from spectra_nsa.core.files import atomic_write, read_json_object, write_json

if TYPE_CHECKING:
    from spectra_nsa.workflows.mine.pool import MiningPool
    from spectra_nsa.workflows.mine.selection import Negatives

INCOMPLETE = ("drop", "keep")
SUFFIXES = (".jsonl", ".parquet")
_BATCH = 1_000  # rows written at a time
_OUR_COLUMNS = r"anchor|positive|negative(_\d+)?|scores"


def negative_names(count: int) -> list[str]:
    """Returns the columns of the negatives: `negative`, `negative_2`, …."""
    return ["negative", *(f"negative_{number}" for number in range(2, count + 1))]


def check_keep(pool: MiningPool, keep: Sequence[str]) -> None:
    """Checks the columns of the source that the user wants to keep.

    Raises:
        UsageError: the source has no such column, or mining writes a column of that name.
    """
    for name in keep:
        if re.fullmatch(_OUR_COLUMNS, name):
            raise UsageError(f"--keep {name}: mining writes its own column of that name. Rename the source's column.")
        if name not in pool.rows.column_names:
            others = [column for column in pool.rows.column_names if not re.fullmatch(_OUR_COLUMNS, column)]
            raise unknown_name("--keep", name, others)


def incomplete_path(output: Path) -> Path:
    """Returns the file for rows with too few negatives."""
    return output.with_name(f"{output.stem}.incomplete.jsonl")


def meta_path(output: Path) -> Path:
    """Returns the file for model, rules and counts."""
    return output.with_name(f"{output.name}.meta.json")


def check_output(output: Path, source: str, incomplete: str) -> None:
    """Checks, before any work, that the output can be written.

    Raises:
        UsageError: the suffix or the value of `incomplete` is unknown, or `output` is a folder or the source.
    """
    if incomplete not in INCOMPLETE:
        raise unknown_name("--incomplete", incomplete, INCOMPLETE)
    if output.suffix not in SUFFIXES:
        raise UsageError(f"{output} has an unknown suffix: use .jsonl (JSON Lines) or .parquet.")
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name a file, such as {output / 'mined.jsonl'}.")
    if Path(source).exists() and output.exists() and output.samefile(source):
        raise UsageError(f"{output} is the source, which would be lost: name another output file.")


def check_same_request(output: Path, facts: Mapping[str, Any]) -> None:
    """Checks that an existing output came from the same request, so that writing it again loses nothing.

    Args:
        output: the file to write.
        facts: the request, under the names of FILE.meta.json.

    Raises:
        UsageError: it came from another request, or its origin is unknown.
    """
    if not output.is_file():
        return
    meta = meta_path(output)
    before = read_json_object(meta) if meta.is_file() else {}
    names = ("source", "corpus", "model", "judge", "rules", "incomplete")
    differing = [name for name in names if before.get(name) != json.loads(json.dumps(facts[name]))]
    if differing:
        other = f"was mined with other settings ({', '.join(differing)})" if before else "exists"
        raise UsageError(f"{output} {other} and would be lost: name another output file, or delete it.")


class _RowWriter:
    """Writes rows into a JSON Lines or Parquet file, one batch at a time.

    Args:
        file: the open file.
        parquet: the Parquet writer of that file; ``None`` for JSON Lines.
    """

    def __init__(self, file: IO[Any], parquet: Any | None) -> None:
        self.rows = 0
        self._file, self._parquet = file, parquet
        self._buffer: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        self.rows += 1
        self._buffer.append(row)
        if len(self._buffer) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Writes the rows added since the last flush."""
        if self._parquet is None:
            self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._buffer)
        elif self._buffer:
            import pyarrow as pa

            self._parquet.write_table(pa.Table.from_pylist(self._buffer, self._parquet.schema))
        self._buffer = []


@contextlib.contextmanager
def _open_writer(path: Path, columns: list[str], pool: MiningPool, keep: Sequence[str]) -> Iterator[_RowWriter]:
    """Opens a writer of a file that is complete or absent. Kept columns of the source keep their type."""
    if path.suffix != ".parquet":
        with atomic_write(path) as file:
            yield (writer := _RowWriter(file, None))
            writer.flush()
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    source = pool.rows.features.arrow_schema
    types = {name: source.field(name).type for name in keep} | {"scores": pa.list_(pa.float64())}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    with atomic_write(path, "wb") as file, pq.ParquetWriter(file, schema) as parquet:
        yield (writer := _RowWriter(file, parquet))
        writer.flush()


def write_rows(
    output: Path,
    pool: MiningPool,
    mined: Negatives,
    *,
    incomplete: str,
    scores: bool,
    keep: Sequence[str],
    facts: dict[str, Any],
) -> dict[str, int]:
    """Writes the rows in the source's order, and `facts` with the counts into `meta_path(output)`.

    Args:
        output: the file, JSON Lines or Parquet by its suffix.
        pool: the anchors and documents.
        mined: the negatives.
        incomplete: ``"drop"`` writes rows with too few negatives into `incomplete_path(output)`; ``"keep"`` repeats
            the negatives that they have, so that only rows without any go there.
        scores: whether to write the scores of positive and negatives, as the list `scores`.
        keep: further columns of the source to write.
        facts: further content of `meta_path(output)`.

    Returns:
        counts: `written`, `incomplete` (rows with some negatives, but too few), `without`.
    """
    names = negative_names(mined.index_QN.shape[1])
    columns = ["anchor", "positive", *names, *(["scores"] if scores else []), *keep]
    counts = {"written": 0, "incomplete": 0, "without": 0}
    incomplete_file = incomplete_path(output)
    with _open_writer(output, columns, pool, keep) as file:
        with _open_writer(incomplete_file, columns, pool, keep) as rest:
            for row, kept, negatives, values in _rows(pool, mined, keep):
                missing = len(names) - len(negatives)
                counts["incomplete"] += 0 < missing < len(names)
                counts["without"] += not negatives
                complete = not missing or (incomplete == "keep" and negatives)
                if complete and missing:
                    negatives = _repeated(negatives, len(names))
                    values = [values[0], *_repeated(values[1:], len(names))]
                row |= dict(zip(names, negatives, strict=False)) | ({"scores": values} if scores else {}) | kept
                (file if complete else rest).add(row)
        counts["written"] = file.rows
        if not rest.rows:
            incomplete_file.unlink()
        write_json(meta_path(output), facts | {"columns": columns, "counts": facts["counts"] | counts})
    return counts


def _repeated(values: list[Any], size: int) -> list[Any]:
    return [values[number % len(values)] for number in range(size)]


def _rows(
    pool: MiningPool, mined: Negatives, keep: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[str], list[float]]]:
    """Yields each distinct pair's texts, kept columns, negatives, and scores (the positive's first)."""
    first_rows, pairs = np.flatnonzero(pool.first_R), pool.pair_R()
    for start in progress(range(0, len(first_rows), _BATCH), label="writing"):
        batch = first_rows[start : start + _BATCH]
        columns = pool.rows.select_columns(["anchor", "positive", *keep])[batch.tolist()]
        query = pool.query_R[batch]
        filled = mined.index_QN[query] >= 0
        documents = iter(pool.documents.get(mined.index_QN[query][filled]))
        for at, row in enumerate(batch.tolist()):
            negatives = [next(documents) for _ in range(int(filled[at].sum()))]
            scores = [mined.positive_P[pairs[row]], *mined.scores_QN[query[at]][filled[at]]]
            values = [round(float(score), 6) for score in scores]
            texts, kept = ({name: columns[name][at] for name in names} for names in (("anchor", "positive"), keep))
            yield texts, kept, negatives, values
