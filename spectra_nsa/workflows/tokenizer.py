"""Training of a tokenizer on sources of texts, and comparison of tokenizers on held-out texts."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.text.corpus import Corpus, sample_texts
from spectra_nsa.text.shared_columns import SharedColumns

if TYPE_CHECKING:
    from spectra_nsa.tokens.train import TokenizerSpec

BASELINE = "bert-base-uncased"
MAX_TEXTS = 5_000  # to measure tokenizers on
_HELD_OUT_INTERVAL = 50  # one text in 50 is held out


class _Split:
    """The training or the held-out texts, split by a hash of the text, so that equal texts stay together."""

    def __init__(self, texts: Iterable[str], *, held_out: bool) -> None:
        self.texts, self.held_out = texts, held_out

    def __iter__(self) -> Iterator[str]:
        return (text for text in self.texts if (zlib.crc32(text.encode()) % _HELD_OUT_INTERVAL == 0) == self.held_out)


def train_tokenizer_on(
    sources: Sequence[str],
    spec: TokenizerSpec,
    output: str | Path,
    *,
    held_out: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Trains a tokenizer, saves it, and compares it with BERT's on held-out texts.

    Args:
        sources: plain text files and other sources of texts.
        spec: what to train.
        output: the folder to write; a tokenizer that is already there is replaced.
        held_out: a source to measure on; ``None`` holds out 2 % of the texts. At most 5,000 texts are used.
        limit: maximum number of lines or rows of each source; ``None`` reads all.
        columns: role → column, for the sources (`held_out` too) that have all of these; ``None`` guesses everywhere.
        say: called with each line of progress.

    Returns:
        the folder, the number of pieces, the seconds of training, the skipped rows (`quarantined`, `problems`,
        `notes`), and `results`: empty if nothing could be held out.

    Raises:
        SpectraError: unusable texts, columns that fit no source, or too few pieces.
        UsageError: `output` exists and does not hold a tokenizer.
    """
    from spectra_nsa.tokens.kinds import KINDS
    from spectra_nsa.tokens.train import check_tokenizer_folder, save_tokenizer, train_tokenizer

    check_tokenizer_folder(output)
    shared = SharedColumns(columns)
    corpus = Corpus(sources, limit=limit, columns=shared)
    texts: Iterable[str] = corpus
    corpora = [corpus] if held_out is None else [corpus, Corpus([held_out], columns=shared)]
    if held_out is None:
        texts, measured = _Split(corpus, held_out=False), sample_texts(_Split(corpus, held_out=True), MAX_TEXTS)
    else:
        measured = sample_texts(corpora[1], MAX_TEXTS)
    shared.check()
    skipped = _skipped_rows(corpora, say)
    say(f"training a {spec.kind} tokenizer of {spec.vocab_size:,} pieces")
    start = time.perf_counter()
    tokenizer = train_tokenizer(texts, spec)
    seconds = time.perf_counter() - start
    save_tokenizer(tokenizer, output)
    name = held_out or f"{', '.join(map(str, sources))} (held out)"
    return {
        "folder": str(output),
        "kind": spec.kind,
        "asked": spec.vocab_size,
        "pieces": len(tokenizer),
        "lossless": KINDS[spec.kind].lossless,
        "training_seconds": round(seconds, 3),
        "held_out": len(measured),
        **skipped,
        "results": _results({Path(output).name: tokenizer}, measured, name, say) if measured else [],
    }


def report_on(
    tokenizers: Sequence[str], source: str, *, columns: Mapping[str, str] | None = None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Compares tokenizers with BERT's uncased one on at most 5,000 texts of a source.

    Args:
        tokenizers: folders or Hub names.
        source: a source of texts.
        columns: role → column of the source; ``None`` guesses.
        say: called with a line about skipped rows, and if BERT's tokenizer is not available.

    Returns:
        `results`, and the skipped rows: `quarantined` (their number), `problems` (the first ones) and `notes` (lines).

    Raises:
        SpectraError: a tokenizer or the source cannot be read.
    """
    from spectra_nsa.models.fresh import load_tokenizer

    opened = {name: load_tokenizer(name) for name in tokenizers}
    corpus = Corpus([source], columns=columns)
    skipped = _skipped_rows([corpus], say)
    return {**skipped, "results": _results(opened, sample_texts(corpus, MAX_TEXTS), source, say)}


def _skipped_rows(corpora: Sequence[Corpus], say: Callable[[str], None]) -> dict[str, Any]:
    """Returns and reports the rows that were skipped in reading."""
    notes = [note for corpus in corpora for note in corpus.notes]
    for note in notes:
        say(f"note: {note}")
    return {
        "quarantined": sum(corpus.left_out for corpus in corpora),
        "problems": [dataclasses.asdict(problem) for corpus in corpora for problem in corpus.problems],
        "notes": notes,
    }


def _results(
    tokenizers: Mapping[str, Any], texts: Sequence[str], name: str, say: Callable[[str], None]
) -> list[Result]:
    from spectra_nsa.models.fresh import load_tokenizer
    from spectra_nsa.tokens.report import measure_tokenizer

    measured = dict(tokenizers)
    try:
        measured.setdefault(BASELINE, load_tokenizer(None))
    except SpectraError as error:
        say(f"not compared with {BASELINE}: {error}")
    return [
        Result(task="statistics", name=name, system=system, metric=metric, value=float(value), n=len(texts))
        for system, tokenizer in measured.items()
        for metric, value in measure_tokenizer(tokenizer, texts).items()
    ]
