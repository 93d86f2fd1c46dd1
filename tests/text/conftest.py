"""The folder of public datasets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Returns the folder of public datasets; skips the test if there is none."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("SPECTRA_DATA", root / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no public datasets: set SPECTRA_DATA")
    return folder
