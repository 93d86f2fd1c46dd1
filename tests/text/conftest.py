"""Small files to read, and the folder of public datasets."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, object], Path]:
    """Writes a file: bytes as they are, a string as UTF-8, a list as JSON Lines; compressed if its name says so."""

    def _write(name: str, content: object) -> Path:
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        data = content.encode() if isinstance(content, str) else content
        assert isinstance(data, bytes)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        if name.endswith(".zst"):
            import zstandard

            data = zstandard.ZstdCompressor().compress(data)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    return _write


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Returns the folder of public datasets; skips the test if there is none."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("SPECTRA_DATA", root / "../shared/data"))
    if not folder.is_dir():
        pytest.skip("no public datasets: set SPECTRA_DATA")
    return folder
