"""Rows that were read once stay on disk: a large source is checked and written once, and mapped from then on.

An entry belongs to a source and the way it is read (paths, columns, limit). It is used again while its files are the
same: size, times and inode as they were, or else the same SHA-256. It holds the rows, the refused rows, and what is
known of both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from spectra_nsa.core.cache import cache_folder, new_folder, prune, publish
from spectra_nsa.core.checksums import describe
from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.core.files import read_json, write_json
from spectra_nsa.text.quarantine import Quarantine
from spectra_nsa.text.rows import Problem
from spectra_nsa.text.store import FILE

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 4  # part of the key: raise it when what becomes of a row changes
KEPT = 8  # sources whose rows stay on disk
_FACTS, _REFUSED = "entry.json", "refused.jsonl"
_FRESH = 2.0  # seconds in which a file may change without its time of change showing it
_SPOOL = 1_000_000  # characters of refused rows in memory


class Shelf:
    """A context around the reading of one source.

    Args:
        key: what the rows depend on beside the files' contents, as JSON can hold it.
        files: the files they are read from; empty where that is not known, and then no entry is used twice.
    """

    def __init__(self, key: Sequence[Any], files: Sequence[Path]) -> None:
        digest = hashlib.sha256(json.dumps([RULES, *key], default=str).encode()).hexdigest()
        self.place = cache_folder("rows") / digest[:32]
        self.files = list(files)
        self.refused: IO[str] = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._temporary: Path | None = None
        self._before = [_stamp(path) for path in self.files]

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refused.close()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def folder(self) -> Path:
        """A new folder for the rows.

        Raises:
            SpectraError: it cannot be made.
        """
        self._temporary = new_folder(self.place)
        return self._temporary

    def keep(self, facts: dict[str, Any]) -> tuple[Dataset, str]:
        """Gives the folder its name.

        Args:
            facts: `rows`, `columns`, and whatever `found` is to give back.

        Returns:
            the rows, mapped from the disk, and their SHA-256.
        """
        temporary = self._temporary
        assert temporary is not None
        with (temporary / _REFUSED).open("w", encoding="utf-8") as file:
            self.refused.seek(0)
            shutil.copyfileobj(self.refused, file)
        rows = describe(temporary / FILE, sync=True)
        sources = [{"stamp": stamp, "sha256": _sha256(path)} for path, stamp in self._stamped()]
        unchanged = [_stamp(path) for path in self.files] == self._before
        entry = {**facts, "rows_file": rows, "refused": describe(temporary / _REFUSED, sync=True)}
        write_json(temporary / _FACTS, entry | {"files": sources if sources and unchanged else None})
        publish(temporary, self.place)
        self._temporary = None
        prune(self.place.parent, KEPT)
        return _rows(self.place, facts["columns"]), rows["sha256"]

    def _stamped(self) -> list[tuple[Path, list[int] | None]]:
        """The files, each with its stamp where that is old enough to tell a later change."""
        now = time.time_ns()
        return [
            (path, stamp if now - max(stamp[1:3]) > _FRESH * 1e9 else None)
            for path, stamp in zip(self.files, self._before, strict=True)
        ]

    def found(self, quarantine: Quarantine) -> tuple[Dataset, dict[str, Any]] | None:
        """The rows of an earlier reading, and what `keep` was given; ``None`` where there is nothing whole.

        Args:
            quarantine: gets the rows that were refused then.
        """
        try:
            entry = read_json(self.place / _FACTS)
            if not self._same(entry) or not self._whole(entry):
                return None
            rows = _rows(self.place, entry["columns"])
            if len(rows) != entry["rows"]:
                return None
            with (self.place / _REFUSED).open(encoding="utf-8") as file:
                for line in file:
                    quarantine.add(Problem(**json.loads(line)))
            os.utime(self.place)
        except (SpectraError, OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are ValueErrors
            return None
        return rows, entry

    def _whole(self, entry: dict[str, Any]) -> bool:
        """Sizes alone for the rows, which are too large to read twice; the refused rows by their SHA-256."""
        if (self.place / FILE).stat().st_size != entry["rows_file"]["size"]:
            return False
        return describe(self.place / _REFUSED) == entry["refused"]

    def _same(self, entry: dict[str, Any]) -> bool:
        """Whether the files are those that the entry was made from."""
        then = entry["files"]
        if not self.files or then is None or len(then) != len(self.files):
            return False
        stamped = self._stamped()
        doubtful = [at for at, (_, stamp) in enumerate(stamped) if stamp is None or stamp != then[at]["stamp"]]
        if any(_sha256(self.files[at]) != then[at]["sha256"] for at in doubtful):
            return False
        if any(stamped[at][1] is not None for at in doubtful):  # touched, not changed: the next time is quicker
            files = [{"stamp": stamp, "sha256": old["sha256"]} for (_, stamp), old in zip(stamped, then, strict=True)]
            with contextlib.suppress(SpectraError, OSError):
                write_json(self.place / _FACTS, entry | {"files": files})
        return True


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:  # whoever reads it will say so
        return [0, 0, 0, 0]
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _sha256(path: Path) -> str:
    return str(describe(path)["sha256"])


def _rows(place: Path, columns: Sequence[str]) -> Dataset:
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    return Dataset.from_file(str(place / FILE)).select_columns(list(columns))
