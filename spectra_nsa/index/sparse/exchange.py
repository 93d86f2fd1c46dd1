"""The neutral form of a sparse index, which other engines read: CSR rows, the vocabulary, and the documents.

rows.npz           the arrays data, indices, indptr, shape and format, as `scipy.sparse.save_npz` writes them
vocabulary.json    the list of the V terms, if it is known
records.jsonl      id, text and metadata of each row
"""

from __future__ import annotations

import json
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user, read_json
from spectra_nsa.index.records import Record

ROWS, VOCABULARY, RECORDS = "rows.npz", "vocabulary.json", "records.jsonl"


@dataclass(frozen=True, kw_only=True)
class SparseRows:
    """Sparse documents.

    Attributes:
        rows: CSR rows (N, V).
        vocabulary: the V terms; ``None`` if they are not known.
        records: id, text and metadata of each row; ``None`` if they are not known.
    """

    rows: Any
    vocabulary: Sequence[str] | None = None
    records: Sequence[Record] | None = None


def write_rows(folder: str | Path, content: SparseRows) -> None:
    """Writes sparse documents as a folder, complete or not at all.

    Raises:
        UsageError: the folder holds something else.
    """
    from scipy.sparse import save_npz

    path = expand_user(folder)
    check_replaceable(path, ROWS)
    with atomic_folder(path) as draft:
        save_npz(draft / ROWS, content.rows, compressed=False)
        if content.vocabulary is not None:
            (draft / VOCABULARY).write_text(json.dumps(list(content.vocabulary)), encoding="utf-8")
        if content.records is not None:
            with (draft / RECORDS).open("wb") as file:
                file.writelines(record.line() for record in content.records)


def read_rows(folder: str | Path) -> SparseRows:
    """Reads sparse documents that `write_rows` or another program wrote.

    Raises:
        SpectraError: a file is missing or damaged, or they do not belong together.
    """
    path = expand_user(folder)
    rows = _read_csr(path / ROWS)
    vocabulary = read_json(path / VOCABULARY) if (path / VOCABULARY).is_file() else None
    if vocabulary is not None and not (
        isinstance(vocabulary, list) and all(isinstance(term, str) for term in vocabulary)
    ):
        raise SpectraError(f"{path / VOCABULARY} is not a list of terms.")
    if vocabulary is not None and len(vocabulary) != rows.shape[1]:
        raise SpectraError(f"{path / VOCABULARY} has {len(vocabulary):,} terms, but the rows have {rows.shape[1]:,}.")
    records = _read_records(path / RECORDS) if (path / RECORDS).is_file() else None
    if records is not None and len(records) != rows.shape[0]:
        raise SpectraError(f"{path / RECORDS} has {len(records):,} lines, but there are {rows.shape[0]:,} rows.")
    return SparseRows(rows=rows, vocabulary=vocabulary, records=records)


def _read_csr(path: Path) -> Any:
    from scipy.sparse import csr_matrix

    try:
        with np.load(path, allow_pickle=False) as file:
            shape = tuple(int(size) for size in file["shape"])
            if file["format"].item() not in (b"csr", "csr") or len(shape) != 2 or max(shape) >= 2**31:
                raise SpectraError(f"{path} is not a matrix of CSR rows. Convert it with scipy: matrix.tocsr().")
            arrays = file["data"], file["indices"], file["indptr"]
        if any(array.ndim != 1 or array.dtype.kind not in "fiu" for array in arrays):
            raise ValueError("an array has the wrong type")
        matrix = csr_matrix(arrays, shape=shape)
        matrix.check_format(full_check=True)
    except SpectraError:
        raise
    except FileNotFoundError as error:
        raise SpectraError(f"{path} does not exist.") from error
    except (
        OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError,
        RecursionError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise SpectraError(
            f"{path} cannot be read as CSR rows ({(str(error).splitlines() or [''])[0][:100]})."
        ) from error
    return matrix


def _read_records(path: Path) -> list[Record]:
    records: list[Record] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SpectraError(f"{path}: cannot read the file ({error.strerror or error}).") from error
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                facts = json.loads(line)
                records.append(Record(id=str(facts["id"]), text=facts.get("text"), metadata=facts.get("metadata")))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise SpectraError(f"{path}, line {number}: not a record with an id.") from error
    return records
