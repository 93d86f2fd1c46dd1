"""`spectra tokenizer train` and `spectra tokenizer report`: train and measure tokenizers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import Columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

if TYPE_CHECKING:
    from spectra_nsa.core.results import Result

app = typer.Typer(help="Train and measure tokenizers.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def tokenizer() -> None:
    """Train and measure tokenizers."""


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


@app.command("train")
def train_command(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Plain text files (.txt, .md, .rst) or sources of rows.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", "--out-prefix", help="The folder to write.")],
    kind: Annotated[str, typer.Option(help="unigram, wordpiece, bpe (of bytes) or word.")] = "unigram",
    vocab_size: Annotated[int, typer.Option(min=6, help="Maximum number of pieces, including special ones.")] = 48_000,
    lowercase: Annotated[bool, typer.Option("--lowercase/--cased", help="Whether to lowercase texts.")] = True,
    min_frequency: Annotated[
        int | None, typer.Option(min=1, help="Minimum count of a word or merged pair (default: 2; unigram has none).")
    ] = None,
    max_length: Annotated[int, typer.Option(min=3, help="Pieces at which texts are truncated.")] = 512,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Read at most this many lines or rows of each source.")
    ] = None,
    columns: Columns = None,
    held_out: Annotated[
        str | None, typer.Option(help="Source to measure on (default: 2 % of the texts, held out).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a tokenizer on texts, and compare it with BERT's on held-out texts.

    Example: spectra tokenizer train pairs.jsonl --output tokenizer --vocab-size 8000
    """
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.tokens.train import TokenizerSpec
    from spectra_nsa.workflows.tokenizer import train_tokenizer_on

    start = time.perf_counter()
    mapping = None if columns is None else parse_columns(columns)
    spec = TokenizerSpec(
        kind=kind, vocab_size=vocab_size, lowercase=lowercase, min_frequency=min_frequency, max_length=max_length
    )
    facts = train_tokenizer_on(sources, spec, output, held_out=held_out, limit=limit, columns=mapping, say=_say)
    results = facts.pop("results")
    if as_json:
        _print_json(results, time.perf_counter() - start, **facts)
        return
    fewer = f" of {facts['asked']:,} requested (the texts support no more)" if facts["pieces"] < facts["asked"] else ""
    print(f"{facts['folder']}: {kind}, {counted(facts['pieces'], 'piece')}{fewer}; {facts['training_seconds']:.1f} s")
    print("decoding restores every normalized text" if facts["lossless"] else "decoding does not restore every text")
    if not results:
        print("too few texts to hold any out; measure on other texts with spectra tokenizer report")
    _show(results)


@app.command("report")
def report_command(
    tokenizers: Annotated[list[str], typer.Argument(metavar="TOKENIZER...", help="Folders or Hub names.")],
    texts: Annotated[str, typer.Option("--texts", "-t", help="A source of texts; at most 5,000 are used.")],
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Compare tokenizers with BERT's on texts: pieces per word, unknown pieces, round trip, speed.

    Example: spectra tokenizer report tokenizer --texts python:stdlib
    """
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.workflows.tokenizer import report_on

    start = time.perf_counter()
    mapping = None if columns is None else parse_columns(columns)
    facts = report_on(tokenizers, texts, columns=mapping, say=_say)
    results = facts.pop("results")
    if as_json:
        _print_json(results, time.perf_counter() - start, **facts)
    else:
        _show(results)


def _print_json(results: list[Result], seconds: float, **facts: Any) -> None:
    from spectra_nsa.core.results import results_document

    print_json(results_document(results, model=None, seconds=seconds, **facts))


def _show(results: list[Result]) -> None:
    from rich.text import Text

    from spectra_nsa.core.console import console
    from spectra_nsa.report.terminal import terminal_tables

    for table in terminal_tables(results):
        table.title = Text(f"tokenizers on {results[0].name}  (n = {results[0].n:,})")
        console().print(table)
