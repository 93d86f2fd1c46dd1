"""One mapping of columns for several sources, of which only some have these columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.columns import NoSuchColumn, UnclearColumns
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.sources import load_source


class SharedColumns:
    """Reads sources: the mapping holds for those that have all of its columns, the others' columns are guessed.

    Args:
        columns: role → column; ``None`` guesses everywhere.
    """

    def __init__(self, columns: Mapping[str, str] | None) -> None:
        self.columns = dict(columns or {})
        self._fits = not self.columns
        self._first: NoSuchColumn | None = None  # why the first source that the mapping does not fit has it not

    def load(self, source: str | Path, *, limit: int | None = None) -> TextSet:
        """What `load_source` reads.

        Raises:
            SpectraError: as `load_source`; where neither the mapping fits nor names are known, the mapping's fault.
        """
        if not self.columns or str(source).startswith("python:"):  # whose columns are fixed
            return load_source(source, limit=limit)
        try:
            found = load_source(source, columns=self.columns, limit=limit)
        except NoSuchColumn as error:
            missing = error
        else:
            self._fits = True
            return found
        self._first = self._first or missing
        try:
            return load_source(source, limit=limit)
        except UnclearColumns:
            raise missing from None

    def check(self) -> None:
        """To be called when everything is read.

        Raises:
            SpectraError: the mapping fitted no source.
        """
        if self._fits:
            return
        if self._first is None:
            raise UsageError("--columns: no source here has columns to choose from; leave it out.")
        raise SpectraError(f"--columns fits no source. {self._first}")
