"""Figures of a tokenizer on texts: pieces per word, unknown pieces, round trips, speed."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from spectra_nsa.core.strings import words
from spectra_nsa.tokens.kinds import BYTES

_ROUNDS = 3


def measure_tokenizer(tokenizer: Any, texts: Sequence[str]) -> dict[str, float]:
    """Measures a fast tokenizer on texts, without special tokens and truncation.

    Args:
        tokenizer: a fast tokenizer of transformers.
        texts: at least one.

    Returns:
        `pieces`: size of the vocabulary. `fertility`: pieces per word (Rust et al. 2021), each word tokenized alone; in
        a script without spaces, each character counts as a word (`core.strings.words`). `whole_words`: share of the
        words that are one known piece. `characters_per_piece`: of whole texts, before normalization. `unknown`: share
        of the pieces that are the unknown piece. `bytes`: share of the pieces that are single bytes of a character
        outside the alphabet. `round_trip`: share of the texts for which decoding returns the normalized text.
        `million_characters_per_second`: the median of three runs over all texts.
    """
    pieces = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    counts = Counter(piece for row in pieces for piece in row)
    total = max(1, counts.total())
    byte_ids = {tokenizer.convert_tokens_to_ids(piece) for piece in BYTES} - {tokenizer.unk_token_id, None}
    fertility, whole = _words(tokenizer, texts)
    return {
        "pieces": len(tokenizer),
        "fertility": fertility,
        "whole_words": whole,
        "characters_per_piece": sum(map(len, texts)) / total,
        "unknown": counts[tokenizer.unk_token_id] / total,
        "bytes": sum(counts[piece] for piece in byte_ids) / total,
        "round_trip": statistics.fmean(
            round_trips(tokenizer, text, row) for text, row in zip(texts, pieces, strict=True)
        ),
        "million_characters_per_second": sum(map(len, texts)) / 1e6 / _seconds(tokenizer, texts),
    }


def _words(tokenizer: Any, texts: Sequence[str]) -> tuple[float, float]:
    counts = Counter(word for text in texts for word in words(text, size=1))
    if not counts:
        return 0.0, 0.0
    rows = tokenizer(list(counts), add_special_tokens=False)["input_ids"]
    total = counts.total()
    unknown = tokenizer.unk_token_id
    pieces = sum(len(row) * count for row, count in zip(rows, counts.values(), strict=True))
    whole = sum(count for row, count in zip(rows, counts.values(), strict=True) if len(row) == 1 and row[0] != unknown)
    return pieces / total, whole / total


def _seconds(tokenizer: Any, texts: Sequence[str]) -> float:
    backend, seconds = tokenizer.backend_tokenizer, []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        backend.encode_batch_fast(list(texts), add_special_tokens=False)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def round_trips(tokenizer: Any, text: str, pieces: Sequence[int]) -> bool:
    """Returns whether decoding the pieces of a text gives the normalized text.

    A space that the normalizer puts before the first word is ignored.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    wanted = text if normalizer is None else normalizer.normalize_str(text)
    decoded = tokenizer.decode(list(pieces))
    return decoded in (wanted, wanted.removeprefix(" "))
