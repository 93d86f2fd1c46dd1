"""Teachers' vectors: computed once per text, kept on the disk, mapped from there.

An entry belongs to a set of texts, a teacher's files, and the way it encodes; a new one takes over what other entries
of the same teacher hold, so that a set of texts that grew costs its new texts only. Texts are known by 64 bits of
BLAKE2b of the text and its prompt: of ten million, two share them with a probability of 3 in a million. Work that was
stopped goes on with the next part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.cache import Cache, Entry, cannot_keep
from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.models.teacher import Teacher

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 2  # part of the key: raise it when the vectors of the same texts change
VECTORS = Cache("teachers", keep=16)  # of texts and of vocabularies
PART = 2_048  # texts that are encoded, and kept, together
_AT_A_TIME = 10_000  # rows that are Python strings at once
_VECTORS, _TEXTS = "vectors.f16", "texts.u64"


@dataclass(frozen=True)
class Texts:
    """The distinct texts of a table as one teacher encodes them, in the order of their digests.

    Attributes:
        digests: (N,) ascending.
        columns, rows: where each stands first.
        lengths: in characters.
    """

    digests: NDArray[np.uint64]
    columns: NDArray[np.uint8]
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class _Known:
    """What another entry holds.

    Attributes:
        places: of the texts among ours.
        at: their places there.
        vectors: there, (M, E) float16, mapped.
    """

    places: NDArray[np.int64]
    at: NDArray[np.int64]
    vectors: NDArray[np.float16]


@dataclass(frozen=True)
class Vectors:
    """A teacher's vectors, to be looked up by text.

    Attributes:
        digests: (N,) ascending.
        vectors: (N, E) float16, mapped.
        manners: column → how its texts are encoded.
    """

    digests: NDArray[np.uint64]
    vectors: NDArray[np.float16]
    manners: Mapping[str, str]

    def of(self, texts: Sequence[str], column: str) -> NDArray[np.float32]:
        """(B, E) float32: the vectors of texts of a column.

        Raises:
            SpectraError: a text that the teacher was not given.
        """
        wanted = digests_of(texts, self.manners[column])
        return self.vectors[places_of(wanted, self.digests)].astype(np.float32)


def digests_of(texts: Sequence[str], manner: str) -> NDArray[np.uint64]:
    """64 bits that stand for each text, encoded in a manner."""
    key = hashlib.blake2b(manner.encode()).digest()[:32]
    raw = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=key).digest() for text in texts)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def places_of(wanted: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where the digests stand among the known ones, which ascend.

    Raises:
        SpectraError: one of them does not.
    """
    places = np.searchsorted(known, wanted)
    if len(known) == 0 or (known[np.minimum(places, len(known) - 1)] != wanted).any():
        raise SpectraError("a training text has no entry in the cache: the data changed while it was read. Start anew.")
    return places


def distinct_texts(rows: Dataset, manners: Mapping[str, str]) -> Texts:
    """Each text of the named columns once, as far as it is encoded in one manner."""
    found: list[tuple[Any, ...]] = []
    names = list(manners)
    start = 0
    for table in rows.select_columns(names).with_format("arrow").iter(_AT_A_TIME):
        for place, name in enumerate(names):
            texts = table.column(name).to_pylist()
            lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
            here = np.arange(start, start + len(texts))
            found.append((digests_of(texts, manners[name]), np.full(len(texts), place, np.uint8), here, lengths))
        start += len(table)
    digests, columns, at, lengths = (np.concatenate(parts) for parts in zip(*found, strict=True))
    once, first = np.unique(digests, return_index=True)
    return Texts(once, columns[first], at[first], lengths[first])


def teacher_vectors(teacher: Teacher, rows: Dataset, columns: Sequence[str]) -> Vectors:
    """The vectors of all texts of the rows, from the cache where they are there.

    Raises:
        SpectraError: there is no room for them, or the teacher gives numbers that are none.
    """
    manners = {column: teacher.manner(column) for column in columns}
    texts = distinct_texts(rows, manners)
    entry = _entry(teacher, texts)
    if (vectors := _mapped(entry, texts, teacher.width)) is None:
        _write(entry, teacher, texts, rows, list(columns))
        vectors = _mapped(entry, texts, teacher.width)
    assert vectors is not None
    return Vectors(texts.digests, vectors, manners)


