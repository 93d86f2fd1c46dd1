"""Where tasks read their texts: rows of a kind, BEIR folders, or queries and documents of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.collections.hub_folder import is_collection, load_folder
from spectra_nsa.text.beir import is_beir, load_beir
from spectra_nsa.text.rows import kind_name
from spectra_nsa.text.shared_columns import SharedColumns

if TYPE_CHECKING:
    from spectra_nsa.text.rows import RetrievalSet, TextSet

_NEEDED = {
    "labelled": "labeled texts (columns text and label)",
    "pairs": "pairs (columns anchor and positive)",
    "scored": "scored pairs (columns sentence1, sentence2 and score)",
}
ANY_TEXTS = ("texts", "labelled", "pairs", "triplets", "scored")


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Distinct queries and documents, in the order of their first occurrence; the same texts if there is one kind."""

    name: str
    queries: Sequence[str]
    documents: Sequence[str]


class Sources:
    """Reads the sources of tasks.

    Attributes:
        limit: the largest number of rows per source; ``None`` reads all.
        notes: remarks on what was skipped, from all sources read so far.
    """

    def __init__(self, *, limit: int | None = None, columns: Mapping[str, str] | SharedColumns | None = None) -> None:
        """Initializes the reader.

        Args:
            limit: see above.
            columns: role → column, for the sources that have all of these columns; ``None`` guesses the roles. A
                `SharedColumns` is shared with other readers.
        """
        self.limit = limit
        self.notes: list[str] = []
        self._shared = columns if isinstance(columns, SharedColumns) else SharedColumns(columns)

    def rows(self, source: str, kinds: Sequence[str], task: str) -> TextSet:
        """Reads rows of one of some kinds.

        Raises:
            SpectraError: the source is missing, or its rows are of another kind.
        """
        data = self._shared.load(source, limit=self.limit)
        if data.kind not in kinds:
            needed = " or ".join(_NEEDED[kind] for kind in kinds if kind in _NEEDED)
            raise SpectraError(
                f"{task}={source}: {task} needs {needed}, but these rows are {kind_name(data.kind)}, of the columns "
                f"{', '.join(data.dataset.column_names)}."
            )
        if data.quarantined:
            rows = counted(data.quarantined, "row")
            self.notes.append(f"{source}: {rows} quarantined (spectra data preview shows them)")
        self.notes.extend(f"{source}: {note}" for note in data.notes)
        return data

    def retrieval(self, source: str) -> RetrievalSet:
        """Reads a retrieval set, ``DIR`` or ``DIR:SPLIT``, in BEIR's layout or another one of `hub_folder`.

        Raises:
            SpectraError: see `load_beir` and `load_collection`.
        """
        folder, split = split_of(source)
        load = load_folder if is_collection(folder) and not is_beir(folder) else load_beir
        return self.noted(load(folder.resolve(), split), source)

    def noted(self, data: RetrievalSet, source: str) -> RetrievalSet:
        """Adds notes on what is missing in a retrieval set, and returns it."""
        if data.missing:
            missing = counted(data.missing, "judgment")
            self.notes.append(f"{source}: {missing} dropped, because the query or document does not exist")
        if data.quarantined:
            first = data.problems[0]
            lines = counted(data.quarantined, "line")
            where = f"{Path(first.file).name}:{first.line}: {first.reason}"
            self.notes.append(f"{source}: {lines} quarantined, such as {where}")
        self.notes.extend(f"{source}: {note}" for note in data.notes)
        return data

    def sides(self, source: str, task: str) -> Sides:
        """Reads the queries and documents of a retrieval set, of pairs, or of texts, which are then both.

        Raises:
            SpectraError: the source is missing or empty.
        """
        folder, split = split_of(source)
        if is_collection(folder):
            data = self.noted(load_folder(folder, split), source)
            name, queries, documents = data.name, list(data.queries.values()), list(data.corpus.values())
        else:
            rows = self.rows(source, ANY_TEXTS, task)
            left, right = {
                "pairs": ("anchor", "positive"),
                "triplets": ("anchor", "positive"),
                "scored": ("sentence1", "sentence2"),
            }.get(rows.kind, ("text", "text"))
            name, queries, documents = source_name(source), rows.dataset[left][:], rows.dataset[right][:]
        sides = [list(dict.fromkeys(text for text in side if text))[: self.limit] for side in (queries, documents)]
        if not all(sides):
            raise SpectraError(f"{task}={source}: there are no texts.")
        return Sides(name=name, queries=sides[0], documents=sides[1])

    def check(self) -> None:
        """Checks that the columns were used. Call it after the last source.

        Raises:
            SpectraError: they fit no source.
        """
        self._shared.check()


def split_of(source: str) -> tuple[Path, str | None]:
    """Returns folder and split of ``DIR`` or ``DIR:SPLIT``."""
    folder, colon, split = source.rpartition(":")
    named = bool(colon) and not expand_user(source).is_dir()
    return expand_user(folder if named else source), split if named else None


def source_name(source: str) -> str:
    """Returns a short name for a source: a folder's name, or a file's without suffixes, after its folder if written."""
    path = Path(source)
    if not expand_user(path).exists():
        return source
    if expand_user(path).is_dir():
        return expand_user(path).resolve().name
    folder = path.resolve().parent.name if path.parent.name == ".." else path.parent.name
    name = path.name.split(".")[0]
    return name if folder in ("", "~") else f"{folder}/{name}"
