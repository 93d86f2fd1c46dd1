"""Several files read as one dataset. Unrelated files among them (results, settings, other data) are skipped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.columns import find_layout
from spectra_nsa.text.readers.records import read_records
from spectra_nsa.text.rows import Problem, Record

HEAD_ROWS = 100  # the columns of a file are the keys of its first rows


def read_file_set(
    files: Sequence[Path], columns: Mapping[str, str] | None, negatives: int | None = None
) -> Iterator[Record | Problem]:
    """Yields the rows of several files, in order. A file of unrelated content becomes one `Problem` at line 0.

    The columns with a role are detected in the largest file where that is possible. The other files need them too.

    Args:
        files: the files.
        columns: role → column; ``None`` detects the roles.
        negatives: see `find_layout`.

    Raises:
        SpectraError: a file cannot be read.
        UsageError: `columns` names an unknown role.
    """
    if len(files) == 1:
        yield from read_records(files[0])
        return
    needed = next(filter(None, (_role_columns(path, columns, negatives) for path in _by_size(files))), [])
    for path in files:
        items = read_records(path)
        head = list(itertools.islice(items, HEAD_ROWS))
        mismatch = _mismatch(path, head, needed)
        if mismatch is None:
            yield from itertools.chain(head, items)
        else:
            reason = f"file skipped: {mismatch}. To read it, pass this file as the source"
            yield Problem(file=str(path), line=0, column=None, reason=reason, raw="")


def _by_size(files: Sequence[Path]) -> list[Path]:
    return sorted(files, key=lambda path: -path.stat().st_size)


def _keys(head: Sequence[Record | Problem]) -> list[str]:
    return list(dict.fromkeys(key for item in head if isinstance(item, Record) for key in item.values))


def _role_columns(path: Path, columns: Mapping[str, str] | None, negatives: int | None) -> list[str]:
    """Returns the columns with a role; an empty list if no roles are detected."""
    keys = _keys(list(itertools.islice(read_records(path), HEAD_ROWS)))
    try:
        layout = find_layout(keys, columns, source=str(path), negatives=negatives) if keys else None
        return list(layout.columns.values()) if layout is not None else []
    except UsageError:
        raise
    except SpectraError:
        return []


def _mismatch(path: Path, head: Sequence[Record | Problem], needed: Sequence[str]) -> str | None:
    """Returns why a file does not belong to the dataset; ``None`` if it does, or if all its rows are quarantined."""
    keys = _keys(head)
    if not keys:
        indented = ".json" in path.suffixes and bool(head)  # one object over many lines: each line is a bad row
        return "it has no rows (one object per line, or an array of objects)" if indented else None
    missing = [name for name in needed if name not in keys]
    return f"it has no column {missing[0]!r}" if missing else None
