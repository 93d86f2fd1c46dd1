"""`spectra search DIR`: finds documents of an index; without a query it asks for one after the other."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.strings import is_blank

if TYPE_CHECKING:
    from spectra_nsa.workflows.searcher import IndexHit

PROMPT = "query> "


def search_index(words: list[str], k: int, lines: int, as_json: bool, models: Sequence[str] = ()) -> None:
    """Searches an index and prints the hits.

    Args:
        words: the index and the query; without a query, each line of standard input is one.
        k: number of hits.
        lines: lines to show of each hit.
        as_json: whether to print JSON, one line for each query. Its `seconds` are those of the query alone.
        models: where models of the index are now, if they were moved.

    Raises:
        UsageError: there are too many words, or the query is empty.
        SpectraError: the index is damaged, or a model is missing.
    """
    if len(words) > 2:
        raise UsageError('too many words: put the query in quotes, as in spectra search DIR "open a file".')
    if len(words) == 2 and is_blank(words[1]):
        raise UsageError("the query is empty.")
    from spectra_nsa.workflows.searcher import Searcher

    searcher = Searcher.load(words[0], models=models)
    searcher.prepare()
    for query in [words[1]] if len(words) == 2 else _asked():
        start = time.monotonic()
        hits = searcher.hits(query, k)
        if as_json:
            seconds = round(time.monotonic() - start, 3)
            records = [{"rank": rank, **vars(hit)} for rank, hit in enumerate(hits, 1)]
            print_json({"schema": 1, "index": words[0], "query": query, "seconds": seconds, "hits": records})
        else:
            _show(hits, lines)


def _asked() -> Iterator[str]:
    """Yields the lines of standard input that are not blank, with a prompt on a terminal."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            print(PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if not is_blank(line):
            yield line.strip()


def _show(hits: list[IndexHit], lines: int) -> None:
    for rank, hit in enumerate(hits, 1):
        print(f"{rank:2}. {hit.score:.3f}  {hit.id}")
        for line in (hit.text or "").splitlines()[:lines]:
            print(f"           {line}")
    if not hits:
        print("no hits")
