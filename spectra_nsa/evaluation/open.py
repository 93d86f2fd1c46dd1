"""Opens what a user names as a system to measure: a model folder, a Hub name, or BM25."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError
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
    name = _short_name(name_or_folder)
    model = _open_model(name_or_folder)
    return DenseSystem(name if dim is None else f"{name}@{dim}", model, dim=dim, precision=precision)


def _short_name(name_or_folder: str | Path) -> str:
    """A Hub name as it is; of a folder its last part, or the run's name for ``runs/NAME/model``."""
    path = Path(name_or_folder).expanduser()
    if not path.is_dir():
        return str(name_or_folder)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in ("model", "final", "best") else path.name


def _open_model(name_or_folder: str | Path) -> Any:
    """Our own models by our loader; any other by sentence-transformers, from local files only."""
    from spectra_nsa.core.files import read_json
    from spectra_nsa.models.checks import resolve_folder
    from spectra_nsa.models.sentence import load

    folder = resolve_folder(name_or_folder)
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "spectra_nsa":
        return load(folder)
    if not config.is_file() and not (folder / "modules.json").is_file():
        raise SpectraError(f"{folder} has neither config.json nor modules.json: it is not a model folder.")
    import transformers
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        return SentenceTransformer(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SpectraError(f"{name_or_folder} cannot be opened as a sentence-transformers model: {error}") from error
