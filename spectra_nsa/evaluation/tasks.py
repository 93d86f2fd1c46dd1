"""The tasks of ``KIND=SOURCE`` specifications, as `--task` accepts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.evaluation.collections.builders import COLLECTIONS, check_collection
from spectra_nsa.evaluation.knn import KNNTask
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.performance import PerformanceTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.sources import ANY_TEXTS, Sources, source_name, split_of
from spectra_nsa.evaluation.sparse.sparsity import SparsityTask
from spectra_nsa.evaluation.sparse.token_importance import TokenImportanceTask
from spectra_nsa.evaluation.statistics import StatisticsTask
from spectra_nsa.evaluation.sts import STSTask
from spectra_nsa.text.shared_columns import SharedColumns

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task


def tasks_from(
    specifications: Sequence[str],
    *,
    limit: int | None = None,
    columns: Mapping[str, str] | SharedColumns | None = None,
) -> tuple[list[Task], list[str]]:
    """Builds the task of each ``KIND=SOURCE``.

    Args:
        specifications: such as ``sts=FILE``, ``retrieval=BEIR_DIR`` or ``knn=TRAIN_FILE,TEST_FILE``.
        limit: the largest number of rows per source; ``None`` reads all. Ignored for rankings of a whole
            corpus.
        columns: role → column, for the sources that have all of these columns; ``None`` guesses the roles. Ignored for
            BEIR folders. The caller checks a `SharedColumns`, which it may share with other sources.

    Returns:
        the tasks, and notes on skipped rows.

    Raises:
        UsageError: a kind is unknown, or a specification has no ``=``.
        SpectraError: a source is missing or not of the kind that the task needs, or `columns` fits no source.
    """
    sources = Sources(limit=limit, columns=columns)
    tasks = [task for kind, source in check_tasks(specifications) for task in TASKS[kind](source, sources)]
    if not isinstance(columns, SharedColumns):
        sources.check()
    return tasks, sources.notes


def check_tasks(specifications: Sequence[str]) -> list[tuple[str, str]]:
    """Returns kind and source of each ``KIND=SOURCE`` without reading any data.

    Raises:
        UsageError: a kind is unknown, or a specification has no ``=``.
        SpectraError: a source does not exist.
    """
    from spectra_nsa.text.sources import check_source

    checked = []
    for specification in specifications:
        kind, equals, source = specification.partition("=")
        if not equals or not source:
            raise UsageError(f"a task is KIND=SOURCE, such as sts=dev.jsonl, not {specification!r}.")
        if kind not in TASKS:
            raise unknown_name("task", kind, TASKS)
        if kind == "retrieval" or (kind in COLLECTIONS and kind != "custom"):
            check_collection(kind, source)
        elif not (kind in _FOLDERS and split_of(source)[0].is_dir()):
            for name in _knn_files(source) if kind == "knn" else [source]:
                check_source(name)
        checked.append((kind, source))
    return checked


def _sts(source: str, sources: Sources) -> list[Task]:
    rows = sources.rows(source, ("scored",), "sts").dataset
    return [STSTask(source_name(source), rows["sentence1"][:], rows["sentence2"][:], rows["score"][:])]


def _retrieval(source: str, sources: Sources) -> list[Task]:
    task = RetrievalTask(sources.retrieval(source))
    sources.notes.extend(task.notes)
    return [task]


def _pairs(source: str, sources: Sources) -> list[Task]:
    rows = sources.rows(source, ("pairs", "triplets"), "pairs").dataset
    return [PairsTask(source_name(source), rows["anchor"][:], rows["positive"][:])]


def _knn_files(source: str) -> tuple[str, str]:
    train, comma, test = source.partition(",")
    if not comma or not test:
        raise UsageError(f"knn needs two files: knn=TRAIN_FILE,TEST_FILE, not knn={source}.")
    return train, test


def _knn(source: str, sources: Sources) -> list[Task]:
    train, test = _knn_files(source)
    sides = [sources.rows(side, ("labelled",), "knn").dataset for side in (train, test)]
    first, second = ((side["text"][:], side["label"][:]) for side in sides)
    return [KNNTask(source_name(test), first, second)]


def _statistics(source: str, sources: Sources) -> list[Task]:
    data = sources.rows(source, ANY_TEXTS, "statistics")
    column = {"pairs": "anchor", "triplets": "anchor", "scored": "sentence1"}.get(data.kind, "text")
    partners = data.dataset["positive"][:] if column == "anchor" else None
    return [StatisticsTask(source_name(source), data.dataset[column][:], partners=partners)]


def _sparsity(source: str, sources: Sources) -> list[Task]:
    return [SparsityTask(sources.sides(source, "sparsity"))]


def _performance(source: str, sources: Sources) -> list[Task]:
    return [PerformanceTask(sources.sides(source, "performance"))]


def _token_importance(source: str, sources: Sources) -> list[Task]:
    return [TokenImportanceTask(sources.sides(source, "token-importance"))]


TASKS: dict[str, Callable[[str, Sources], list[Task]]] = {
    "sts": _sts,
    "retrieval": _retrieval,
    "pairs": _pairs,
    "knn": _knn,
    "statistics": _statistics,
    "sparsity": _sparsity,
    "performance": _performance,
    "token-importance": _token_importance,
    **COLLECTIONS,
}
TASK_KINDS = tuple(TASKS)
# Kinds whose source may be a folder that a split follows.
_FOLDERS = {"sparsity", "performance", "token-importance", "custom"}
