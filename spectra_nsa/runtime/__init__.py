"""Exported models without torch: onnxruntime, tokenizers and numpy."""

from spectra_nsa.runtime.runtime import Runtime
from spectra_nsa.runtime.sparse import SparseRuntime

__all__ = ["Runtime", "SparseRuntime"]
