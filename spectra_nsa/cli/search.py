"""`spectra search`: the nearest texts of a corpus."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_nsa.cli.options import Columns, say_loading, shared_columns
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.index.cascade import Scoring


def search_command(
    words: Annotated[list[str], typer.Argument(metavar="[MODEL] QUERY", help="The query; before it a model, or none.")],
    corpus: Annotated[str, typer.Option("--corpus", "-c", help="A source of texts: a file, or python:stdlib.")],
    columns: Columns = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 10,
    bits: Annotated[int | None, typer.Option(help="Search by codes first: of 64, 128 or 256 bits.")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="With --bits: how many the codes propose.")] = 200,
    symmetric: Annotated[
        bool, typer.Option("--symmetric", help="With --bits: Hamming distance, not float query × bits.")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, help="Lines shown of each hit.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the texts of a corpus that mean what a query says. Without a MODEL, your last run's is used.

    The last run is that of this user, in whatever folder it was made.

    Example: spectra search "remove a directory and everything in it" --corpus python:stdlib -k 3
    """
    from spectra_nsa.workflows.search import last_model

    if len(words) > 2:
        raise UsageError('too many words: put the query in quotes, as in spectra search "open a file" --corpus FILE.')
    model = words[0] if len(words) == 2 else last_model()
    query = words[-1]
    if not query.strip():
        raise UsageError("the query is empty.")
    say_loading(model)
    from spectra_nsa.cli.encode import read_named_texts
    from spectra_nsa.models.checks import resolve_folder
    from spectra_nsa.models.open import open_encoder
    from spectra_nsa.workflows.search import cached_documents, code_hits, top_hits

    began = time.monotonic()
    own = shared_columns(columns)
    texts, names = read_named_texts(corpus, own)
    own.check()
    folder = resolve_folder(model)
    encoder = open_encoder(folder)
    if bits is not None:
        scoring: Scoring = "symmetric" if symmetric else "asymmetric"
        if not encoder.spec.codes_fitted:
            print(f"spectra: warning: {model}'s codes are fitted to no corpus: spectra codes fit.", file=sys.stderr)
        hits = code_hits(encoder, folder, query, texts, k, bits=bits, candidates=candidates, scoring=scoring)
    else:
        vector = encoder.encode_query(query, normalize_embeddings=True)
        hits = top_hits(cached_documents(encoder, folder, texts) @ vector, texts, k)
    if as_json:
        found = [
            {"rank": rank, "index": h.index, "score": h.score, "name": names.get(h.text), "text": h.text}
            for rank, h in enumerate(hits, 1)
        ]
        seconds = round(time.monotonic() - began, 3)
        print(json.dumps({"schema": 1, "model": model, "query": query, "seconds": seconds, "hits": found}))
        return
    print(f"model: {model}", file=sys.stderr)
    for rank, hit in enumerate(hits, 1):
        shown = hit.text.splitlines()
        called = f"{names[hit.text]}\n           " if hit.text in names else ""
        print(f"{rank:2}. {hit.score:.3f}  {called}{shown[0]}")
        for line in shown[1:lines]:
            print(f"           {line}")
