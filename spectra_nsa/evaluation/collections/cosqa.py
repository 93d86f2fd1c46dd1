"""CoSQA by two protocols, from local files in their public formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json
from spectra_nsa.evaluation.collections.hub_folder import load_folder
from spectra_nsa.evaluation.collections.protocols import size_notes
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.text.rows import RetrievalSet

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task

_NAME = "cosqa"
_SPLITS = ("test", "dev")


def cosqa_coir(folder: Path, notes: list[str], split: str | None = None) -> list[Task]:
    """Builds the protocol of CoIR and mteb: all 20,604 functions are candidates, copies of the answer included.

    Args:
        folder: a copy of the Hub dataset CoIR-Retrieval/cosqa, or a BEIR folder.
        notes: gets remarks on the data.
        split: the split of the judgments; ``None`` for test.

    Raises:
        SpectraError: see `load_collection`.
    """
    data = load_folder(folder, split)
    copies = len(data.corpus) - len(set(data.corpus.values()))
    notes.append(f"cosqa-coir: {counted(copies, 'candidate')} of {len(data.corpus):,} repeat another one")
    return [_task("cosqa-coir", data, notes)]


def cosqa_distinct(folder: Path, notes: list[str], split: str | None = None) -> list[Task]:
    """Builds the protocol of Huang et al. 2021: each distinct function is one candidate.

    Args:
        folder: CoCLR's `data/search` (`cosqa-retrieval-test-500.json` and `code_idx_map.txt`), a BEIR folder, or a copy
            of CoIR-Retrieval/cosqa, of which equal functions are merged.
        notes: gets remarks on the data.
        split: the split of the judgments; ``None`` for test, otherwise dev.

    Raises:
        SpectraError: a file is missing, or see `load_collection`.
    """
    data = _coclr(folder, split) if (folder / "code_idx_map.txt").is_file() else _distinct(load_folder(folder, split))
    return [_task("cosqa-distinct", data, notes)]


def _task(kind: str, data: RetrievalSet, notes: list[str]) -> Task:
    notes.extend(f"{kind}: {note}" for note in data.notes)
    notes.extend(size_notes(kind, _NAME, len(data.queries), len(data.corpus)))
    return RetrievalTask(data, kind=kind)


def _distinct(data: RetrievalSet) -> RetrievalSet:
    """Returns the set with one document for each text: the first of its ids, with the highest of their grades."""
    first: dict[str, str] = {}
    for document, text in data.corpus.items():
        first.setdefault(text, document)
    qrels: dict[str, dict[str, int]] = {}
    for query, judged in data.qrels.items():
        merged = qrels.setdefault(query, {})
        for document, grade in judged.items():
            kept = first[data.corpus[document]]
            merged[kept] = max(grade, merged.get(kept, grade))
    corpus = {document: text for text, document in first.items()}
    return RetrievalSet(name=data.name, corpus=corpus, queries=data.queries, qrels=qrels, split=data.split)


def _coclr(folder: Path, split: str | None) -> RetrievalSet:
    """Reads CoCLR's files: code → number, and rows with a query (`doc`) and the number of its function."""
    names = [split] if split else list(_SPLITS)
    path = next((path for name in names if (path := folder / f"cosqa-retrieval-{name}-500.json").is_file()), None)
    if path is None:
        wanted = " or ".join(f"cosqa-retrieval-{name}-500.json" for name in names)
        raise SpectraError(f"{folder} has no {wanted}.")
    codes, rows = read_json(folder / "code_idx_map.txt"), read_json(path)
    try:
        corpus = {f"d{int(number)}": str(code) for code, number in codes.items()}
        queries = {f"q{at}": str(row["doc"]) for at, row in enumerate(rows)}
        qrels = {f"q{at}": {f"d{int(row['retrieval_idx'])}": 1} for at, row in enumerate(rows)}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SpectraError(f"{path} and code_idx_map.txt are not in CoCLR's format: {error!r}.") from error
    unknown = [query for query, judged in qrels.items() if not judged.keys() <= corpus.keys()]
    if unknown:
        raise SpectraError(f"{path}: {counted(len(unknown), 'query')} name a function that code_idx_map.txt lacks.")
    return RetrievalSet(name=folder.resolve().name, corpus=corpus, queries=queries, qrels=qrels)
