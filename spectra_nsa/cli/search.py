"""`spectra search`: finds the nearest texts of a corpus."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.index_search import search_index
from spectra_nsa.cli.options import Columns, shared_columns
from spectra_nsa.core.checksums import MANIFEST
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user
from spectra_nsa.core.strings import is_blank
from spectra_nsa.index.commits import is_index, read_commit

if TYPE_CHECKING:
    from pathlib import Path

    from spectra_nsa.index.cascade import Scoring
    from spectra_nsa.models.open import ModelFolder
    from spectra_nsa.workflows.search import Hit

LONGEST_PATH = 1_000  # characters: a longer word is a query


def search_command(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[DIR|MODEL] QUERY", help="The query, optionally preceded by an index or a model."),
    ],
    corpus: Annotated[
        str | None, typer.Option("--corpus", "-c", help="Without an index: a source of texts, such as python:stdlib.")
    ] = None,
    columns: Columns = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of hits.")] = 10,
    bits: Annotated[int | None, typer.Option(help="Search by binary codes first, of 64, 128 or 256 bits.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="With --bits: number of candidates from the codes.")] = 200,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="With --bits: use Hamming distance instead of float query × bits.")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, help="Lines to show of each hit.")] = 4,
    moved: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="With an index: where a model of it is now, if it was moved."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the texts of a corpus that are closest in meaning to a query, or the documents of an index.

    DIR is an index that `spectra index build` made. Without a QUERY, it is asked one line after the other. MODEL is a
    dense model or a sparse encoder, and searches the texts of --corpus exactly. Without DIR and MODEL, the model that
    you trained last is used, in whatever folder it is.

    Example: spectra search "remove a directory and everything in it" --corpus python:stdlib -k 3
    """
    if is_index(words[0]):
        _check_index_options(corpus, columns, bits, symmetric)
        return search_index(words, k, lines, as_json, moved or ())
    if moved:
        raise UsageError("--model is for an index whose model was moved: name a model before the query.")
    corpus = _given_corpus(corpus, words)
    model, query = _model_and_query(words, corpus)
    _check_codes(bits, symmetric)
    from spectra_nsa.cli.texts import read_named_texts

    start = time.monotonic()
    files = _find(model, bits)
    mapping = shared_columns(columns)
    texts, names = read_named_texts(corpus, mapping)
    mapping.check()
    if files.kind == "sparse":
        from spectra_nsa.workflows.search import sparse_hits

        hits = sparse_hits(files, query, texts, k)
    else:
        fit = ["codes", "fit", model, "--corpus", corpus, *([] if columns is None else ["--columns", columns])]
        hits = _dense_hits(files, query, texts, k, bits=bits, candidates=candidates, symmetric=symmetric, fit=fit)
    if not as_json:
        print(f"model: {model}", file=sys.stderr)
        return _show(hits, names, lines)
    seconds = round(time.monotonic() - start, 3)
    facts = {"schema": 1, "model": model, "query": query, "seconds": seconds, "quarantined": mapping.quarantined}
    print_json(facts | {"hits": _hit_records(hits, names)})


def _dense_hits(
    files: ModelFolder,
    query: str,
    texts: list[str],
    k: int,
    *,
    bits: int | None,
    candidates: int,
    symmetric: bool,
    fit: list[str],
) -> list[Hit]:
    """Returns the hits of a dense model: exact ones, or those by binary codes, which the command `fit` fits."""
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.models.open import open_encoder
    from spectra_nsa.models.size import model_spec
    from spectra_nsa.workflows.cut_texts import warn_cut
    from spectra_nsa.workflows.export.beside import export_beside
    from spectra_nsa.workflows.search import are_cached, cached_documents, code_hits, top_hits

    wanted = ["embedding"] if bits is None else ["embedding", "fast"]
    asked = wanted if bits is None else ["embedding", "fast_logits"]
    exported = export_beside(files.folder, asked, when=lambda one: are_cached(wanted, one, files.folder, texts))
    encoder = open_encoder(files.name) if exported is None else exported
    warn_cut(encoder, [query], "query", files.name)
    if bits is None:
        vector = encoder.encode_query(query, normalize_embeddings=True)
        check_finite(vector[None], files.name, "vectors of queries")
        return top_hits(cached_documents(encoder, files.folder, texts) @ vector, texts, k)
    if not model_spec(files).codes_fitted:
        _warn_unfitted(files.name, fit, len(set(texts)))
    scoring: Scoring = "symmetric" if symmetric else "asymmetric"
    return code_hits(encoder, files.folder, query, texts, k, bits=bits, candidates=candidates, scoring=scoring)


def _model_and_query(words: list[str], corpus: str) -> tuple[str, str]:
    """Returns the model, that of the last run if none is named, and the query.

    Raises:
        UsageError: there are too many words, or the query is missing or empty.
        SpectraError: no model is named, and there is no last run.
    """
    from spectra_nsa.models.checks import names_model
    from spectra_nsa.workflows.search import last_model

    if len(words) > 2:
        raise UsageError('too many words: put the query in quotes, as in spectra search "open a file" --corpus FILE.')
    if len(words) == 1 and names_model(words[0]):
        raise UsageError(
            f'the query is missing: {words[0]} is a model. Give both: spectra search {words[0]} "QUERY" '
            f"--corpus {corpus}."
        )
    if is_blank(words[-1]):
        raise UsageError("the query is empty.")
    return words[0] if len(words) == 2 else last_model(), words[-1]


