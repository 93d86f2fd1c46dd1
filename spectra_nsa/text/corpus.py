"""A stream of all texts of one or more sources. It can be read any number of times."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user
from spectra_nsa.text.quarantine import SHOWN_PROBLEMS
from spectra_nsa.text.readers.lines import read_text_records
from spectra_nsa.text.readers.records import is_plain_text
from spectra_nsa.text.rows import Problem, Record

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.shared_columns import SharedColumns

_BATCH_ROWS = 1_000


class Corpus:
    """The texts of several sources, in order. Each iteration reads them again, so memory stays small.

    A plain text file yields its lines. Any other source (see `load_source`) yields every text of every row: anchors,
    positives and negatives. Blank lines are skipped.

    Args:
        sources: plain text files, and any source that `load_source` reads.
        limit: the maximum number of lines or rows of each source; ``None`` for all.
        columns: role → column, for the sources that have all of these columns; ``None`` detects the roles everywhere.
            A `SharedColumns` may be shared with other corpora; then the caller calls its `check`.

    Attributes:
        left_out: the number of quarantined rows and lines.
        problems: the first few quarantined rows of each source.
        notes: one line for each source with quarantined rows: how many, and where and what the first problem is.

    Raises:
        SpectraError: a source cannot be read or has no text, or `columns` matches no source.
        UsageError: there are no sources.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        limit: int | None = None,
        columns: Mapping[str, str] | SharedColumns | None = None,
    ) -> None:
        from spectra_nsa.text.shared_columns import SharedColumns

        if not sources:
            raise UsageError(
                "no source of texts given: pass a plain text file or any source that spectra data preview reads."
            )
        shared = columns if isinstance(columns, SharedColumns) else SharedColumns(columns)
        self.limit = limit
        self.left_out = 0
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._parts: list[Path | tuple[Dataset, tuple[str, ...]]] = []
        for source in sources:
            self._parts.append(
                self._checked_file(Path(source)) if is_plain_text(source) else self._table(source, shared)
            )
        if shared is not columns:
            shared.check()

    def _checked_file(self, path: Path) -> Path:
        path = expand_user(path)
        if not path.is_file():
            raise SpectraError(f"{path} does not exist or is not a file.")
        good = refused = 0
        first: list[Problem] = []
        for item in islice(read_text_records(path), self.limit):
            if isinstance(item, Problem):
                refused += 1
                first += [item] if len(first) < SHOWN_PROBLEMS else []
            else:
                good += 1
        if not good:
            reason = (
                f"none of its {counted(refused, 'line')} is UTF-8 text of at most 1 MB" if refused else "it is empty"
            )
            raise SpectraError(f"{path} contains no text: {reason}. A plain text file has one text per line.")
        self._report(path, refused, first)
        return path

    def _table(self, source: str | Path, columns: SharedColumns) -> tuple[Dataset, tuple[str, ...]]:
        rows = columns.load(source, limit=self.limit)
        self._report(source, rows.quarantined, rows.problems)
        return rows.dataset, rows.text_columns

    def _report(self, source: str | Path, count: int, first: Sequence[Problem]) -> None:
        if count:
            self.left_out += count
            self.problems += first
            unit = "line" if is_plain_text(source) else "row"
            self.notes.append(f"{source}: {counted(count, unit)} quarantined; the first is {_location(first[0])}")

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            if isinstance(part, Path):
                records = islice(read_text_records(part), self.limit)
                yield from (item.values["text"] for item in records if isinstance(item, Record))
            else:
                yield from _table_texts(*part)


def _location(problem: Problem) -> str:
    """Returns file, line, column and reason of a problem."""
    position = f"{problem.file}:{problem.line}" if problem.line else problem.file
    column = f", column {problem.column!r}" if problem.column else ""
    return f"{position}{column}: {problem.reason}"


def _table_texts(table: Dataset, columns: tuple[str, ...]) -> Iterator[str]:
    table = table.select_columns(list(columns))
    for start in range(0, len(table), _BATCH_ROWS):
        for values in table[start : start + _BATCH_ROWS].values():
            yield from values


def sample_texts(texts: Iterable[str], count: int, *, seed: int = 0) -> list[str]:
    """Returns at most `count` texts of a stream, each equally likely (reservoir sampling, Vitter 1985)."""
    generator = random.Random(seed)
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < count:
            kept.append(text)
        elif (slot := generator.randrange(number + 1)) < count:
            kept[slot] = text
    return kept
