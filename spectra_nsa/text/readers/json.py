"""JSON Lines, and `.json` files that hold JSON Lines or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.readers.lines import Line, line_problem, read_lines, text_record
from spectra_nsa.text.rows import Problem, Record

_WHOLE_FILE = 1 << 40  # bytes of a line: no limit


class _RepeatedKey(str):
    """Stands for an object that has this key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    names = [name for name, _ in pairs]
    return _RepeatedKey(next(name for name in names if names.count(name) > 1))


def read_json(path: Path) -> Iterator[Record | Problem]:
    """Yields the objects of a `.json` file: of one array, or of JSON Lines.

    Raises:
        SpectraError: the file cannot be read, or it is an array that is not valid JSON.
    """
    yield from _read_array(path) if _is_array(path) else read_json_lines(path)


def read_json_lines(path: Path) -> Iterator[Record | Problem]:
    """Yields the objects of a JSON Lines file. Blank lines are skipped.

    Raises:
        SpectraError: the file cannot be read.
    """
    for line in read_lines(path):
        if line.data.strip():
            yield _record(path, line)


def _record(path: Path, line: Line) -> Record | Problem:
    text = text_record(path, line)
    if isinstance(text, Problem):
        return text
    try:
        value = json.loads(text.values["text"], object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        return line_problem(path, line, f"not JSON at character {error.pos + 1} of the line: {error.msg}")
    except (RecursionError, ValueError) as error:  # nested too deep; a number with too many digits
        return line_problem(path, line, f"JSON that cannot be read: {error}")
    if not isinstance(value, dict):
        return line_problem(path, line, _not_an_object(value))
    return Record(line.number, value, str(path))


def _not_an_object(value: object) -> str:
    if isinstance(value, _RepeatedKey):
        return f"the key {str(value)!r} appears twice"
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return f"expected a JSON object, got {names.get(type(value), 'null')}"


def _is_array(path: Path) -> bool:
    """Returns whether a `.json` file is one array, as opposed to one object per line."""
    first = next((line.data.strip() for line in read_lines(path) if line.data.strip()), b"")
    if not first.startswith(b"["):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):  # the array continues after its first line
        return True
    return bool(value) and isinstance(value[0], dict)


def _read_array(path: Path) -> Iterator[Record | Problem]:
    """Yields the objects of one array. The whole file is in memory."""
    try:
        rows = json.loads(
            b"".join(line.data for line in read_lines(path, _WHOLE_FILE)).decode("utf-8"), object_pairs_hook=_object
        )
    except (ValueError, RecursionError) as error:
        raise SpectraError(
            f"{path}: not JSON ({error}). Fix the file, or write one object per line (JSON Lines)."
        ) from error
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Record(number, row, str(path))
        else:
            yield Problem(file=str(path), line=number, column=None, reason=_not_an_object(row), raw=printable(row))
