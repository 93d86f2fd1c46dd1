"""CodeSearchNet by three protocols, from local files in their public formats.

A query is the docstring of a function, a candidate is the code of a function without its docstring. Both are the
published tokens, joined by spaces, so that the docstring cannot be found in the code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.collections.hub_folder import find_collections, load_collection
from spectra_nsa.evaluation.collections.protocols import size_notes
from spectra_nsa.evaluation.outcome import TaskOutcome, mean_differences
from spectra_nsa.evaluation.ranked import ranked_queries, ranking_figures, ranking_results
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.metrics.ranking import RANKING_METRICS
from spectra_nsa.text.readers.records import file_format, read_records
from spectra_nsa.text.rows import Problem, RetrievalSet

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.outcome import RankedQuery, Task
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

GROUP = 1_000  # candidates of a query in the original protocol
_DEPTH = 1_000
_BY_MRR = ("mrr", *(metric for metric in RANKING_METRICS if metric != "mrr"))
_COLUMNS = {  # ours → the name in CodeSearchNet's files, and in the Hub's table
    "query": ("docstring_tokens", "func_documentation_tokens"),
    "code": ("code_tokens", "func_code_tokens"),
    "url": ("url", "func_code_url"),
}


@dataclass(frozen=True, kw_only=True)
class Function:
    """One function: its docstring, its code, and the address that identifies it."""

    query: str
    code: str
    url: str


def csn_graphcodebert(folder: Path, notes: list[str]) -> list[Task]:
    """Builds the protocol of Guo et al. 2021: every cleaned dev and test function is a candidate.

    Args:
        folder: has `test.jsonl` and `codebase.jsonl`, or a subfolder for each language with these files, as
            GraphCodeBERT's preprocessing writes them.
        notes: gets remarks on the data.

    Raises:
        SpectraError: a file is missing or has no function.
    """
    kind = "csn-graphcodebert"
    folders = [part for part in (folder, *_subfolders(folder)) if _file(part, "codebase") and _file(part, "test")]
    if not folders:
        raise SpectraError(f"{folder}: {kind} needs test.jsonl and codebase.jsonl, here or in a folder per language.")
    tasks: list[Task] = []
    for part in folders:
        name = part.resolve().name
        queries, codes = (_functions([path], notes) for path in (_file(part, "test"), _file(part, "codebase")) if path)
        documents = {f"d{at}": function.code for at, function in enumerate(codes)}
        by_url: dict[str, list[str]] = {}
        for document, function in zip(documents, codes, strict=True):
            by_url.setdefault(function.url, []).append(document)
        known = [function for function in queries if function.query and function.url in by_url]
        if len(known) < len(queries):
            left = counted(len(queries) - len(known), "query")
            notes.append(f"{kind} on {name}: {left} without words or without a function in codebase.jsonl left out")
        data = RetrievalSet(
            name=name,
            corpus=documents,
            queries={f"q{at}": function.query for at, function in enumerate(known)},
            qrels={f"q{at}": dict.fromkeys(by_url[function.url], 1) for at, function in enumerate(known)},
        )
        notes.extend(size_notes(kind, name, len(known), len(documents)))
        tasks.append(RetrievalTask(data, kind=kind, metrics=_BY_MRR, depth=_DEPTH))
    return tasks


def csn_original(folder: Path, notes: list[str]) -> list[Task]:
    """Builds the protocol of Husain et al. 2019: each query has its function and 999 distractors as candidates.

    The pairs are shuffled with the seed of the original code and cut into groups of 1,000; the last, smaller group is
    dropped. As in the paper, docstrings search functions. (The original code ranks the docstrings for each function.)

    Args:
        folder: has the test files of one language, such as ``python_test_0.jsonl.gz`` or the Hub's
            ``test-00000-of-00001.parquet``, or a subfolder for each language that has them somewhere below.
        notes: gets remarks on the data.

    Raises:
        SpectraError: there are no such files.
    """
    kind = "csn-original-999"
    found = {part: files for part in _subfolders(folder) if (files := _test_files(part, nested=True))}
    if direct := _test_files(folder, nested=False):
        found = {folder: direct}
    if not found:
        raise SpectraError(f"{folder}: {kind} needs CodeSearchNet's test files, such as python_test_0.jsonl.gz.")
    tasks: list[Task] = []
    for part, files in found.items():
        pairs = [function for function in _functions(files, notes) if function.query and function.code]
        tasks.append(DistractorTask(part.resolve().name, pairs, kind=kind, notes=notes))
    return tasks


def csn_mteb(folder: Path, notes: list[str]) -> list[Task]:
    """Builds mteb's CodeSearchNetRetrieval: 1,000 queries among their 1,000 functions, in each language.

    Args:
        folder: a copy of the Hub dataset: ``python-corpus``, ``python-queries``, ``python-qrels``, and so on.
        notes: gets remarks on the data.

    Raises:
        SpectraError: see `load_collection`.
    """
    kind = "csn-mteb"
    tasks: list[Task] = []
    for one in find_collections(folder):
        data = load_collection(one)
        notes.extend(f"{kind} on {data.name}: {note}" for note in data.notes)
        notes.extend(size_notes(kind, data.name, len(data.queries), len(data.corpus)))
        tasks.append(RetrievalTask(data, kind=kind))
    return tasks


class DistractorTask:
    """Pairs in groups: each query ranks the functions of its own group, of which one is the answer."""

    def __init__(self, name: str, pairs: Sequence[Function], *, kind: str, notes: list[str], size: int = GROUP) -> None:
        """Initializes the task.

        Args:
            name: the language.
            pairs: docstrings with their functions.
            kind: the name of the protocol.
            notes: gets remarks on what is dropped.
            size: pairs per group; if there are fewer pairs, one group has all.

        Raises:
            SpectraError: there are fewer than two pairs.
        """
        import numpy as np

        if len(pairs) < 2:
            raise SpectraError(f"{kind} on {name} needs at least two functions with docstrings.")
        self.kind, self.name = kind, name
        order = np.arange(len(pairs))
        np.random.RandomState(0).shuffle(order)
        if len(pairs) < size:
            notes.append(f"{kind} on {name}: {len(pairs):,} pairs give only {len(pairs) - 1:,} distractors")
            size = len(pairs)
        groups = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        if dropped := len(pairs) - size * len(groups):
            notes.append(f"{kind} on {name}: the last group of {counted(dropped, 'pair')} is dropped")
        self._groups = [[pairs[at] for at in group] for group in groups]

    def run(self, system: System) -> TaskOutcome:
        """Ranks each group."""
        import numpy as np

        parts: list[dict[str, np.ndarray]] = []
        notes: dict[str, None] = {}
        ranked: list[RankedQuery] = []
        for number, group in enumerate(self._groups):
            queries = {f"q{number}-{at}": pair.query for at, pair in enumerate(group)}
            documents = {f"d{number}-{at}": pair.code for at, pair in enumerate(group)}
            qrels = {query: {document: 1} for query, document in zip(queries, documents, strict=True)}
            ranking = system.search(list(queries.values()), list(documents.values()), len(group))
            values, remarks = ranking_figures(
                system.name, ranking, list(queries), list(documents), qrels, metrics=_BY_MRR
            )
            parts.append(values)
            notes |= dict.fromkeys(remarks)
            ranked += ranked_queries(ranking, queries, documents, qrels)
        per_unit = {metric: np.concatenate([values[metric] for values in parts]) for metric in _BY_MRR}
        results = ranking_results(per_unit, kind=self.kind, name=self.name, system=system.name)
        return TaskOutcome(results=results, per_unit=per_unit, queries=ranked, notes=list(notes))

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares the metrics, paired over queries."""
        return mean_differences(a, b)


