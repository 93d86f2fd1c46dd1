"""The texts of a corpus, row by row: memory-mapped if there are many."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.checksums import texts_sha256
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.shared_columns import SharedColumns
from spectra_nsa.workflows.corpus.job import CorpusJob

_ROLES = {"pairs": "positive", "triplets": "positive"}  # the column with documents; `text` of other kinds
_ID_COLUMNS = ("id", "_id", "name")
_BLOCK = 10_000


@dataclass(frozen=True)
class CorpusTexts:
    """Texts and what is kept of their rows.

    Attributes:
        dataset: the rows of the source.
        column: the texts.
        keep: the columns that are kept beside the vectors: name → column.
        chosen: the rows of the dataset that count; ``None`` for all.
        digest: the SHA-256 of the texts.
        quarantined: rows of the source that were dropped.
    """

    dataset: Any
    column: str
    keep: Mapping[str, str]
    chosen: NDArray[np.int64] | None
    digest: str
    quarantined: int

    def __len__(self) -> int:
        return len(self.dataset) if self.chosen is None else len(self.chosen)

    def rows(self, wanted: range) -> tuple[list[str], list[dict[str, Any]]]:
        """Returns the texts of rows, and what is kept of each; an empty list if nothing is."""
        rows: Any = wanted if self.chosen is None else self.chosen[wanted.start : wanted.stop]
        part = self.dataset.select(rows)
        columns = {name: list(part[column]) for name, column in self.keep.items()}
        records = [
            {name: str(value) if name == "id" else value for name, value in zip(columns, values, strict=True)}
            for values in zip(*columns.values(), strict=True)
        ]
        return list(part[self.column]), records


def load_texts(source: str, columns: Mapping[str, str] | None, *, keep_text: bool) -> CorpusTexts:
    """Reads the texts of a source: its `text` column, or each distinct positive of pairs once.

    Args:
        source: as `load_source` reads it; a large one is copied to the cache, checked, and memory-mapped.
        columns: role → column; ``None`` detects the roles.
        keep_text: whether texts are kept beside the vectors.

    Raises:
        SpectraError: the source has no texts.
    """
    mapping = SharedColumns(columns)
    loaded = mapping.load(source)
    mapping.check()
    if loaded.kind == "scored":
        raise SpectraError(f"{source} has scored pairs, not documents. Name a column: --columns text=sentence1.")
    column = _ROLES.get(loaded.kind, "text")
    found = next((name for name in _ID_COLUMNS if name in loaded.dataset.column_names), None)
    keep = {} if found is None else {"id": found}
    return CorpusTexts(
        dataset=loaded.dataset,
        column=column,
        keep=keep | ({"text": column} if keep_text else {}),
        chosen=_first_occurrences(loaded.dataset, column) if loaded.kind in _ROLES else None,
        digest=loaded.digest or texts_sha256(loaded.dataset[column]),
        quarantined=loaded.quarantined,
    )


def open_texts(job: CorpusJob) -> CorpusTexts:
    """Reads the texts of a plan.

    Raises:
        SpectraError: they have changed since the plan was made.
    """
    texts = load_texts(job.source, job.columns or None, keep_text=job.keep_text)
    if (len(texts), texts.digest) != (job.rows, job.digest):
        raise SpectraError(
            f"{job.source} has changed since the first shard was encoded. Restore it, or encode into another folder."
        )
    return texts


def _first_occurrences(dataset: Any, column: str) -> NDArray[np.int64]:
    """Returns the rows with a text that no earlier row has."""
    seen: set[bytes] = set()
    rows = []
    for start in range(0, len(dataset), _BLOCK):
        for row, text in enumerate(dataset[start : start + _BLOCK][column], start=start):
            key = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if key not in seen:
                seen.add(key)
                rows.append(row)
    return np.array(rows, dtype=np.int64)
