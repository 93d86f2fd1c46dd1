"""Training a tokenizer on sources of texts, and what it and others make of texts that it has not seen."""

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
MOST = 5_000  # texts that a report looks at
_ONE_IN = 50


class _Part:
    """One side of a split by a hash of the text, so that equal texts are on the same side."""

    def __init__(self, texts: Iterable[str], *, held_out: bool) -> None:
        self.texts, self.held_out = texts, held_out

    def __iter__(self) -> Iterator[str]:
        return (text for text in self.texts if (zlib.crc32(text.encode()) % _ONE_IN == 0) == self.held_out)


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
    """Trains a tokenizer, saves its folder, and measures it beside BERT's on texts held out.

    Args:
        sources: plain text files and other sources of texts.
        spec: what to train.
        output: the folder; a tokenizer's that stands there is replaced.
        held_out: a source to measure on; ``None`` leaves 2 % of the texts out of the training. At most 5,000 count.
        limit: at most so many lines or rows of each source.
        columns: role → column, for the sources (`held_out` too) that have all of these; ``None`` guesses everywhere.
        say: called with lines of progress.

    Returns:
        the folder, how many pieces it has, how long the training took, what was refused (`quarantined`, `problems`,
        `notes`), and `results`: empty where nothing could be held out.

    Raises:
        SpectraError: unusable texts, columns that fit no source, or too few pieces.
        UsageError: something else than a tokenizer stands at `output`.
    """
    from spectra_nsa.tokens.kinds import KINDS
    from spectra_nsa.tokens.train import check_tokenizer_folder, save_tokenizer, train_tokenizer

    check_tokenizer_folder(output)
    shared = SharedColumns(columns)
    corpus = Corpus(sources, limit=limit, columns=shared)
    texts: Iterable[str] = corpus
    read = [corpus]
    if held_out is None:
        texts, unseen = _Part(corpus, held_out=False), sample_texts(_Part(corpus, held_out=True), MOST)
    else:
        read.append(Corpus([held_out], columns=shared))
        unseen = sample_texts(read[-1], MOST)
    shared.check()
    refused = _refused(read, say)
    say(f"training {spec.kind} for {spec.vocab_size:,} pieces")
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
        "held_out": len(unseen),
        **refused,
        "results": _results({Path(output).name: tokenizer}, unseen, name, say) if unseen else [],
    }


def report_on(
    tokenizers: Sequence[str], source: str, *, columns: Mapping[str, str] | None = None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures tokenizers, and BERT's uncased one beside them, on at most 5,000 texts of a source.

    Args:
        tokenizers: folders or Hub names.
        source: of texts.
        columns: role → column of the source; ``None`` guesses.
        say: called with what was refused, and where BERT's is not at hand.

    Returns:
        `results`, and what was refused: `quarantined`, how many; `problems`, the first few; `notes`, in words.

    Raises:
        SpectraError: a tokenizer or the source cannot be read.
    """
    from spectra_nsa.models.fresh import load_tokenizer

    opened = {name: load_tokenizer(name) for name in tokenizers}
    corpus = Corpus([source], columns=columns)
    refused = _refused([corpus], say)
    return {**refused, "results": _results(opened, sample_texts(corpus, MOST), source, say)}


def _refused(read: Sequence[Corpus], say: Callable[[str], None]) -> dict[str, Any]:
    """What was refused in reading, which is also said."""
    notes = [note for corpus in read for note in corpus.notes]
    for note in notes:
        say(f"note: {note}")
    return {
        "quarantined": sum(corpus.left_out for corpus in read),
        "problems": [dataclasses.asdict(problem) for corpus in read for problem in corpus.problems],
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
