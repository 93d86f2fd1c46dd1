"""A model that others learn from: ours, a BERT-architecture checkpoint, or another that sentence-transformers opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json
from spectra_nsa.models.checks import SUPPORTED, model_checksum, resolve_folder, transformer_folder

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

    def manner(self, column: str) -> str:
        """How it encodes the texts of a column: the same answer means the same vector for the same text."""
        role = role_of(column)
        prompts = self.model.prompts
        usual = prompts.get(self.model.default_prompt_name or "", "")
        apart = role if type(self.model[0]).__name__ == "Router" else ""
        return json.dumps([apart, prompts.get(role) or usual])

    def encode(self, texts: Sequence[str], column: str, precision: str = "fp32") -> np.ndarray:
        """Returns (N, E) float32 unit vectors of a column's texts, with the prompt of their role."""
        import numpy as np

        from spectra_nsa.models.encode import encode_role

        vectors = encode_role(
            self.model, texts, role_of(column), precision=precision, normalize_embeddings=True, batch_size=64
        )
        return np.asarray(vectors, dtype=np.float32)


def role_of(column: str) -> str:
    """``"query"``, ``"document"``, or nothing for texts of which neither is one."""
    return "query" if column == "anchor" else "" if column.startswith("sentence") else "document"


def open_teacher(name: str | Path) -> Teacher:
    """Opens a model to learn from.

    Args:
        name: a folder or a Hub name.

    Raises:
        SpectraError: nothing is there, or it cannot be opened.
    """
    from spectra_nsa.models.warm_start import open_model

    folder = resolve_folder(name)
    config = transformer_folder(folder) / "config.json"
    kind = read_json(config).get("model_type") if config.is_file() else None
    model = open_model(folder) if kind in SUPPORTED else _stock(folder, str(name))
    model.eval()
    return Teacher(str(name), model_checksum(folder), model)


def _stock(folder: Path, name: str) -> SentenceTransformer:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(folder), local_files_only=True, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SpectraError(f"{name} cannot be opened as a sentence-transformers model: {error}") from error
