"""Random changes of valid files, as hypothesis strategies."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

DEEP = 5_000  # brackets within brackets
PAYLOADS = (
    b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"\x1b[2J", b"\xe2\x80\xa8",
    b'"', b"'", b'\\"', b"\\ud800", b",", b"\t", b";", b":", b": ", b"- ", b"{", b"}", b"[", b"]", b"[" * DEEP,
    b"[" * 60 + b"]" * 60, b'{"a":' * DEEP, b"null", b"true", b"NaN", b"-Infinity", b"-1", b"1e999", b"0.5", b"1e-400",
    b"9" * 25, b"9" * 5_000, b"0x10", b"~", b"*a", b"&a ", b"&a [*a]", b"!!python/object/apply:os.getcwd []",
    b"!!binary x", b"<<: ", b"2024-01-01", b"2024-13-45", b"%YAML 9.9", b"---\n", b"...\n", b"x" * 2_000, b"../x", b"/",
    "𝔘é→".encode(), "e\u0301".encode(), b"anchor", b"text", b"score", b"label", b"_id",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 2**64, -(2**70), 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", " ", "x", "\ud800", "\0", "../x", "/", "a\nb", "none", "NaN", "1", "x" * 3_000, [], {}, [[]], [None], [1, "a"],
    {"a": 1}, {"": None}, [[[[[[1]]]]]], ["x"] * 300,
)  # fmt: skip

_numbers = st.integers(0, 2**20 - 1)
_edits = st.lists(st.tuples(st.integers(0, 8), _numbers, _numbers, st.sampled_from(PAYLOADS)), min_size=1, max_size=4)
_byte_changes = st.one_of(
    st.binary(max_size=300).map(lambda data: [(-1, 0, 0, data)]),  # nothing valid is left
    _edits, _edits, _edits,
)  # fmt: skip


def _edit(data: bytes, kind: int, first: int, second: int, payload: bytes) -> bytes:
    """Returns data with one change; positions are shares of the length, in units of 2⁻²⁰."""
    start, size = first * (len(data) + 1) >> 20, 1 + (second * 40 >> 20)
    if kind < 0:
        return payload
    if kind < 3:  # insert, replace
        return data[:start] + payload + data[start + (size if kind == 2 else 0) :]
    if kind == 3:
        return data[:start] + data[start + size :]
    if kind == 4:
        return data[:start]
    if kind == 5:  # flip bits
        return data[:start] + bytes(byte ^ (second & 255 or 1) for byte in data[start : start + 1]) + data[start + 1 :]
    if kind == 6:
        return data[: start + size] + data[start:]
    lines = data.splitlines(keepends=True) or [b""]
    one, two = first * len(lines) >> 20, second * len(lines) >> 20
    if kind == 7:
        lines.insert(two, lines[one])
    else:
        lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


def changed_bytes(valid: bytes) -> st.SearchStrategy[bytes]:
    """Random bytes, and valid data with up to four changes: bits, bytes and lines, cut short, or with odd values."""

    def apply(edits: list[tuple[int, int, int, bytes]]) -> bytes:
        data = valid
        for edit in edits:
            data = _edit(data, *edit)
        return data

    return _byte_changes.map(apply)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the paths of all values within a JSON value; of a long list or object only those of the first ones."""
    found = [path]
    if isinstance(value, dict):
        for key in list(value)[:60]:
            found += _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 6)):
            found += _paths(value[index], (*path, index))
    return found


def changed_json(valid: Any) -> st.SearchStrategy[Any]:
    """A valid JSON value with up to three changes: other values and types, items removed, renamed, repeated."""
    paths = _paths(valid)
    change = st.tuples(st.integers(0, 5), st.sampled_from(paths), st.sampled_from(VALUES), st.sampled_from(paths))

    def apply(changes: list[tuple[int, tuple[Any, ...], Any, tuple[Any, ...]]]) -> Any:
        value = copy.deepcopy(valid)
        for kind, path, odd, other in changes:
            value = _change(value, kind, path, odd, other)
        return value

    return st.lists(change, min_size=1, max_size=3).map(apply)


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _change(value: Any, kind: int, path: tuple[Any, ...], odd: Any, other: tuple[Any, ...]) -> Any:
    if not path:
        return copy.deepcopy(odd)
    try:
        parent, last = _at(value, path[:-1]), path[-1]
        if kind < 3:
            parent[last] = copy.deepcopy(odd)
        elif kind == 3:
            del parent[last]
        elif kind == 4:
            parent[last] = copy.deepcopy(_at(value, other))  # a value from elsewhere
        elif isinstance(parent, dict):
            parent[str(odd)] = parent.pop(last)
        else:
            parent.append(copy.deepcopy(parent[last]))
    except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change removed it
        pass
    return value


def json_bytes(value: Any) -> bytes:
    """Returns JSON as Python writes it: with NaN, and with lone surrogates as escapes."""
    return json.dumps(value).encode()


def changed_json_file(valid: Any) -> st.SearchStrategy[bytes]:
    """A JSON file with changed values, or changed bytes."""
    values = changed_json(valid).map(json_bytes)
    return st.one_of(values, values, changed_bytes(json_bytes(valid)))


def changed_lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
    """A JSON Lines file with changed values, or changed bytes."""

    def lines(values: Any) -> bytes:
        return b"".join(json_bytes(row) + b"\n" for row in (values if isinstance(values, list) else [values]))

    return st.one_of(changed_json(rows).map(lines), changed_bytes(lines(rows)))
