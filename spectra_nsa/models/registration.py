"""Registration with transformers' Auto classes."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraForMaskedLM, SpectraModel


def register() -> None:
    """Makes `AutoConfig`, `AutoModel` and `AutoModelForMaskedLM` know our folders; calling it again is harmless."""
    AutoConfig.register(SpectraConfig.model_type, SpectraConfig, exist_ok=True)
    AutoModel.register(SpectraConfig, SpectraModel, exist_ok=True)
    AutoModelForMaskedLM.register(SpectraConfig, SpectraForMaskedLM, exist_ok=True)
