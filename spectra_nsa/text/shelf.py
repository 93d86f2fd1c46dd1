"""Rows that were read once stay on disk: a large source is checked and written once, and mapped from then on.

An entry belongs to a source and the way it is read (paths, columns, limit). It is used again while its files are the
same: size, times and inode as they were, or else the same SHA-256. It holds the rows, the refused rows, and what is
known of both.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.checksums import describe, file_stamp, settled
from spectra_nsa.core.errors import missing_extra
from spectra_nsa.text.quarantine import Quarantine
from spectra_nsa.text.rows import Problem
from spectra_nsa.text.store import FILE

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 5  # part of the key: raise it when what becomes of a row changes
ROWS = Cache("rows", keep=8)
_REFUSED = "refused.jsonl"
_SPOOL = 1_000_000  # characters of refused rows in memory
_MISSING = [0, 0, 0, 0]


class Shelf:
    """A context around the reading of one source.

    Args:
        key: what the rows depend on beside the files' contents, as JSON can hold it.
        files: the files they are read from; if that is not known, none, and then no entry is used twice.
    """

    def __init__(self, key: Sequence[Any], files: Sequence[Path]) -> None:
        self.entry = ROWS.entry(rules=RULES, source=json.loads(json.dumps(key, default=str)))
        self.files = list(files)
        self.refused: IO[str] = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._open = contextlib.ExitStack()
        self._draft: Path | None = None
        self._before = [_stamp(path) for path in self.files]

    def __enter__(self) -> Shelf:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refused.close()
        self._open.__exit__(kind, error, trace)

    def folder(self) -> Path:
        """Returns a new folder for the rows.

        Raises:
            SpectraError: it cannot be created.
        """
        self._draft = self._open.enter_context(self.entry.draft())
        return self._draft

    def keep(self, facts: dict[str, Any]) -> tuple[Dataset, str]:
        """Makes the folder an entry of the cache.

        Args:
            facts: `rows`, `columns`, and whatever `found` is to give back.

        Returns:
            the rows, mapped from the disk, and their SHA-256.
        """
        assert self._draft is not None
        with (self._draft / _REFUSED).open("w", encoding="utf-8") as file:
            self.refused.seek(0)
            shutil.copyfileobj(self.refused, file)
        sources = [{"stamp": stamp, "sha256": _sha256(path)} for path, stamp in self._stamped()]
        unchanged = [_stamp(path) for path in self.files] == self._before
        self.entry.commit(self._draft, facts | {"sources": sources if sources and unchanged else None})
        return _rows(self.entry.folder, facts["columns"]), self.digest

    @property
    def digest(self) -> str:
        """The SHA-256 of the rows, once they are kept."""
        return self.entry.sha256(FILE)

    def _stamped(self) -> list[tuple[Path, list[int] | None]]:
        """Returns the files, each with its stamp if a later change would show in it."""
        return [(path, stamp if settled(stamp) else None) for path, stamp in zip(self.files, self._before, strict=True)]

    def found(self, quarantine: Quarantine) -> tuple[Dataset, dict[str, Any]] | None:
        """Returns the rows of an earlier reading, and what `keep` was given; ``None`` if there is no such entry.

        Args:
            quarantine: gets the rows that were refused then.
        """
        facts = self.entry.read()
        try:
            if facts is None or not self._same(facts):
                return None
            rows = _rows(self.entry.folder, facts["columns"])
            if len(rows) != facts["rows"]:
                return None
            with (self.entry.folder / _REFUSED).open(encoding="utf-8") as file:
                for line in file:
                    quarantine.add(Problem(**json.loads(line)))
        except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are ValueErrors
            return None
        return rows, facts

    def _same(self, facts: dict[str, Any]) -> bool:
        """Returns whether the files are those that the entry was made from."""
        then = facts["sources"]
        if not self.files or then is None or len(then) != len(self.files):
            return False
        stamped = self._stamped()
        doubtful = [at for at, (_, stamp) in enumerate(stamped) if stamp is None or stamp != then[at]["stamp"]]
        if any(_sha256(self.files[at]) != then[at]["sha256"] for at in doubtful):
            return False
        if any(stamped[at][1] is not None for at in doubtful):  # touched, not changed: the next time is quicker
            sources = [{"stamp": stamp, "sha256": old["sha256"]} for (_, stamp), old in zip(stamped, then, strict=True)]
            self.entry.amend(facts | {"sources": sources})
        return True


def _stamp(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError:  # whoever reads it will say so
        return _MISSING


def _sha256(path: Path) -> str:
    return str(describe(path)["sha256"])


def _rows(place: Path, columns: Sequence[str]) -> Dataset:
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    return Dataset.from_file(str(place / FILE)).select_columns(list(columns))
