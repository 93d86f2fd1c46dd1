"""What a tokenizer may give a model: no more tokens than it has positions, and none without a vector."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError


def capped_length(length: int | None, positions: int, name: str | Path) -> int | None:
    """Returns a model's length limit, at most its number of positions; a line on standard error says if it is less."""
    if length is None or length <= positions:
        return length
    print(
        f"spectra: warning: {name} sets max_seq_length to {length:,}, but has {positions:,} positions. Texts are "
        f"truncated at {positions:,} tokens.",
        file=sys.stderr,
    )
    return positions


def learned_positions(transformer: Any) -> int | None:
    """Returns how many tokens a Hugging Face model has positions for; ``None`` if it has no table of them.

    Models in the manner of RoBERTa count positions from the one after the padding.
    """
    table = dict(transformer.base_model.named_modules()).get("embeddings.position_embeddings")
    rows = getattr(table, "num_embeddings", None)
    if rows is None:
        return None
    padding = getattr(table, "padding_idx", None)
    return int(rows) if padding is None else int(rows) - padding - 1


def check_vocabulary(ids: Iterable[int], rows: int, name: str | Path) -> None:
    """Checks that the model has a vector for each token.

    Args:
        ids: the ids of the tokenizer's tokens.
        rows: of the token embedding.
        name: the model, for the message.

    Raises:
        SpectraError: it has not; a text with such a token would fail.
    """
    beyond = sorted(number for number in ids if number >= rows)
    if beyond:
        raise SpectraError(
            f"{name}: the tokenizer has {counted(len(beyond), 'token')} without a vector: the model has {rows:,}, and "
            f"the first such id is {beyond[0]:,}. Tokenizer and weights belong to different models; restore both from "
            "the same model."
        )
