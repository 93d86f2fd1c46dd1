"""Distillation teachers: Spectra models, BERT-architecture checkpoints, or other sentence-transformers models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.models.open import DENSE, find_model, open_model
from spectra_nsa.models.prompts import column_role, role_prompt

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Teacher:
    """An opened teacher.

    Attributes:
        name: its folder or Hub name, as the user wrote it.
        checksum: see `model_checksum`.
        model: the opened model.
    """

    name: str
    checksum: str
    model: SentenceTransformer

    @property
    def width(self) -> int:
        """The number of dimensions of its vectors."""
        width = self.model.get_embedding_dimension()
        assert width is not None
        return width

    def encoding_key(self, column: str) -> str:
        """Returns a string for how a column is encoded; columns with the same string give a text the same vector."""
        role = column_role(column)
        route = role if type(self.model[0]).__name__ == "Router" else ""
        return json.dumps([route, role_prompt(self.model.prompts, self.model.default_prompt_name, role)])

    def encode(self, texts: Sequence[str], column: str, precision: str = "fp32") -> np.ndarray:
        """Returns (N, E) float32 unit vectors of a column's texts, with the prompt of their role."""
        import numpy as np

        from spectra_nsa.models.encoding.roles import encode_role

        vectors = encode_role(
            self.model, texts, column_role(column), precision=precision, normalize_embeddings=True, batch_size=64
        )
        return np.asarray(vectors, dtype=np.float32)


def open_teacher(name: str | Path) -> Teacher:
    """Opens a teacher.

    Args:
        name: a folder or a Hub name.

    Raises:
        SpectraError: there is no such model, or it cannot be opened.
    """
    found = find_model(name, accept=DENSE)
    return Teacher(found.name, found.checksum, open_model(found).eval())
