"""`spectra search`: finds the nearest texts of a corpus."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.index_search import search_index
from spectra_nsa.cli.options import Columns, shared_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.strings import is_blank
from spectra_nsa.index.commits import is_index

if TYPE_CHECKING:
    from spectra_nsa.index.cascade import Scoring
    from spectra_nsa.workflows.search import Hit


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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the texts of a corpus that are closest in meaning to a query, or the documents of an index.

    DIR is an index that `spectra index build` made. Without a QUERY, it is asked one line after the other. Without DIR
    and MODEL, the model that you trained last is used, in whatever folder it is.

    Example: spectra search "remove a directory and everything in it" --corpus python:stdlib -k 3
    """
    if is_index(words[0]):
        _check_index_options(corpus, columns, bits, symmetric)
        return search_index(words, k, lines, as_json)
    corpus = _given_corpus(corpus)
    model, query = _model_and_query(words, corpus)
    _check_codes(bits, symmetric)
    from spectra_nsa.cli.encode import read_named_texts
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.models.open import find_model, open_encoder
    from spectra_nsa.workflows.search import cached_documents, code_hits, top_hits

    start = time.monotonic()
    files = find_model(model)
    folder = files.folder
    mapping = shared_columns(columns)
    texts, names = read_named_texts(corpus, mapping)
    mapping.check()
    encoder = open_encoder(files)
    if bits is not None:
        if not encoder.spec.codes_fitted:
            _warn_unfitted(model, corpus, columns, len(set(texts)))
        scoring: Scoring = "symmetric" if symmetric else "asymmetric"
        hits = code_hits(encoder, folder, query, texts, k, bits=bits, candidates=candidates, scoring=scoring)
    else:
        vector = encoder.encode_query(query, normalize_embeddings=True)
        check_finite(vector[None], model, "vectors of queries")
        hits = top_hits(cached_documents(encoder, folder, texts) @ vector, texts, k)
    if as_json:
        seconds = round(time.monotonic() - start, 3)
        facts = {"schema": 1, "model": model, "query": query, "seconds": seconds, "quarantined": mapping.quarantined}
        print_json(facts | {"hits": _hit_records(hits, names)})
    else:
        print(f"model: {model}", file=sys.stderr)
        _show(hits, names, lines)


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


def _warn_unfitted(model: str, corpus: str, columns: str | None, texts: int) -> None:
    """Prints that codes lose hits before they are fitted, and what to do: fit them, or search exactly if that is fast.

    Args:
        model, corpus, columns: as the user wrote them.
        texts: the number of different texts in the corpus.
    """
    from spectra_nsa.heads.fit_codes import MIN_TEXTS

    mapping = [] if columns is None else ["--columns", columns]
    fit = shlex.join(["spectra", "codes", "fit", model, "--corpus", corpus, *mapping])
    exact = f"Leave out --bits: for {counted(texts, 'text')} the search is exact and fast without codes"
    print(
        f"spectra: warning: the binary codes of {model} are not fitted to any texts, which loses hits. "
        f"{f'Fit them: {fit}' if texts >= MIN_TEXTS else exact}",
        file=sys.stderr,
    )


def _given_corpus(corpus: str | None) -> str:
    """Returns the corpus. Raises `UsageError` if there is none, which only an index does without."""
    if corpus is None:
        raise UsageError("nothing to search: name an index, or a source of texts with --corpus.")
    return corpus


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