def _warn_unfitted(model: str, fit: list[str], texts: int) -> None:
    """Prints that codes lose hits before they are fitted, and what to do: fit them, or search exactly if that is fast.

    Args:
        model: as the user wrote it.
        fit: the words of the command that fits the codes.
        texts: the number of different texts in the corpus.
    """
    from spectra_nsa.heads.fit_codes import MIN_TEXTS

    command = shlex.join(["spectra", *fit])
    exact = f"Leave out --bits: for {counted(texts, 'text')} the search is exact and fast without codes"
    print(
        f"spectra: warning: the binary codes of {model} are not fitted to any texts, which loses hits. "
        f"{f'Fit them: {command}' if texts >= MIN_TEXTS else exact}",
        file=sys.stderr,
    )


def _given_corpus(corpus: str | None, words: list[str]) -> str:
    """Returns the corpus.

    Raises:
        UsageError: there is none, which only an index does without. The message says what the first word is.
        SpectraError: the first word is an index that is damaged, or the folder of a run.
    """
    if corpus is not None:
        return corpus
    from spectra_nsa.evaluation.open import SPLADE

    where = words[0]
    if where.startswith(SPLADE):
        raise _is_model(where, sparse=True)
    path = expand_user(where) if len(where) < LONGEST_PATH else None
    if path is not None and path.is_dir():
        if (path / MANIFEST).is_file() and not (path / "config.json").exists():
            read_commit(path)  # which says what is wrong with it
        _check_model(where, path)
    elif path is not None and path.is_file():
        raise UsageError(
            f"{where} is a file, neither an index nor a model. To search its texts, name it with --corpus, or build an "
            "index of them: spectra index build."
        )
    elif len(words) == 2:
        raise UsageError(
            f"nothing to search: {where} does not exist as an index or a model here. Name an index that spectra index "
            "build made, or a source of texts with --corpus."
        )
    raise UsageError("nothing to search: name an index, or a source of texts with --corpus.")


def _check_model(where: str, path: Path) -> None:
    """Raises the error for a folder that is searched without a corpus and is no index."""
    from spectra_nsa.models.checks import local_folder
    from spectra_nsa.models.open import model_kind

    local_folder(where)  # which refuses the folder of a run
    try:
        kind = model_kind(path)
    except SpectraError as error:
        raise UsageError(
            f"{where} is neither an index nor a model. Build an index with spectra index build SOURCE --model MODEL "
            f"--output DIR."
        ) from error
    raise _is_model(where, sparse=kind == "sparse")


def _is_model(where: str, *, sparse: bool) -> UsageError:
    """Returns the error for a model that is searched without a corpus."""
    build = f", or build an index: spectra index build SOURCE --model {where} --output DIR" if sparse else ""
    return UsageError(f"{where} is a model, not an index. Name the texts to search with --corpus SOURCE{build}.")


def _check_index_options(corpus: str | None, columns: str | None, bits: int | None, symmetric: bool) -> None:
    """Raises `UsageError` if an option is given that an index does not use."""
    given = {"--corpus": corpus, "--columns": columns, "--bits": bits, "--symmetric": symmetric or None}
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option} is for the search of a corpus with a model: an index has its own.")


def _check_codes(bits: int | None, symmetric: bool) -> None:
    """Checks the options of the search by codes before anything is loaded."""
    from spectra_nsa.index.cascade import check_bits

    if bits is not None:
        check_bits(bits)
    elif symmetric:
        raise UsageError("--symmetric is for the search by codes: add --bits 64, 128 or 256.")


def _find(model: str, bits: int | None) -> ModelFolder:
    """Returns the files of a dense or sparse model. Raises `UsageError` for the search by codes of a sparse one."""
    from spectra_nsa.models.open import SPECTRA
    from spectra_nsa.runtime.record import is_export
    from spectra_nsa.workflows.index_models import find_any

    files = find_any(model, (*SPECTRA, "sparse"), complete=False)
    if not is_export(files.folder):
        files = find_any(model, (*SPECTRA, "sparse"))
    if files.kind == "sparse" and bits is not None:
        raise UsageError(f"--bits is for the binary codes of dense models, but {model} is a sparse encoder.")
    return files


def _hit_records(hits: list[Hit], names: dict[str, str]) -> list[dict[str, Any]]:
    """Returns the hits as printed by --json."""
    return [
        {"rank": rank, "index": hit.index, "score": hit.score, "name": names.get(hit.text), "text": hit.text}
        for rank, hit in enumerate(hits, 1)
    ]


def _show(hits: list[Hit], names: dict[str, str], lines: int) -> None:
    for rank, hit in enumerate(hits, 1):
        shown = hit.text.splitlines()
        name = f"{names[hit.text]}\n           " if hit.text in names else ""
        print(f"{rank:2}. {hit.score:.3f}  {name}{shown[0]}")
        for line in shown[1:lines]:
            print(f"           {line}")
