"""`import spectra_nsa.hf` lets transformers' Auto classes and plain sentence-transformers open our folders."""

from spectra_nsa.models.model import register

register()
