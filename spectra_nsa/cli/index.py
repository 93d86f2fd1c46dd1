"""`spectra index`: build and change a folder that `spectra search` searches."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from spectra_nsa.cli.index_report import lines, named, report, say_repeated
from spectra_nsa.cli.options import Columns, shared_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.index.collection import Index
    from spectra_nsa.workflows.searcher import Documents

app = typer.Typer(help="Build and change an index of texts.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The index.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="Where a model of the index is now, if it was moved.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Impacts = Annotated[
    Literal["float32", "float16", "uint8"], typer.Option(help="Sparse weights on disk; float32 is exact.")
]
Prune = Annotated[
    str | None, typer.Option(help="Leave out small sparse weights: top=100, ratio=0.1 or mass=0.9. Inexact.")
]


@app.callback()
def index() -> None:
    """Build and change an index of texts."""


@app.command("build")
def build_command(
    corpus: Annotated[str, typer.Argument(help="A source of texts: a file, a BEIR folder, python:stdlib, …")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="A sparse encoder or splade:CHECKPOINT; for a hybrid a dense model too.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The index to write.")],
    kind: Annotated[
        Literal["sparse", "hybrid"], typer.Option(help="sparse: posting lists. hybrid: with dense vectors and BM25.")
    ] = "sparse",
    columns: Columns = None,
    impacts: Impacts = "float32",
    prune: Prune = None,
    dev: Annotated[
        str | None, typer.Option(help="With --kind hybrid: queries to fit the weights, a BEIR folder or pairs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an index of the texts of a source, in place of an older index.

    Example: spectra index build python:stdlib --model runs/sparse/model --output stdlib.index
    """
    from spectra_nsa.index.collection import check_target
    from spectra_nsa.index.sparse.pruning import parse_pruning
    from spectra_nsa.workflows.index_corpus import read_documents, read_queries
    from spectra_nsa.workflows.searcher import Searcher

    check_target(output)
    rule = None if prune is None else parse_pruning(prune)
    if dev is not None and kind != "hybrid":
        raise UsageError("--dev fits the weights of several ways to search: add --kind hybrid.")
    start = time.monotonic()
    mapping = shared_columns(columns)
    documents, repeated = read_documents(corpus, mapping)
    ids_of = dict(zip(documents.texts, documents.ids, strict=True))
    queries = None if dev is None else read_queries(dev, mapping, ids_of)
    mapping.check()
    say_repeated(repeated)
    searcher = Searcher.build(output, documents, model, kind=kind, impacts=impacts, pruning=rule)
    if queries is not None:
        _fit(searcher, *queries)
    report(searcher.index, start, as_json, repeated=repeated, quarantined=mapping.quarantined)


