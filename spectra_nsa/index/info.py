"""What an index holds: documents, bytes, and how long its posting lists are, on which the time of a search depends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.index.collection import Index
from spectra_nsa.index.sparse.bm25 import BM25Segment
from spectra_nsa.index.sparse.index import read_vocabulary
from spectra_nsa.index.sparse.postings import Postings

QUANTILES = (0.5, 0.9, 0.99)


def index_info(index: Index) -> dict[str, Any]:
    """Returns the facts of an index as JSON values; deleted documents count in postings until it is compacted."""
    commit = index.commit
    facts: dict[str, Any] = {
        "kind": commit.kind,
        "documents": commit.documents,
        "deleted": sum(segment.deleted for segment in commit.segments),
        "segments": len(commit.segments),
        "bytes": sum(file["size"] for file in commit.files.values()),
        "parts": {name: _part_info(index, name) for name in index.parts},
    }
    return facts | {name: value for name, value in commit.facts.items() if value}


def _part_info(index: Index, name: str) -> dict[str, Any]:
    facts = index.parts[name].settings()
    if facts.pop("kind") == "vectors":
        return facts
    opened = [segment.parts[name] for segment in index.segments]
    if facts.get("mass"):
        facts["lost_share"] = facts["lost"] / facts["mass"]
    facts.pop("mass", None)
    facts.pop("lost", None)
    documents = sum(segment.facts.documents for segment in index.segments)
    lists = [segment for segment in opened if isinstance(segment, Postings)]
    if lists:
        lengths: NDArray[np.int64] = np.sum([segment.lengths() for segment in lists], axis=0)
        return facts | posting_facts(lengths, documents, read_vocabulary(index))
    counts: Counter[str] = Counter()
    for segment in opened:
        assert isinstance(segment, BM25Segment)
        counts.update(dict(zip(segment.words, segment.postings.lengths().tolist(), strict=True)))
    words = sorted(counts)
    return facts | posting_facts(np.array([counts[word] for word in words], dtype=np.int64), documents, words)


def posting_facts(lengths: NDArray[np.int64], documents: int, terms: Sequence[str] | None) -> dict[str, Any]:
    """Returns how many postings there are and how they are distributed.

    Args:
        lengths: of the list of each term.
        documents: number of documents.
        terms: their names; ``None`` if they are not known.
    """
    used = lengths[lengths > 0]
    if not len(used):
        return {"postings": 0, "terms": 0}
    longest = int(lengths.argmax())
    quantiles = np.quantile(used, QUANTILES).tolist()
    return {
        "postings": int(used.sum()),
        "terms": len(used),
        "per_document": float(used.sum()) / documents,
        "posting_length": {f"p{round(100 * q)}": value for q, value in zip(QUANTILES, quantiles, strict=True)}
        | {"max": int(used.max())},
        "highest_document_frequency": float(used.max()) / documents,
        "most_frequent_term": longest if terms is None else terms[longest],
    }
