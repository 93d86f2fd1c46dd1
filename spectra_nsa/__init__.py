"""Spectra-NSA: train, measure, compress, ship and search text-embedding models.

Public names load on first use, so importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "load": "spectra_nsa.models.open",
    "warm_start": "spectra_nsa.models.warm_start",
    "SpectraSentenceTransformer": "spectra_nsa.models.sentence",
    "SpectraSparseEncoder": "spectra_nsa.models.sparse.encoder",
    "QueryWeights": "spectra_nsa.models.sparse.query_side",
    "SparseIndex": "spectra_nsa.index.sparse.index",
    "Pruning": "spectra_nsa.index.sparse.pruning",
    "export_bert": "spectra_nsa.export.bert",
    "similar_texts": "spectra_nsa.workflows.search",
    "load_source": "spectra_nsa.text.sources",
    "mine": "spectra_nsa.workflows.mine.run",
    "train": "spectra_nsa.training.run",
    "SpectraError": "spectra_nsa.core.errors",
}

__all__ = [
    "Pruning",
    "QueryWeights",
    "SparseIndex",
    "SpectraError",
    "SpectraSentenceTransformer",
    "SpectraSparseEncoder",
    "__version__",
    "export_bert",
    "load",
    "load_source",
    "mine",
    "similar_texts",
    "train",
    "warm_start",
]

if TYPE_CHECKING:
    from spectra_nsa.core.errors import SpectraError
    from spectra_nsa.export.bert import export_bert
    from spectra_nsa.index.sparse.index import SparseIndex
    from spectra_nsa.index.sparse.pruning import Pruning
    from spectra_nsa.models.open import load
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
    from spectra_nsa.models.sparse.query_side import QueryWeights
    from spectra_nsa.models.warm_start import warm_start
    from spectra_nsa.text.sources import load_source
    from spectra_nsa.training.run import train
    from spectra_nsa.workflows.mine.run import mine
    from spectra_nsa.workflows.search import similar_texts


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'spectra_nsa' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
