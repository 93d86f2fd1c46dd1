"""The system that a user names: a model folder, a Hub name, or BM25."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System


def open_system(name_or_folder: str | Path, *, dim: int | None = None, precision: str = "fp32") -> System:
    """Opens a system to measure.

    Args:
        name_or_folder: ``"bm25"``; the folder of a saved model, ours or any sentence-transformers one; or a Hub name.
        dim: use only this many leading dimensions; ``None`` uses all. Ignored for ``"bm25"``.
        precision: the number format of a model, as in `DenseSystem`. Ignored for ``"bm25"``.

    Raises:
        SpectraError: it does not exist or cannot be opened.
    """
    if str(name_or_folder) == "bm25":
        from spectra_nsa.evaluation.bm25 import BM25System

        return BM25System()
    from spectra_nsa.models.open import DENSE, open_model

    name = _short_name(name_or_folder)
    model = open_model(name_or_folder, accept=DENSE, convert=False)
    return DenseSystem(name if dim is None else f"{name}@{dim}", model, dim=dim, precision=precision)


def _short_name(name_or_folder: str | Path) -> str:
    """Returns a Hub name unchanged, and a folder's last part; for ``runs/NAME/model``, ``NAME/model``."""
    path = expand_user(name_or_folder)
    if not path.is_dir():
        return str(name_or_folder)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in ("model", "final", "best") else path.name
