from __future__ import annotations

import os
from pathlib import Path

import pytest

from spectra_nsa.evaluation.systems import DenseSystem

from .words import WordModel


@pytest.fixture
def dense() -> DenseSystem:
    return DenseSystem("words", WordModel())


@pytest.fixture
def noisy() -> DenseSystem:
    return DenseSystem("noisy", WordModel(noise=4.0))


@pytest.fixture
def data() -> Path:
    folder = Path(os.environ.get("SPECTRA_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the public data sets are not here (SPECTRA_DATA)")
    return folder
