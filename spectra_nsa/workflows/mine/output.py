"""What mining writes: rows with their negatives, those with too few beside them, and where they are from."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import UsageError, missing_extra, unknown_name
from spectra_nsa.core.files import atomic_write, write_json

if TYPE_CHECKING:
    from spectra_nsa.text.pool import Pool
    from spectra_nsa.workflows.mine.candidates import Negatives

INCOMPLETE = ("drop", "keep")
SUFFIXES = (".jsonl", ".parquet")
_AT_A_TIME = 1_000
_OURS = r"anchor|positive|negative(_\d+)?|scores"


def negative_names(count: int) -> list[str]:
    """The columns of negatives: `negative`, `negative_2`, …."""
    return ["negative", *(f"negative_{number}" for number in range(2, count + 1))]


def check_keep(pool: Pool, keep: Sequence[str]) -> None:
    """Refuses columns that the source has not, or that the file has anyway.

    Raises:
        UsageError: there is such a name.
    """
    for name in keep:
        if re.fullmatch(_OURS, name):
            raise UsageError(f"--keep {name}: the file has a column of that name; the source's cannot stand beside it.")
        if name not in pool.rows.column_names:
            others = [one for one in pool.rows.column_names if not re.fullmatch(_OURS, one)]
            raise unknown_name("--keep", name, others)


def beside(output: Path) -> Path:
    """Where the rows with too few negatives go."""
    return output.with_name(f"{output.stem}.incomplete.jsonl")


def meta(output: Path) -> Path:
    """Where model, rules and counts go."""
    return output.with_name(f"{output.name}.meta.json")


def check_output(output: Path, source: str, incomplete: str) -> None:
    """Refuses, before any work, what cannot be written.

    Raises:
        UsageError: the ending is unknown, `output` is a folder or the source, or `incomplete` is no known word.
    """
    if incomplete not in INCOMPLETE:
        raise unknown_name("--incomplete", incomplete, INCOMPLETE)
    if output.suffix not in SUFFIXES:
        raise UsageError(f"{output}: name it .jsonl (JSON Lines) or .parquet.")
    if output.is_dir():
        raise UsageError(f"{output} is a folder: name a file, such as {output / 'mined.jsonl'}.")
    if Path(source).exists() and output.exists() and output.samefile(source):
        raise UsageError(f"{output} is the source, which would be lost: name another file.")


class _Writer:
    """Rows into a JSON Lines or Parquet file, a batch at a time.

    Args:
        file: the open file.
        parquet: the Parquet writer on it; ``None`` for JSON Lines.
    """

    def __init__(self, file: IO[Any], parquet: Any | None) -> None:
        self.rows = 0
        self._file, self._parquet = file, parquet
        self._held: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Takes a row."""
        self.rows += 1
        self._held.append(row)
        if len(self._held) >= _AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """Writes what is held."""
        if self._parquet is None:
            self._file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self._held)
        elif self._held:
            import pyarrow as pa

            self._parquet.write_table(pa.Table.from_pylist(self._held, self._parquet.schema))
        self._held = []


@contextlib.contextmanager
def _writing(path: Path, columns: list[str], pool: Pool, keep: Sequence[str]) -> Iterator[_Writer]:
    """A writer of a file that is whole or absent; kept columns of the source are of the kind that they were."""
    if path.suffix != ".parquet":
        with atomic_write(path) as file:
            yield (writer := _Writer(file, None))
            writer.flush()
        return
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    source = pool.rows.features.arrow_schema
    kinds = {name: source.field(name).type for name in keep} | {"scores": pa.list_(pa.float64())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in columns])
    with atomic_write(path, "wb") as file, pq.ParquetWriter(file, schema) as parquet:
        yield (writer := _Writer(file, parquet))
        writer.flush()


def write_rows(
    output: Path,
    pool: Pool,
    found: Negatives,
    *,
    incomplete: str,
    scores: bool,
    keep: Sequence[str],
    facts: dict[str, Any],
) -> dict[str, int]:
    """Writes the rows in the source's order, and `facts` with the counts beside them.

    Args:
        output: the file, JSON Lines or Parquet by its name.
        pool: what was mined.
        found: what was found.
        incomplete: ``"drop"`` writes rows with too few negatives into `beside(output)`; ``"keep"`` repeats theirs, so
            that only those without any go there.
        scores: whether to write the teacher's scores of positive and negatives, as the list `scores`.
        keep: other columns of the source to write.
        facts: what else the file of `meta(output)` says.

    Returns:
        counts: `written`, `incomplete` (rows with some negatives, but too few), `without`.
    """
    names = negative_names(found.index_QN.shape[1])
    columns = ["anchor", "positive", *names, *(["scores"] if scores else []), *keep]
    counts = {"written": 0, "incomplete": 0, "without": 0}
    side = beside(output)
    with _writing(output, columns, pool, keep) as file:
        with _writing(side, columns, pool, keep) as rest:
            for row, others, negatives, values in _rows(pool, found, keep):
                missing = len(names) - len(negatives)
                counts["incomplete"] += 0 < missing < len(names)
                counts["without"] += not negatives
                whole = not missing or (incomplete == "keep" and negatives)
                if whole and missing:
                    negatives = _repeated(negatives, len(names))
                    values = [values[0], *_repeated(values[1:], len(names))]
                row |= dict(zip(names, negatives, strict=False)) | ({"scores": values} if scores else {}) | others
                (file if whole else rest).add(row)
        counts["written"] = file.rows
        if not rest.rows:
            side.unlink()
        write_json(meta(output), facts | {"columns": columns, "counts": facts["counts"] | counts})
    return counts


def _repeated(values: list[Any], size: int) -> list[Any]:
    return [values[number % len(values)] for number in range(size)]


def _rows(
    pool: Pool, found: Negatives, keep: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[str], list[float]]]:
    """Each distinct pair of the source: texts, kept columns, negatives, the scores of the positive and of them."""
    places, pairs = np.flatnonzero(pool.first_R), pool.pair_R()
    for start in progress(range(0, len(places), _AT_A_TIME), label="writing"):
        part = places[start : start + _AT_A_TIME]
        own = pool.rows.select_columns(["anchor", "positive", *keep])[part.tolist()]
        query = pool.query_R[part]
        taken = found.index_QN[query] >= 0
        documents = iter(pool.documents.get(found.index_QN[query][taken]))
        for at, row in enumerate(part.tolist()):
            negatives = [next(documents) for _ in range(int(taken[at].sum()))]
            scores = [found.own_P[pairs[row]], *found.scores_QN[query[at]][taken[at]]]
            values = [round(float(score), 6) for score in scores]
            texts, rest = ({name: own[name][at] for name in names} for names in (("anchor", "positive"), keep))
            yield texts, rest, negatives, values
