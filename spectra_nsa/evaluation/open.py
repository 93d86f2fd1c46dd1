"""Opens what a user names as a system to measure: a model folder, a Hub name, or BM25."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System


def open_system(name_or_folder: str | Path, *, dim: int | None = None, precision: str = "fp32") -> System:
    """Opens what a user names.

    Args:
        name_or_folder: ``"bm25"``; the folder of a saved model, ours or any sentence-transformers one; or a Hub name.
        dim: keep this many leading dimensions; ``None`` keeps all. Does not concern ``"bm25"``.
        precision: what a model computes in, as in `DenseSystem`.

    Raises:
        SpectraError: nothing is there, or it cannot be opened.
    """
    if str(name_or_folder) == "bm25":
        from spectra_nsa.evaluation.bm25 import BM25System

        return BM25System()
    from spectra_nsa.models.open import DENSE, open_model

    name = _short_name(name_or_folder)
    model = open_model(name_or_folder, accept=DENSE, convert=False)
    return DenseSystem(name if dim is None else f"{name}@{dim}", model, dim=dim, precision=precision)


def _short_name(name_or_folder: str | Path) -> str:
    """A Hub name as it is; of a folder its last part, or the run's name for ``runs/NAME/model``."""
    path = Path(name_or_folder).expanduser()
    if not path.is_dir():
        return str(name_or_folder)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in ("model", "final", "best") else path.name
