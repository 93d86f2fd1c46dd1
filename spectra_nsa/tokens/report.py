"""What a tokenizer makes of texts: pieces a word, what is unknown, whether the text comes back, how fast."""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from spectra_nsa.tokens.kinds import BYTES

_WORD = re.compile(r"\w+")
_ROUNDS = 3


def measure_tokenizer(tokenizer: Any, texts: Sequence[str]) -> dict[str, float]:
    """Figures of one fast tokenizer on texts; special tokens are not counted, nothing is cut.

    Args:
        tokenizer: transformers' fast one.
        texts: at least one.

    Returns:
        `pieces`: size of the vocabulary. `fertility`: pieces a word (Rust et al. 2021), words being runs of letters,
        digits and underscores, each taken by itself. `whole_words`: share of the words that are one known piece.
        `characters_per_piece`: of whole texts, before normalisation. `unknown`: share of the pieces that are the
        unknown one. `bytes`: share of the pieces that are single bytes of a character outside the alphabet.
        `round_trip`: share of the texts that decoding gives back as the normaliser left them.
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
    counts = Counter(word for text in texts for word in _WORD.findall(text))
    if not counts:
        return 0.0, 0.0
    rows = tokenizer(list(counts), add_special_tokens=False)["input_ids"]
    total = counts.total()
    unknown = tokenizer.unk_token_id
    pieces = sum(len(row) * count for row, count in zip(rows, counts.values(), strict=True))
    whole = sum(count for row, count in zip(rows, counts.values(), strict=True) if len(row) == 1 and row[0] != unknown)
    return pieces / total, whole / total


def _seconds(tokenizer: Any, texts: Sequence[str]) -> float:
    backend, taken = tokenizer.backend_tokenizer, []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        backend.encode_batch_fast(list(texts), add_special_tokens=False)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def round_trips(tokenizer: Any, text: str, pieces: Sequence[int]) -> bool:
    """Whether decoding the pieces of a text gives the normalised text; a space that the normaliser put in front, to
    begin the first word like any other, is not counted."""
    normaliser = tokenizer.backend_tokenizer.normalizer
    wanted = text if normaliser is None else normaliser.normalize_str(text)
    decoded = tokenizer.decode(list(pieces))
    return decoded in (wanted, wanted.removeprefix(" "))
