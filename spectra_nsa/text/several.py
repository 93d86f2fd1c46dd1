"""Several files that make up one set, and what lies beside them: results, settings, another set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.columns import layout
from spectra_nsa.text.readers.records import Record, read_records
from spectra_nsa.text.rows import Problem

PEEK = 100  # rows whose keys make up the columns of a file


def read_several(files: Sequence[Path], columns: Mapping[str, str] | None) -> Iterator[Record | Problem]:
    """The rows of files that make up one set, in order; a file of something else is one `Problem`, of its line 0.

    The set's columns are those of the largest file in which roles are found; every other file needs them too.

    Args:
        files: the set's.
        columns: role → column; ``None`` guesses.

    Raises:
        SpectraError: a file cannot be read.
        UsageError: `columns` names an unknown role.
    """
    wanted = next(filter(None, (_wanted(path, columns) for path in _by_size(files))), []) if len(files) > 1 else []
    for path in files:
        items = read_records(path)
        head = list(itertools.islice(items, PEEK))
        why = _foreign(path, head, wanted) if len(files) > 1 else None
        if why is None:
            yield from itertools.chain(head, items)
        else:
            reason = f"the file is left out: {why}. To read it, give it alone as the source"
            yield Problem(file=str(path), line=0, column=None, reason=reason, raw="")


def _by_size(files: Sequence[Path]) -> list[Path]:
    return sorted(files, key=lambda path: -path.stat().st_size)


def _keys(head: Sequence[Record | Problem]) -> list[str]:
    return list(dict.fromkeys(key for item in head if isinstance(item, Record) for key in item.values))


def _wanted(path: Path, columns: Mapping[str, str] | None) -> list[str]:
    """The columns with a role; none where roles are not found."""
    keys = _keys(list(itertools.islice(read_records(path), PEEK)))
    try:
        return list(layout(keys, columns, source=str(path)).columns.values()) if keys else []
    except UsageError:
        raise
    except SpectraError:
        return []


def _foreign(path: Path, head: Sequence[Record | Problem], wanted: Sequence[str]) -> str | None:
    """Why a file is none of the set's; ``None`` where it is one, or its rows are all broken."""
    keys = _keys(head)
    if not keys:
        pretty = ".json" in path.suffixes and bool(head)  # one object over many lines: each is a broken row
        return "it holds no rows (an object a line, or an array of objects)" if pretty else None
    lacking = [name for name in wanted if name not in keys]
    return f"it has no column {lacking[0]!r}" if lacking else None
