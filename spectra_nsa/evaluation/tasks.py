"""The tasks of ``KIND=SOURCE`` specifications, as `--task` accepts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.knn import KNNTask
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.statistics import StatisticsTask
from spectra_nsa.evaluation.sts import STSTask
from spectra_nsa.text.rows import kind_name

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task
    from spectra_nsa.text.rows import TextSet

    Read = Callable[[str], TextSet]


def tasks_from(
    specifications: Sequence[str], *, limit: int | None = None, columns: Mapping[str, str] | None = None
) -> tuple[list[Task], list[str]]:
    """Builds the task of each ``KIND=SOURCE``.

    Args:
        specifications: ``sts=FILE``, ``retrieval=BEIR_DIR`` (or ``retrieval=BEIR_DIR:SPLIT``), ``pairs=SOURCE``,
            ``knn=TRAIN_FILE,TEST_FILE``, ``statistics=SOURCE``.
        limit: the largest number of rows per source; ``None`` reads all. Ignored for ``retrieval``.
        columns: role → column, for the sources that have all of these columns; ``None`` guesses the roles. Ignored for
            ``retrieval``.

    Returns:
        the tasks, and notes on skipped rows.

    Raises:
        UsageError: a kind is unknown, or a specification has no ``=``.
        SpectraError: a source is missing or not of the kind that the task needs, or `columns` fits no source.
    """
    from spectra_nsa.text.shared_columns import SharedColumns

    shared = SharedColumns(columns)
    read = partial(shared.load, limit=limit)
    tasks: list[Task] = []
    notes: list[str] = []
    for kind, source in check_tasks(specifications):
        tasks.append(_BUILDERS[kind](source, read, notes))
    shared.check()
    return tasks, notes


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
        if kind not in _BUILDERS:
            raise unknown_name("task", kind, _BUILDERS)
        if kind != "retrieval":  # a folder, which a split may follow
            for name in _knn_files(source) if kind == "knn" else [source]:
                check_source(name)
        checked.append((kind, source))
    return checked


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


_NEEDED = {
    "labelled": "labeled texts (columns text and label)",
    "pairs": "pairs (columns anchor and positive)",
    "scored": "scored pairs (columns sentence1, sentence2 and score)",
}


def _load(source: str, kinds: tuple[str, ...], task: str, read: Read, notes: list[str]) -> TextSet:
    data = read(source)
    if data.kind not in kinds:
        needed = " or ".join(_NEEDED[kind] for kind in kinds if kind in _NEEDED)
        raise SpectraError(
            f"{task}={source}: {task} needs {needed}, but these rows are {kind_name(data.kind)}, of the columns "
            f"{', '.join(data.dataset.column_names)}."
        )
    if data.quarantined:
        notes.append(f"{source}: {counted(data.quarantined, 'row')} quarantined (spectra data preview shows them)")
    notes.extend(f"{source}: {note}" for note in data.notes)
    return data


def _sts(source: str, read: Read, notes: list[str]) -> Task:
    rows = _load(source, ("scored",), "sts", read, notes).dataset
    return STSTask(source_name(source), rows["sentence1"][:], rows["sentence2"][:], rows["score"][:])


def _retrieval(source: str, read: Read, notes: list[str]) -> Task:
    from spectra_nsa.text.beir import load_beir

    folder, colon, split = source.rpartition(":")
    named = bool(colon) and not expand_user(source).is_dir()
    data = load_beir(expand_user(folder if named else source).resolve(), split if named else None)
    if data.missing:
        missing = counted(data.missing, "judgment")
        notes.append(f"{source}: {missing} dropped, because the query or document does not exist")
    if data.quarantined:
        first = data.problems[0]
        lines = counted(data.quarantined, "line")
        notes.append(f"{source}: {lines} quarantined, such as {Path(first.file).name}:{first.line}: {first.reason}")
    notes.extend(f"{source}: {note}" for note in data.notes)
    task = RetrievalTask(data)
    notes.extend(task.notes)
    return task


def _pairs(source: str, read: Read, notes: list[str]) -> Task:
    rows = _load(source, ("pairs", "triplets"), "pairs", read, notes).dataset
    return PairsTask(source_name(source), rows["anchor"][:], rows["positive"][:])


def _knn_files(source: str) -> tuple[str, str]:
    train, comma, test = source.partition(",")
    if not comma or not test:
        raise UsageError(f"knn needs two files: knn=TRAIN_FILE,TEST_FILE, not knn={source}.")
    return train, test


def _knn(source: str, read: Read, notes: list[str]) -> Task:
    train, test = _knn_files(source)
    sides = [_load(side, ("labelled",), "knn", read, notes).dataset for side in (train, test)]
    first, second = ((side["text"][:], side["label"][:]) for side in sides)
    return KNNTask(source_name(test), first, second)


def _statistics(source: str, read: Read, notes: list[str]) -> Task:
    kinds = ("texts", "labelled", "pairs", "triplets", "scored")
    data = _load(source, kinds, "statistics", read, notes)
    column = {"pairs": "anchor", "triplets": "anchor", "scored": "sentence1"}.get(data.kind, "text")
    partners = data.dataset["positive"][:] if column == "anchor" else None
    return StatisticsTask(source_name(source), data.dataset[column][:], partners=partners)


_BUILDERS: dict[str, Callable[[str, Read, list[str]], Any]] = {
    "sts": _sts,
    "retrieval": _retrieval,
    "pairs": _pairs,
    "knn": _knn,
    "statistics": _statistics,
}
TASK_KINDS = tuple(_BUILDERS)
