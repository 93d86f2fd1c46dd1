"""Texts to padded token ids as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import missing_extra, opening
from spectra_nsa.runtime.record import TOKENIZER, TextFacts

if TYPE_CHECKING:
    from pathlib import Path


class TextIds:
    """A tokenizer of an exported folder.

    Args:
        folder: the folder.
        facts: how texts become ids.
        length: the length of all texts of a graph with fixed shapes; ``None`` for any.
    """

    def __init__(self, folder: Path, facts: TextFacts, length: int | None = None) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise missing_extra("tokenizers", "runtime") from error
        self.facts, self.length = facts, length
        with opening(folder / TOKENIZER):
            self.backend: Any = Tokenizer.from_file(str(folder / TOKENIZER))
            self.backend.no_padding()
            limit = facts.max_length if length is None else min(length, facts.max_length)
            self.backend.enable_truncation(limit, direction=facts.truncation_side)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the token ids of each text, truncated."""
        return [encoding.ids for encoding in self.backend.encode_batch(list(texts))]

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns ids and mask (B, T) of texts, padded to the longest of them, or to the fixed length."""
        width = self.length or max(1, max(map(len, rows), default=1))
        ids_BT = np.full((len(rows), width), self.facts.pad_id, dtype=np.int64)
        mask_BT = np.zeros((len(rows), width), dtype=np.int64)
        for at, row in enumerate(rows):
            place = slice(0, len(row)) if self.facts.padding_side == "right" else slice(width - len(row), width)
            ids_BT[at, place], mask_BT[at, place] = row, 1
        return ids_BT, mask_BT
