"""Importing this module lets transformers' Auto classes and sentence-transformers open Spectra model folders."""

from spectra_nsa.models.model import register

register()
