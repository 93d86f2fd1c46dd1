"""Teachers' vectors: computed once per text, cached on the disk, memory-mapped from there.

A cache entry belongs to a set of texts, a teacher's files, and the way it encodes. A new entry copies what others of
the same teacher hold, so a set of texts that grew costs only its new texts. Texts are identified by 64 bits of BLAKE2b
of the text and its prompt: among ten million texts, two collide with a probability of 3 in a million. Work that
was stopped resumes with the next part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.cache import Cache, Entry, cache_write
from spectra_nsa.core.console import progress
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.teacher import Teacher

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 3  # part of the key: raise it when the vectors of the same texts change
VECTORS = Cache("teachers", keep=16)  # of texts and of vocabularies
PART = 2_048  # texts that are encoded and stored together
_ROWS = 10_000  # rows that are Python strings at once
_VECTORS, _TEXTS = "vectors.f16", "texts.u64"


@dataclass(frozen=True)
class DistinctTexts:
    """The distinct texts of a table as one teacher encodes them, in the order of their digests.

    Attributes:
        digests: (N,) ascending.
        columns, rows: where each occurs first.
        lengths: in characters.
    """

    digests: NDArray[np.uint64]
    columns: NDArray[np.uint8]
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class _Reusable:
    """What another entry holds of a set of texts.

    Attributes:
        positions: of the texts in our set.
        source_positions: of their vectors in the other entry.
        vectors: of the other entry, (M, E) float16, memory-mapped.
    """

    positions: NDArray[np.int64]
    source_positions: NDArray[np.int64]
    vectors: NDArray[np.float16]


@dataclass(frozen=True)
class TeacherVectors:
    """A teacher's vectors, to be looked up by text.

    Attributes:
        digests: (N,) ascending.
        vectors: (N, E) float16, memory-mapped.
        encoding_keys: column → how its texts are encoded.
    """

    digests: NDArray[np.uint64]
    vectors: NDArray[np.float16]
    encoding_keys: Mapping[str, str]

    def of(self, texts: Sequence[str], column: str) -> NDArray[np.float32]:
        """Returns the vectors of texts of a column, (B, E) float32.

        Raises:
            SpectraError: a text without a vector.
        """
        digests = digests_of(texts, self.encoding_keys[column])
        return self.vectors[positions_of(digests, self.digests)].astype(np.float32)


def digests_of(texts: Sequence[str], encoding_key: str) -> NDArray[np.uint64]:
    """Returns 64 bits that identify each text and the way in which it is encoded."""
    key = hashlib.blake2b(encoding_key.encode()).digest()[:32]
    raw = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def positions_of(digests: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns the positions of digests among the known ones, which ascend.

    Raises:
        SpectraError: a digest is unknown.
    """
    positions = np.searchsorted(known, digests)
    if len(known) == 0 or (known[np.minimum(positions, len(known) - 1)] != digests).any():
        raise SpectraError(
            "a training text has no vector in the cache: the data changed while it was read. Start the run again."
        )
    return positions


def distinct_texts(rows: Dataset, encoding_keys: Mapping[str, str]) -> DistinctTexts:
    """Returns each text of the columns once for each way in which it is encoded."""
    chunks: list[tuple[Any, ...]] = []
    names = list(encoding_keys)
    start = 0
    for table in rows.select_columns(names).with_format("arrow").iter(_ROWS):
        for index, name in enumerate(names):
            texts = table.column(name).to_pylist()
            lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
            numbers = np.arange(start, start + len(texts))
            chunks.append(
                (digests_of(texts, encoding_keys[name]), np.full(len(texts), index, np.uint8), numbers, lengths)
            )
        start += len(table)
    digests, columns, numbers, lengths = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    distinct, first = np.unique(digests, return_index=True)
    return DistinctTexts(distinct, columns[first], numbers[first], lengths[first])


def teacher_vectors(teacher: Teacher, rows: Dataset, columns: Sequence[str]) -> TeacherVectors:
    """Returns the vectors of all texts of the rows, from the cache if possible.

    Raises:
        SpectraError: the disk is full, or a vector has NaN or infinity.
    """
    encoding_keys = {column: teacher.encoding_key(column) for column in columns}
    texts = distinct_texts(rows, encoding_keys)
    entry = _entry(teacher, texts)
    if (vectors := _mapped(entry, texts, teacher.width)) is None:
        _write(entry, teacher, texts, rows, list(columns))
        vectors = _mapped(entry, texts, teacher.width)
    assert vectors is not None
    return TeacherVectors(texts.digests, vectors, encoding_keys)


def plan_vectors(teacher: Teacher, rows: Dataset, columns: Sequence[str]) -> dict[str, Any]:
    """Returns what `teacher_vectors` would do: texts in all and still to encode, width, bytes on disk."""
    texts = distinct_texts(rows, {column: teacher.encoding_key(column) for column in columns})
    entry = _entry(teacher, texts)
    complete = _mapped(entry, texts, teacher.width) is not None
    reusable = [] if complete else _reusable(teacher, texts)
    todo = sum(len(part) for part in _parts(texts, reusable) if not (entry.parts / _file_name(texts, part)).is_file())
    return {
        "teacher": teacher.name,
        "width": teacher.width,
        "texts": len(texts.digests),
        "to_encode": 0 if complete else todo,
        "bytes": 2 * teacher.width * len(texts.digests),
    }


