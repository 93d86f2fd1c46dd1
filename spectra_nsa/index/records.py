"""The documents of a segment: id, text and metadata of each, one JSON line per document, found by position or id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import finite_json
from spectra_nsa.index.arrays import check_starts, damaged, map_array

_LINES, _STARTS, _HASHES, _ROWS = "records.jsonl", "record_starts.npy", "id_hashes.npy", "id_rows.npy"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A document of an index.

    Attributes:
        id: its name, unique in the index.
        text: its text; ``None`` if it was not stored.
        metadata: any JSON object.
    """

    id: str
    text: str | None = None
    metadata: Mapping[str, Any] | None = None

    def line(self) -> bytes:
        """Returns it as a line of JSON."""
        facts = {"id": self.id, "text": self.text, "metadata": self.metadata}
        kept = {name: value for name, value in facts.items() if value is not None}
        return json.dumps(finite_json(kept), allow_nan=False).encode() + b"\n"


def make_records(
    ids: Sequence[str],
    texts: Sequence[str] | None = None,
    metadata: Sequence[Mapping[str, Any] | None] | None = None,
) -> list[Record]:
    """Returns records from columns.

    Raises:
        SpectraError: the columns differ in length, an id is empty or occurs twice, or a value is not JSON.
    """
    for name, column in (("texts", texts), ("metadata", metadata)):
        if column is not None and len(column) != len(ids):
            raise SpectraError(f"there are {len(ids):,} ids but {len(column):,} {name}: give one for each document.")
    seen: set[str] = set()
    for number, key in enumerate(ids):
        if not isinstance(key, str) or not key:
            raise SpectraError(f"ids[{number}] is {key!r}: an id is a text that is not empty.")
        if key in seen:
            raise SpectraError(f"the id {key!r} occurs twice: ids must be unique.")
        seen.add(key)
    records = [
        Record(id=key, text=texts[i] if texts is not None else None, metadata=metadata[i] if metadata else None)
        for i, key in enumerate(ids)
    ]
    for record in records:
        if record.metadata is not None and not isinstance(record.metadata, Mapping):
            raise SpectraError(f"the metadata of {record.id!r} is {record.metadata!r}: give a mapping.")
    return records


def id_hash(key: str) -> int:
    """Returns 64 bits of the BLAKE2b digest of an id."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def write_lines(folder: Path, lines: Iterable[bytes], ids: Sequence[str]) -> None:
    """Writes the records of a segment.

    Args:
        folder: the segment's folder.
        lines: `Record.line` of each document, in order.
        ids: their ids.
    """
    starts = [0]
    with (folder / _LINES).open("wb") as file:
        for line in lines:
            file.write(line)
            starts.append(starts[-1] + len(line))
    hashes = np.array([id_hash(key) for key in ids], dtype=np.uint64)
    rows = np.argsort(hashes, kind="stable").astype(np.int32)
    np.save(folder / _STARTS, np.array(starts, dtype=np.int64))
    np.save(folder / _HASHES, hashes[rows])
    np.save(folder / _ROWS, rows)


class Records:
    """The records of a segment, read on demand.

    Args:
        folder: the segment's folder.
        count: the number of its documents.

    Raises:
        SpectraError: a file is damaged.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.path = folder / _LINES
        self._starts = map_array(folder / _STARTS, np.int64, count + 1)
        self._hashes = map_array(folder / _HASHES, np.uint64, count)
        self._rows = map_array(folder / _ROWS, np.int32, count)
        try:
            size = self.path.stat().st_size
            self._bytes = np.memmap(self.path, mode="r") if size else np.zeros(0, dtype=np.uint8)
        except OSError as error:
            raise damaged(self.path, f"it cannot be read ({error.strerror})") from error
        check_starts(folder / _STARTS, self._starts, size)

    def line(self, row: int) -> bytes:
        """Returns the JSON line of a document."""
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        return self._bytes[start:end].tobytes()

    def record(self, row: int) -> Record:
        """Returns a document.

        Raises:
            SpectraError: its line is damaged.
        """
        try:
            facts = json.loads(self.line(row))
            record = Record(id=facts["id"], text=facts.get("text"), metadata=facts.get("metadata"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise damaged(self.path, f"line {row + 1} is not a record") from error
        if not isinstance(record.id, str) or not isinstance(record.text, str | None):
            raise damaged(self.path, f"line {row + 1} is not a record")
        return record

    def rows(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Returns the row of each id; −1 if there is none. Deleted documents are found too."""
        found = np.full(len(keys), -1, dtype=np.int64)
        wanted = np.array([id_hash(key) for key in keys], dtype=np.uint64)
        first = np.searchsorted(self._hashes, wanted)
        for number, key in enumerate(keys):
            at = int(first[number])
            while at < len(self._hashes) and self._hashes[at] == wanted[number]:  # several ids may share a hash
                row = int(self._rows[at])
                if not 0 <= row < len(self._rows):
                    raise damaged(self.path.with_name(_ROWS), "it names a document that does not exist")
                if self.record(row).id == key:
                    found[number] = row
                at += 1
        return found