def planned(teacher: Teacher, rows: Dataset, columns: Sequence[str]) -> dict[str, Any]:
    """Returns what `teacher_vectors` would do: texts in all and still to encode, width, bytes on the disk."""
    texts = distinct_texts(rows, {column: teacher.manner(column) for column in columns})
    entry = _entry(teacher, texts)
    complete = _mapped(entry, texts, teacher.width) is not None
    known = [] if complete else _known(teacher, texts)
    todo = sum(len(part) for part in _in_parts(texts, known) if not (entry.parts / _name(texts, part)).is_file())
    return {
        "teacher": teacher.name,
        "width": teacher.width,
        "texts": len(texts.digests),
        "to_encode": 0 if complete else todo,
        "bytes": 2 * teacher.width * len(texts.digests),
    }


def _entry(teacher: Teacher, texts: Texts) -> Entry:
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


def _known(teacher: Teacher, texts: Texts) -> list[_Known]:
    """Returns what other entries hold of these texts, each text once."""
    open_N, found = np.ones(len(texts.digests), dtype=bool), []
    for entry in VECTORS.entries():
        if (facts := entry.read(**_decisive(teacher))) is None:
            continue
        try:
            theirs = np.fromfile(entry.folder / _TEXTS, dtype="<u8").astype(np.uint64)
            vectors = _memory_map(entry, facts)
        except OSError:  # another process deletes it
            continue
        at = np.minimum(np.searchsorted(theirs, texts.digests), len(theirs) - 1)
        hit_N = open_N & (theirs[at] == texts.digests)
        if hit_N.any():
            found.append(_Known(np.flatnonzero(hit_N), at[hit_N], vectors))
            open_N &= ~hit_N
    return found


def _in_parts(texts: Texts, known: Sequence[_Known]) -> list[NDArray[np.int64]]:
    """The places of the texts that are to be encoded, like lengths together, the longest first."""
    open_N = np.ones(len(texts.digests), dtype=bool)
    for one in known:
        open_N[one.places] = False
    order = np.lexsort((texts.digests, texts.lengths))[::-1]
    order = order[open_N[order]]
    return [order[start : start + PART] for start in range(0, len(order), PART)]


def _mapped(entry: Entry, texts: Texts, width: int) -> NDArray[np.float16] | None:
    """Returns the vectors of an earlier run; ``None`` if there are none, or they are damaged."""
    facts = entry.read(shape=[len(texts.digests), width])
    return None if facts is None else _memory_map(entry, facts)


def _memory_map(entry: Entry, facts: Mapping[str, Any]) -> NDArray[np.float16]:
    return np.memmap(entry.folder / _VECTORS, dtype=np.float16, mode="r", shape=tuple(facts["shape"]))


def _name(texts: Texts, part: NDArray[np.int64]) -> str:
    """The file of a part: by its texts, since what is known, and so what is left, may change before it goes on."""
    return f"{hashlib.sha256(texts.digests[part].tobytes()).hexdigest()[:32]}.npy"


def _write(entry: Entry, teacher: Teacher, texts: Texts, rows: Dataset, columns: list[str]) -> None:
    known, parts = _known(teacher, texts), entry.parts
    todo = _in_parts(texts, known)
    for part in progress(todo, label=f"{teacher.name}: {sum(map(len, todo)):,} texts"):
        if not (parts / _name(texts, part)).is_file():
            found = _encoded(teacher, texts, part, rows, columns)
            try:
                with atomic_write(parts / _name(texts, part), "wb") as file:
                    np.save(file, found)
            except OSError as error:
                raise cannot_keep(parts, error) from error
    with entry.draft() as draft:
        shape = (len(texts.digests), teacher.width)
        vectors = np.memmap(draft / _VECTORS, dtype=np.float16, mode="w+", shape=shape)
        for one in known:
            vectors[one.places] = one.vectors[one.at]
        for part in todo:
            vectors[part] = np.load(parts / _name(texts, part))
        vectors.flush()
        texts.digests.astype("<u8").tofile(draft / _TEXTS)
        entry.commit(draft, {"shape": list(shape), "teacher": teacher.name, **_decisive(teacher)})


def _encoded(
    teacher: Teacher, texts: Texts, which: NDArray[np.int64], rows: Dataset, columns: list[str]
) -> NDArray[np.float16]:
    """The vectors of some of the texts, in their order."""
    found = np.zeros((len(which), teacher.width), dtype=np.float16)
    for place, column in enumerate(columns):
        here = np.flatnonzero(texts.columns[which] == place)
        if len(here):
            own = rows.select_columns([column]).select(texts.rows[which[here]])[column]
            found[here] = teacher.encode(list(own), column, "auto")
    if not np.isfinite(found).all():
        raise SpectraError(f"the teacher {teacher.name} gives vectors with NaN or infinity: nothing is learnt from it.")
    return found
