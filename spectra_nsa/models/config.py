"""A model's `config.json` as transformers reads and writes it."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from spectra_nsa.heads.spec import ModelSpec


class SpectraConfig(ModelSpec, PreTrainedConfig):
    """Configuration of `SpectraModel` and `SpectraForMaskedLM`: a `ModelSpec` that transformers can save and load."""

    model_type = "spectra_nsa"

    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        PreTrainedConfig.__post_init__(self, **kwargs)
        ModelSpec.__post_init__(self)
