"""A model that others learn from: ours, a BERT-architecture checkpoint, or another that sentence-transformers opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.models.open import DENSE, find_model, open_model

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Teacher:
    """An open teacher.

    Attributes:
        name: as it was given.
        checksum: SHA-256 of its files' names and SHA-256s.
        model: the model itself.
    """

    name: str
    checksum: str
    model: SentenceTransformer

    @property
    def width(self) -> int:
        """How many numbers its vectors have."""
        width = self.model.get_embedding_dimension()
        assert width is not None
        return width

    def encoding_key(self, column: str) -> str:
        """How it encodes the texts of a column: the same answer means the same vector for the same text."""
        role = column_role(column)
        prompts = self.model.prompts
        usual = prompts.get(self.model.default_prompt_name or "", "")
        apart = role if type(self.model[0]).__name__ == "Router" else ""
        return json.dumps([apart, prompts.get(role) or usual])

    def encode(self, texts: Sequence[str], column: str, precision: str = "fp32") -> np.ndarray:
        """Returns (N, E) float32 unit vectors of a column's texts, with the prompt of their role."""
        import numpy as np

        from spectra_nsa.models.encode import encode_role

        vectors = encode_role(
            self.model, texts, column_role(column), precision=precision, normalize_embeddings=True, batch_size=64
        )
        return np.asarray(vectors, dtype=np.float32)


def column_role(column: str) -> str:
    """``"query"``, ``"document"``, or nothing for texts of which neither is one."""
    return "query" if column == "anchor" else "" if column.startswith("sentence") else "document"


def open_teacher(name: str | Path) -> Teacher:
    """Opens a model to learn from.

    Args:
        name: a folder or a Hub name.

    Raises:
        SpectraError: nothing is there, or it cannot be opened.
    """
    found = find_model(name, accept=DENSE)
    return Teacher(found.name, found.checksum, open_model(found).eval())