def _functions(files: Sequence[Path], notes: list[str]) -> list[Function]:
    functions, bad = [], 0
    for path in files:
        for item in read_records(path):
            values = None if isinstance(item, Problem) else _values(item.values)
            if values is None:
                bad += 1
            else:
                functions.append(Function(**values))
    if not functions:
        names = ", ".join(columns[0] for columns in _COLUMNS.values())
        raise SpectraError(f"{files[0]}: no row has CodeSearchNet's columns {names}.")
    if bad:
        notes.append(f"{files[0].parent.name}: {counted(bad, 'row')} without CodeSearchNet's columns left out")
    return functions


def _values(row: dict[str, Any]) -> dict[str, str] | None:
    """Returns the values of one function; ``None`` if a column is missing."""
    found: dict[str, str] = {}
    for name, columns in _COLUMNS.items():
        value = next((row[column] for column in columns if row.get(column) is not None), None)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if not isinstance(value, str):
            return None
        found[name] = value
    return found


def _subfolders(folder: Path) -> list[Path]:
    return sorted(part for part in folder.iterdir() if part.is_dir())


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for path in sorted(folder.glob(f"{stem}.jsonl*")) if file_format(path)), None)


def _test_files(folder: Path, *, nested: bool) -> list[Path]:
    """Returns the data files whose names say that they are of the test split."""
    search: Callable[[str], Any] = folder.rglob if nested else folder.glob
    paths = [path for path in search("*") if file_format(path) and "test" in path.name.split(".")[0].lower()]
    return sorted(paths, key=lambda path: (len(path.name), path.name))  # python_test_2 before python_test_10
