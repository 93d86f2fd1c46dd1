"""One column mapping for several sources, of which only some have these columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.columns import NoSuchColumn, UnclearColumns
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.sources import load_source


class SharedColumns:
    """Reads several sources. The mapping applies to those that have all of its columns; the others use detection.

    Args:
        columns: role → column; ``None`` detects the roles everywhere.

    Attributes:
        quarantined: the number of quarantined rows of all sources so far.
        last: the mapping as it applied to the last source: all of it, or none.
    """

    def __init__(self, columns: Mapping[str, str] | None) -> None:
        self.columns = dict(columns or {})
        self.quarantined = 0
        self.last: dict[str, str] = {}
        self._applied = not self.columns
        self._mismatch: NoSuchColumn | None = None  # of the first source that lacks a mapped column

    def load(
        self, source: str | Path, *, split: str | None = None, limit: int | None = None, quarantine: Path | None = None
    ) -> TextSet:
        """Reads a source as `load_source` does, and counts its quarantined rows.

        Raises:
            SpectraError: as `load_source`. If the source lacks a mapped column and its own columns have no known
                names, the error is about the missing column.
        """
        rows = self._load(source, split=split, limit=limit, quarantine=quarantine)
        self.quarantined += rows.quarantined
        return rows

    def _load(self, source: str | Path, *, split: str | None, limit: int | None, quarantine: Path | None) -> TextSet:
        self.last = {}
        if not self.columns or str(source).startswith("python:"):  # its columns are fixed
            return load_source(source, split=split, limit=limit, quarantine=quarantine)
        try:
            rows = load_source(source, columns=self.columns, split=split, limit=limit, quarantine=quarantine)
        except NoSuchColumn as error:
            missing = error
        else:
            self._applied, self.last = True, self.columns
            return rows
        self._mismatch = self._mismatch or missing
        try:
            return load_source(source, split=split, limit=limit, quarantine=quarantine)
        except UnclearColumns:
            raise missing from None

    def check(self) -> None:
        """Checks that the mapping was used. Call it after the last source.

        Raises:
            SpectraError: the mapping matched no source.
        """
        if self._applied:
            return
        if self._mismatch is None:
            raise UsageError("--columns does not apply: none of the sources has columns to choose from. Leave it out.")
        raise SpectraError(f"--columns fits no source. {self._mismatch}")
