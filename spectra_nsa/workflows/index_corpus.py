"""The documents and development queries of an index, from any source of texts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user
from spectra_nsa.text.beir import is_beir, load_beir
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.shared_columns import SharedColumns
from spectra_nsa.workflows.searcher import Documents

ID_COLUMNS = ("_id", "id", "name")
DISTINCT = 0.9  # share of distinct values from which such a column names documents
_TEXTS = {"pairs": "positive", "triplets": "positive", "scored": "sentence2"}
_ROLES = ("anchor", "positive", "negative", "text", "sentence1", "sentence2", "score", "label")


def read_documents(source: str, columns: SharedColumns) -> tuple[Documents, int]:
    """Reads the documents of a source: its texts, or the positives of pairs.

    Ids are the column `_id`, `id` or `name` if nearly all of its values are distinct, with a number behind the repeated
    ones (``name#2``); otherwise a digest of each text. All other columns become metadata, also those that the mapping
    gives another role, such as the anchors of pairs.

    Args:
        source: see `load_source`.
        columns: the mapping of its columns.

    Returns:
        the documents, and how many were left out because they have no id and their text came before.

    Raises:
        SpectraError: the source cannot be read.
    """
    rows = columns.load(source)
    column = _TEXTS.get(rows.kind, "text")
    texts = [str(text) for text in rows.dataset[column]]
    name = _id_column(rows)
    ids = [text_id(text) for text in texts] if name is None else _numbered(rows.dataset[name])
    first: dict[str, int] = {}
    for number, key in enumerate(ids):
        first.setdefault(key, number)
    keep = list(first.values())
    others = {c: c for c in rows.dataset.column_names if c != name and not c.startswith(_ROLES)}
    mapped = {role: other for role, other in columns.last.items() if role in rows.dataset.column_names}
    others |= {role: other for role, other in mapped.items() if role not in (column, name)}
    table: list[dict[str, Any]] = rows.dataset.select_columns(list(others)).to_list() if others else []
    metadata: list[Mapping[str, Any] | None] | None = None
    if others:
        metadata = [
            {others[key]: value for key, value in table[number].items() if value is not None} for number in keep
        ]
    documents = Documents(
        ids=[ids[number] for number in keep], texts=[texts[number] for number in keep], metadata=metadata
    )
    return documents, len(texts) - len(keep)


def text_id(text: str) -> str:
    """Returns the id of a document that has no other: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _id_column(rows: TextSet) -> str | None:
    for name in ID_COLUMNS:
        if name in rows.dataset.column_names:
            values = list(rows.dataset[name])
            if all(isinstance(value, str | int) and str(value) for value in values):
                return name if len(set(values)) >= DISTINCT * len(values) else None
    return None


def _numbered(names: Iterable[Any]) -> list[str]:
    """Returns names as ids: the second of a name is ``name#2``, and so on."""
    counts: Counter[str] = Counter()
    ids = []
    for name in map(str, names):
        counts[name] += 1
        ids.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return ids


def read_queries(
    source: str, columns: SharedColumns, ids_of: Mapping[str, str]
) -> tuple[list[str], list[dict[str, float]]]:
    """Reads development queries with their relevant documents.

    Args:
        source: a BEIR folder, whose judgments name documents by id; or pairs, whose positives are texts of the index.
        columns: the mapping of its columns.
        ids_of: the id of each text of the index.

    Returns:
        the queries, and for each id → grade.

    Raises:
        SpectraError: the source has no queries.
    """
    path = expand_user(source)
    if path.is_dir() and is_beir(path):
        judged = load_beir(path)
        queries = list(judged.queries)
        return [judged.queries[key] for key in queries], [
            {document: float(grade) for document, grade in judged.qrels[key].items()} for key in queries
        ]
    rows = columns.load(source)
    if rows.kind not in ("pairs", "triplets"):
        raise SpectraError(f"{source} has no queries: give a BEIR folder, or pairs of a question and its text.")
    relevant: dict[str, dict[str, float]] = {}
    for question, text in zip(rows.dataset["anchor"], rows.dataset["positive"], strict=True):
        grades = relevant.setdefault(question, {})
        if text in ids_of:
            grades[ids_of[text]] = 1.0
    return list(relevant), list(relevant.values())
