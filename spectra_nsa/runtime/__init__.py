"""Exported models without torch: onnxruntime, tokenizers and numpy."""

from spectra_nsa.runtime.runtime import Runtime

__all__ = ["Runtime"]
