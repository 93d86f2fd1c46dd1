"""All texts of one or more sources, one at a time and as often as they are asked for."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.quarantine import KEPT
from spectra_nsa.text.readers.lines import Line, read_lines
from spectra_nsa.text.readers.records import is_plain, text_record
from spectra_nsa.text.rows import Problem

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.shared import SharedColumns

_AT_A_TIME = 1_000


class Corpus:
    """The texts of sources, in order; going through it again reads again, so that nothing large is held.

    A plain text file gives its lines, any other source (see `load_source`) every text of every row: anchors, positives
    and negatives alike. Blank lines are skipped.

    Args:
        sources: plain text files and sources that `load_source` knows.
        limit: at most so many lines or rows of each; ``None`` for all.
        columns: role → column, for the sources that have all of these columns; ``None`` guesses everywhere. A
            `SharedColumns` is shared with other corpora, and its `check` is the caller's.

    Attributes:
        left_out: how many rows and lines were refused.
        problems: the first few of them of each source.
        notes: a line for each source that has such: how many, where the first is, and what is wrong with it.

    Raises:
        SpectraError: a source cannot be read, or holds no text, or the columns fit none.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        *,
        limit: int | None = None,
        columns: Mapping[str, str] | SharedColumns | None = None,
    ) -> None:
        from spectra_nsa.text.shared import SharedColumns

        if not sources:
            raise UsageError("name a source of texts: a plain text file, or whatever spectra data preview reads.")
        shared = columns if isinstance(columns, SharedColumns) else SharedColumns(columns)
        self.limit = limit
        self.left_out = 0
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._parts: list[Path | tuple[Dataset, tuple[str, ...]]] = []
        for source in sources:
            self._parts.append(self._plain(Path(source)) if is_plain(source) else self._table(source, shared))
        if shared is not columns:
            shared.check()

    def _plain(self, path: Path) -> Path:
        path = path.expanduser()
        if not path.is_file():
            raise SpectraError(f"{path} does not exist, or is no file.")
        good = refused = 0
        first: list[Problem] = []
        for line in islice(read_lines(path), self.limit):
            item = text_record(path, line)
            if isinstance(item, Problem):
                refused += 1
                first += [item] if len(first) < KEPT else []
            else:
                good += bool(item.values["text"])
        if not good:
            why = f"none of its {refused:,} lines is UTF-8 text of at most 1 MB" if refused else "it is empty"
            raise SpectraError(f"{path} holds no text: {why}. A plain text file has one text a line.")
        self._refused(path, refused, first)
        return path

    def _table(self, source: str | Path, columns: SharedColumns) -> tuple[Dataset, tuple[str, ...]]:
        found = columns.load(source, limit=self.limit)
        self._refused(source, found.quarantined, found.problems)
        return found.dataset, found.text_columns

    def _refused(self, source: str | Path, count: int, first: Sequence[Problem]) -> None:
        if count:
            self.left_out += count
            self.problems += first
            self.notes.append(f"{count:,} broken rows or lines of {source} were left out, the first {_place(first[0])}")

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            if isinstance(part, Path):
                yield from filter(None, map(_decoded, islice(read_lines(part), self.limit)))
            else:
                yield from _cells(*part)


def _place(problem: Problem) -> str:
    where = f"{problem.file}:{problem.line}" if problem.line else problem.file
    column = f", column {problem.column!r}" if problem.column else ""
    return f"{where}{column}: {problem.reason}"


def _decoded(line: Line) -> str | None:
    """A line's text, ``""`` where it is blank; ``None`` where it is too long or not UTF-8."""
    if line.too_long:
        return None
    try:
        return line.data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None


def _cells(table: Dataset, columns: tuple[str, ...]) -> Iterator[str]:
    table = table.select_columns(list(columns))
    for start in range(0, len(table), _AT_A_TIME):
        for values in table[start : start + _AT_A_TIME].values():
            yield from values


def sample_texts(texts: Iterable[str], count: int, *, seed: int = 0) -> list[str]:
    """At most `count` texts of a stream, each as likely as any other (reservoir sampling, Vitter 1985)."""
    generator = random.Random(seed)
    kept: list[str] = []
    for number, text in enumerate(texts):
        if number < count:
            kept.append(text)
        elif (place := generator.randrange(number + 1)) < count:
            kept[place] = text
    return kept
