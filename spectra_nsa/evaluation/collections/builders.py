"""The tasks on public collections: ``beir=``, ``nanobeir=``, ``custom=`` and the protocols."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.collections.code_search_net import csn_graphcodebert, csn_mteb, csn_original
from spectra_nsa.evaluation.collections.cosqa import cosqa_coir, cosqa_distinct
from spectra_nsa.evaluation.collections.hub_folder import (
    choose,
    find_collections,
    is_collection,
    load_collection,
)
from spectra_nsa.evaluation.collections.mean import MeanTask
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.sources import Sources, source_name, split_of
from spectra_nsa.text.rows import RetrievalSet

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task

NANOBEIR = "sentence-transformers/NanoBEIR-en"
Build = Callable[[str, Sources], "list[Task]"]


def beir(source: str, sources: Sources) -> list[Task]:
    """Builds BEIR tasks of ``DIR`` (one set, or one in each subfolder), ``DIR:SPLIT``, or names of mteb's tasks.

    Raises:
        SpectraError: a set cannot be read, or mteb, which loads those that are not local, is not installed.
    """
    folder, split = split_of(source)
    if folder.is_dir():
        return _retrieval("beir", [load_collection(one, split) for one in find_collections(folder)], source, sources)
    return _retrieval("beir", [_from_mteb(name) for name in source.split(",")], source, sources)


def nanobeir(source: str, sources: Sources) -> list[Task]:
    """Builds the sets of a NanoBEIR collection, and their mean.

    Args:
        source: ``DIR`` or ``DIR:SET,SET``; ``all`` or ``SET,SET`` for those of the Hub's English NanoBEIR; or
            ``ORG/NAME`` or ``ORG/NAME:SET,SET`` for another collection of the Hub.
        sources: gets remarks on the data.

    Raises:
        SpectraError: a set cannot be read.
        UsageError: a set is unknown.
    """
    folder, names = split_of(source)
    if folder.is_dir():
        data = [load_collection(one) for one in choose(find_collections(folder), names)]
    else:
        dataset, _, names = source.rpartition(":") if ":" in source else ("", "", source)
        if "/" in names:
            dataset, names = names, "all"
        data = _from_hub(dataset or NANOBEIR, None if names in ("all", "") else names.split(","))
    return _retrieval("nanobeir", data, source, sources)


def custom(source: str, sources: Sources) -> list[Task]:
    """Builds a ranking of any pairs, or of any folder with corpus, queries and judgments.

    Raises:
        SpectraError: the source is missing or neither of them.
    """
    folder, split = split_of(source)
    if is_collection(folder):
        data = [load_collection(one, split) for one in find_collections(folder)]
        return _retrieval("custom", data, source, sources)
    rows = sources.rows(source, ("pairs", "triplets"), "custom").dataset
    return [PairsTask(source_name(source), rows["anchor"][:], rows["positive"][:], kind="custom")]


def _protocol(build: Callable[[Path, list[str]], list[Task]]) -> Build:
    return lambda source, sources: build(expand_user(source), sources.notes)


def _split_protocol(build: Callable[[Path, list[str], str | None], list[Task]]) -> Build:
    def built(source: str, sources: Sources) -> list[Task]:
        folder, split = split_of(source)
        return build(folder, sources.notes, split)

    return built


COLLECTIONS: dict[str, Build] = {
    "beir": beir,
    "nanobeir": nanobeir,
    "custom": custom,
    "csn-graphcodebert": _protocol(csn_graphcodebert),
    "csn-original-999": _protocol(csn_original),
    "csn-mteb": _protocol(csn_mteb),
    "cosqa-coir": _split_protocol(cosqa_coir),
    "cosqa-distinct": _split_protocol(cosqa_distinct),
}
_NAMED = ("beir", "nanobeir")  # kinds that also take names from the Hub


def check_collection(kind: str, source: str) -> None:
    """Checks that the source of a collection exists, without reading it or contacting the Hub.

    Raises:
        SpectraError: it is a path that does not exist.
    """
    folder, _ = split_of(source)
    if folder.is_dir():
        return
    if kind not in _NAMED or folder.exists() or source.startswith((".", "/", "~")):
        raise SpectraError(f"{kind}={source}: {folder} is not a folder. Give the folder of the collection.")
    if any(not part.strip() for part in source.replace(":", ",").split(",")):
        raise UsageError(f"{kind}={source}: a name is empty.")


def _retrieval(kind: str, data: list[RetrievalSet], source: str, sources: Sources) -> list[Task]:
    tasks = []
    for one in data:
        task = RetrievalTask(sources.noted(one, f"{source} · {one.name}"), kind=kind)
        sources.notes.extend(task.notes)
        tasks.append(task)
    return [*tasks, MeanTask(kind, tasks)] if len(tasks) > 1 else list(tasks)


def _from_hub(dataset: str, names: list[str] | None) -> list[RetrievalSet]:
    """Loads NanoBEIR's sets with sentence-transformers' evaluator, which knows their layout."""
    from sentence_transformers.sparse_encoder.evaluation import SparseNanoBEIREvaluator

    try:
        evaluators = SparseNanoBEIREvaluator(dataset_names=names, dataset_id=dataset).evaluators
    except ValueError as error:
        raise SpectraError(
            f"nanobeir: {error} Without access to the Hub, give the folder of a local copy: nanobeir=DIR."
        ) from error
    return [
        RetrievalSet(
            name=one.name,
            corpus={name: str(text) for name, text in zip(one.corpus_ids, one.corpus, strict=True)},
            queries={name: str(text) for name, text in zip(one.queries_ids, one.queries, strict=True)},
            qrels={query: dict.fromkeys(one.relevant_docs[query], 1) for query in one.queries_ids},
        )
        for one in evaluators
    ]


def _from_mteb(name: str) -> RetrievalSet:
    """Loads a retrieval task of mteb by its name, such as ``SciFact``."""
    try:
        import mteb
    except ImportError as error:
        raise missing_extra("mteb", "test") from error
    try:
        task: Any = mteb.get_task(name)
        task.load_data()
        split = next(iter(task.dataset["default"].values()))
    except Exception as error:  # of mteb, of datasets, or of the network
        raise SpectraError(
            f"beir={name}: there is no such folder, and mteb cannot load a task of this name ({error!r}). "
            "Give the folder of a local copy: beir=DIR."
        ) from error
    corpus = {row["id"]: " ".join(filter(None, (row.get("title"), row["text"]))) for row in split["corpus"]}
    queries = {row["id"]: row["text"] for row in split["queries"]}
    qrels = {query: dict(judged) for query, judged in split["relevant_docs"].items() if query in queries}
    return RetrievalSet(name=name, corpus=corpus, queries=queries, qrels=qrels)
