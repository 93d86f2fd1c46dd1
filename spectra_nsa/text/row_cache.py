"""The cache of checked rows: a large source is read and checked once, and memory-mapped afterwards.

A cache entry belongs to a source and the options it is read with (paths, columns, limit). It is valid while the files
of the source are unchanged: the same size, times and inode, or else the same SHA-256. It holds the rows, the
quarantined rows and the facts about both.
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
from spectra_nsa.text.row_store import FILE
from spectra_nsa.text.rows import Problem

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 7  # part of the key; increase it when a row is processed differently
ROWS = Cache("rows", keep=8)
_REFUSED = "refused.jsonl"
_SPOOL = 1_000_000  # characters of quarantined rows that stay in memory
_MISSING = [0, 0, 0, 0]


class RowCacheEntry:
    """A context around the reading of one source.

    Args:
        key: what the rows depend on besides the contents of the files, as JSON values.
        files: the files of the source. If they are unknown (empty), the entry is never reused.

    Attributes:
        refused: an open file for the quarantined rows.
    """

    def __init__(self, key: Sequence[Any], files: Sequence[Path]) -> None:
        self.entry = ROWS.entry(rules=RULES, source=json.loads(json.dumps(key, default=str)))
        self.files = list(files)
        self.refused: IO[str] = tempfile.SpooledTemporaryFile(_SPOOL, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._open = contextlib.ExitStack()
        self._draft: Path | None = None
        self._stamps = [_stamp(path) for path in self.files]

    def __enter__(self) -> RowCacheEntry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refused.close()
        self._open.__exit__(kind, error, trace)

    def draft_folder(self) -> Path:
        """Creates and returns the folder for the rows.

        Raises:
            SpectraError: it cannot be created.
        """
        self._draft = self._open.enter_context(self.entry.draft())
        return self._draft

    def commit(self, facts: dict[str, Any]) -> tuple[Dataset, str]:
        """Adds the folder to the cache.

        Args:
            facts: `rows`, `columns`, and anything else that `load` should return.

        Returns:
            the rows, memory-mapped, and their SHA-256.
        """
        assert self._draft is not None
        with (self._draft / _REFUSED).open("w", encoding="utf-8") as file:
            self.refused.seek(0)
            shutil.copyfileobj(self.refused, file)
        sources = [{"stamp": stamp, "sha256": _sha256(path)} for path, stamp in self._stamped()]
        unchanged = [_stamp(path) for path in self.files] == self._stamps
        self.entry.commit(self._draft, facts | {"sources": sources if sources and unchanged else None})
        return _rows(self.entry.folder, facts["columns"]), self.digest

    @property
    def digest(self) -> str:
        """The SHA-256 of the rows, once they are in the cache."""
        return self.entry.sha256(FILE)

    def _stamped(self) -> list[tuple[Path, list[int] | None]]:
        """Returns the files with their stamps; ``None`` if a later change might not change the stamp."""
        return [(path, stamp if settled(stamp) else None) for path, stamp in zip(self.files, self._stamps, strict=True)]

    def load(self, quarantine: Quarantine) -> tuple[Dataset, dict[str, Any]] | None:
        """Returns the cached rows and the facts passed to `commit`; ``None`` if there is no valid entry.

        Args:
            quarantine: receives the rows that were quarantined when the source was read.
        """
        facts = self.entry.read()
        try:
            if facts is None or not self._unchanged(facts):
                return None
            rows = _rows(self.entry.folder, facts["columns"])
            if len(rows) != facts["rows"]:
                return None
            with (self.entry.folder / _REFUSED).open(encoding="utf-8") as file:
                for line in file:
                    quarantine.add(Problem(**json.loads(line)))
        except (OSError, ValueError, LookupError, TypeError, RuntimeError):  # pyarrow's errors are among them
            return None
        return rows, facts

    def _unchanged(self, facts: dict[str, Any]) -> bool:
        """Returns whether the files are the ones the entry was made from."""
        recorded = facts["sources"]
        if not self.files or recorded is None or len(recorded) != len(self.files):
            return False
        stamped = self._stamped()
        doubtful = [i for i, (_, stamp) in enumerate(stamped) if stamp is None or stamp != recorded[i]["stamp"]]
        if any(_sha256(self.files[i]) != recorded[i]["sha256"] for i in doubtful):
            return False
        if any(stamped[i][1] is not None for i in doubtful):  # touched, not changed: store the new stamp
            pairs = zip(stamped, recorded, strict=True)
            sources = [{"stamp": stamp, "sha256": old["sha256"]} for (_, stamp), old in pairs]
            self.entry.amend(facts | {"sources": sources})
        return True


def _stamp(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError:  # the reader reports the error
        return _MISSING


def _sha256(path: Path) -> str:
    return str(describe(path)["sha256"])


def _rows(folder: Path, columns: Sequence[str]) -> Dataset:
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    return Dataset.from_file(str(folder / FILE)).select_columns(list(columns))