@app.command("add")
def add_command(
    folder: Folder,
    source: Annotated[str, typer.Argument(help="A source of texts.")],
    columns: Columns = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace documents that have the same id.")] = False,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Add the texts of a source to an index, in one step: all of them or none.

    Example: spectra index add stdlib.index python:numpy
    """
    from spectra_nsa.workflows.index_corpus import read_documents
    from spectra_nsa.workflows.searcher import Searcher

    start = time.monotonic()
    searcher = Searcher.load(folder, models=model or ())
    mapping = shared_columns(columns)
    documents, repeated = read_documents(source, mapping)
    mapping.check()
    say_repeated(repeated)
    _check_new(searcher.index, documents, replace)
    searcher.add(documents, replace=replace)
    report(searcher.index, start, as_json, added=len(documents.ids), quarantined=mapping.quarantined)


@app.command("delete")
def delete_command(
    folder: Folder,
    ids: Annotated[list[str], typer.Argument(help="The ids of documents, as spectra search shows them.")],
    as_json: Json = False,
) -> None:
    """Delete documents of an index by their ids.

    Example: spectra index delete stdlib.index shutil.rmtree os.walk
    """
    from spectra_nsa.index.collection import Index

    start = time.monotonic()
    opened = Index.load(folder)
    asked = list(dict.fromkeys(ids))
    unknown = [key for key, at in zip(asked, opened.positions(asked), strict=True) if at < 0]
    missing = f"{counted(len(unknown), 'id')} not in the index: {named(unknown)}"
    if len(unknown) == len(asked):
        raise SpectraError(f"{missing}. Nothing was deleted; spectra search shows the ids.")
    if unknown:
        print(f"spectra: warning: {missing}.", file=sys.stderr)
    deleted = opened.delete(asked)
    report(opened, start, as_json, deleted_now=deleted)


@app.command("info")
def info_command(folder: Folder, as_json: Json = False) -> None:
    """Show what an index holds, and how long its posting lists are, on which the time of a search depends.

    Example: spectra index info stdlib.index
    """
    from spectra_nsa.index.collection import Index
    from spectra_nsa.index.info import index_info

    facts = {"schema": 1, "index": str(folder), **index_info(Index.load(folder))}
    if as_json:
        print_json(facts)
        return
    for line in lines(facts):
        print(line)


@app.command("verify")
def verify_command(folder: Folder, as_json: Json = False) -> None:
    """Read every file of an index and check it against its SHA-256.

    Example: spectra index verify stdlib.index
    """
    from spectra_nsa.index.collection import Index

    start = time.monotonic()
    opened = Index.load(folder)
    opened.verify()
    report(opened, start, as_json, intact=True)


@app.command("compact")
def compact_command(folder: Folder, as_json: Json = False) -> None:
    """Merge the segments of an index into one without deleted documents.

    Example: spectra index compact stdlib.index
    """
    from spectra_nsa.index.collection import Index

    start = time.monotonic()
    opened = Index.load(folder)
    opened.compact()
    report(opened, start, as_json)


@app.command("fit")
def fit_command(
    folder: Folder,
    queries: Annotated[str, typer.Argument(help="Queries with their documents: a BEIR folder, or pairs.")],
    columns: Columns = None,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Fit how a hybrid index weighs sparse, dense and BM25 hits, on development queries, guarded by cross-validation.

    Example: spectra index fit stdlib.index dev-questions.jsonl
    """
    from spectra_nsa.workflows.index_corpus import read_queries
    from spectra_nsa.workflows.searcher import Searcher

    start = time.monotonic()
    searcher = Searcher.load(folder, models=model or ())
    mapping = shared_columns(columns)
    judged = read_queries(queries, mapping, searcher.index.ids_of_texts())
    mapping.check()
    _fit(searcher, *judged)
    report(searcher.index, start, as_json, fusion=searcher.fusion.document())


@app.command("export")
def export_command(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    as_json: Json = False,
) -> None:
    """Write the sparse vectors of an index as CSR rows (.npz), with vocabulary and documents, for other engines.

    Example: spectra index export stdlib.index --output stdlib.csr
    """
    from spectra_nsa.index.sparse.index import SparseIndex

    start = time.monotonic()
    opened = SparseIndex.load(folder)
    opened.export(output)
    report(opened.index, start, as_json, output=str(output))


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(help="A folder with rows.npz, as spectra index export writes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The index to write.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The sparse encoder of the rows, to search by text.")
    ] = None,
    impacts: Impacts = "float32",
    prune: Prune = None,
    as_json: Json = False,
) -> None:
    """Build a sparse index from CSR rows that another program made.

    Example: spectra index import stdlib.csr --model runs/sparse/model --output stdlib.index
    """
    from spectra_nsa.index.sparse.index import SparseIndex
    from spectra_nsa.index.sparse.pruning import parse_pruning
    from spectra_nsa.workflows.index_models import sparse_model_facts, static_query_side

    start = time.monotonic()
    rule = None if prune is None else parse_pruning(prune)
    facts = None if model is None else sparse_model_facts(model, output)
    files = None if model is None else static_query_side(model)
    built = SparseIndex.read(source, output, model=facts, files=files, impacts=impacts, pruning=rule)
    report(built.index, start, as_json)


def _fit(searcher: Any, queries: list[str], relevant: list[dict[str, float]]) -> None:
    from spectra_nsa.index.fit_fusion import RULE, held_out_figures

    fusion = searcher.fit(queries, relevant)
    print(
        f"spectra: {fusion.fit['metric']} of {counted(fusion.fit['queries'], 'held-out query')}: "
        f"{held_out_figures(fusion.fit)}. Chosen: {fusion.fit['chosen']} ({RULE}).",
        file=sys.stderr,
    )


def _check_new(opened: Index, documents: Documents, replace: bool) -> None:
    """Raises `UsageError` before anything is encoded if a document is in the index already."""
    known = [key for key, at in zip(documents.ids, opened.positions(documents.ids), strict=True) if at >= 0]
    if known and not replace:
        raise UsageError(
            f"{counted(len(known), 'document')} of {len(documents.ids):,} with an id that the index has, such as "
            f"{known[0]!r}. Replace them with --replace."
        )
