from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np


class WordModel:
    """A stand-in for a SentenceTransformer: a text's vector is the sum of its words' fixed random vectors."""

    default_prompt_name = None

    def __init__(self, width: int = 64, *, noise: float = 0.0) -> None:
        self.prompts: dict[str, str] = {}
        self.width, self.noise = width, noise
        self.encoded: list[str] = []

    def get_embedding_dimension(self) -> int:
        return self.width

    def encode_query(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        return self._encode(texts, **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> np.ndarray:
        return self._encode(texts, **options)

    def _encode(
        self, texts: Sequence[str], *, normalize_embeddings: bool, truncate_dim: int | None = None, **options: Any
    ) -> np.ndarray:
        self.encoded += texts
        rows = np.stack([self._row(text) for text in texts])[:, :truncate_dim]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return (rows / np.where(norms > 0, norms, 1)).astype(np.float32) if normalize_embeddings else rows

    def _row(self, text: str) -> np.ndarray:
        words = text.lower().split()
        row = np.zeros(self.width)
        for word in words:
            row += np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.width)
        if self.noise:
            row += self.noise * np.random.default_rng(zlib.crc32(text.encode()) + 1).normal(size=self.width)
        return row