def _entry(teacher: Teacher, texts: DistinctTexts) -> Entry:
    digest = hashlib.sha256(texts.digests.astype("<u8").tobytes()).hexdigest()
    return VECTORS.entry(texts=digest, **_decisive(teacher))


def _decisive(teacher: Teacher) -> dict[str, Any]:
    """Returns what a vector depends on beside its text and prompt."""
    return {
        "rules": RULES,
        "model": teacher.checksum,
        "max_seq_length": teacher.model.max_seq_length,
        "precision": resolve_precision("auto"),
    }


def _reusable(teacher: Teacher, texts: DistinctTexts) -> list[_Reusable]:
    """Returns what other entries hold of these texts, each text once."""
    open_N, reusable = np.ones(len(texts.digests), dtype=bool), []
    for entry in VECTORS.entries():
        if (facts := entry.read(**_decisive(teacher))) is None:
            continue
        try:
            theirs = np.fromfile(entry.folder / _TEXTS, dtype="<u8").astype(np.uint64)
            vectors = _memory_map(entry, facts)
        except OSError:  # another process deletes it
            continue
        source = np.minimum(np.searchsorted(theirs, texts.digests), len(theirs) - 1)
        hit_N = open_N & (theirs[source] == texts.digests)
        if hit_N.any():
            reusable.append(_Reusable(np.flatnonzero(hit_N), source[hit_N], vectors))
            open_N &= ~hit_N
    return reusable


def _parts(texts: DistinctTexts, reusable: Sequence[_Reusable]) -> list[NDArray[np.int64]]:
    """Returns the positions of the texts to encode in parts, similar lengths together, the longest first."""
    open_N = np.ones(len(texts.digests), dtype=bool)
    for entry in reusable:
        open_N[entry.positions] = False
    order = np.lexsort((texts.digests, texts.lengths))[::-1]
    order = order[open_N[order]]
    return [order[start : start + PART] for start in range(0, len(order), PART)]


def _mapped(entry: Entry, texts: DistinctTexts, width: int) -> NDArray[np.float16] | None:
    """Returns the vectors of an earlier run; ``None`` if there are none, or they are damaged."""
    facts = entry.read(shape=[len(texts.digests), width])
    return None if facts is None else _memory_map(entry, facts)


def _memory_map(entry: Entry, facts: Mapping[str, Any]) -> NDArray[np.float16]:
    return np.memmap(entry.folder / _VECTORS, dtype=np.float16, mode="r", shape=tuple(facts["shape"]))


def _file_name(texts: DistinctTexts, part: NDArray[np.int64]) -> str:
    """Returns the file name of a part, from its texts: which texts are left may differ when the work resumes."""
    return f"{hashlib.sha256(texts.digests[part].tobytes()).hexdigest()[:32]}.npy"


def _write(entry: Entry, teacher: Teacher, texts: DistinctTexts, rows: Dataset, columns: list[str]) -> None:
    reusable, parts = _reusable(teacher, texts), entry.parts
    todo = _parts(texts, reusable)
    for part in progress(todo, label=f"{teacher.name}: {counted(sum(map(len, todo)), 'text')}"):
        if not (parts / _file_name(texts, part)).is_file():
            encoded_PE = _encode(teacher, texts, part, rows, columns)
            with cache_write(parts / _file_name(texts, part)) as file:
                np.save(file, encoded_PE)
    with entry.draft() as draft:
        shape = (len(texts.digests), teacher.width)
        vectors = np.memmap(draft / _VECTORS, dtype=np.float16, mode="w+", shape=shape)
        for other in reusable:
            vectors[other.positions] = other.vectors[other.source_positions]
        for part in todo:
            try:
                vectors[part] = np.load(parts / _file_name(texts, part))
            except FileNotFoundError:
                if entry.read() is None:
                    raise
                return  # another run has just committed the same entry, which deletes the parts
        vectors.flush()
        texts.digests.astype("<u8").tofile(draft / _TEXTS)
        entry.commit(draft, {"shape": list(shape), "teacher": teacher.name, **_decisive(teacher)})


def _encode(
    teacher: Teacher, texts: DistinctTexts, positions: NDArray[np.int64], rows: Dataset, columns: list[str]
) -> NDArray[np.float16]:
    """Returns the vectors of the texts at these positions, in their order."""
    vectors = np.zeros((len(positions), teacher.width), dtype=np.float16)
    for index, column in enumerate(columns):
        members = np.flatnonzero(texts.columns[positions] == index)
        if len(members):
            values = rows.select_columns([column]).select(texts.rows[positions[members]])[column]
            vectors[members] = teacher.encode(list(values), column, "auto")
    check_finite(vectors, f"the teacher {teacher.name}")
    return vectors
