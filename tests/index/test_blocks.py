"""Blocks on disk: damage and a full disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index.blocks import Blocks


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blocks:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Blocks(Cache("kind", keep=2).entry(name="key"))


def test_a_damaged_block_counts_as_missing(blocks: Blocks) -> None:
    for number in range(3):
        blocks.put(number, values=np.arange(100) + number)
    (middle,) = blocks.folder.glob("*1.npz")
    data = bytearray(middle.read_bytes())
    data[len(data) // 2] ^= 255
    middle.write_bytes(data)
    assert blocks.missing(4) == [1, 3]
    reopened = Blocks(Cache("kind", keep=2).entry(name="key"))
    assert reopened.require(2)["values"][0] == 2


def test_the_error_for_a_full_disk_names_the_remedy(blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(SpectraError, match="XDG_CACHE_HOME"):
        blocks.put(0, values=np.zeros(1))
