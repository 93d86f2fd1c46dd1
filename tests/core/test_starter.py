"""The starting weights are checked before they are loaded."""

from __future__ import annotations

import importlib.machinery
from pathlib import Path

import pytest

from spectra_nsa.core import starter


def test_the_package_gives_the_known_weights(minilm: Path) -> None:
    folder, origin = starter.starter_checkpoint()
    assert starter.sha256(folder / "model.safetensors") == starter.WEIGHTS_SHA256
    assert "all-MiniLM-L6-v2" in origin


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"tampered")
    (tmp_path / "__init__.py").write_text("")
    spec = importlib.machinery.ModuleSpec("x", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(starter, "find_spec", lambda name: spec)
    monkeypatch.setattr(starter, "_from_cache", lambda: None)
    with pytest.raises(ValueError, match=r"not loaded.*force-reinstall"):
        starter.starter_checkpoint()


def test_no_weights_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "find_spec", lambda name: None)
    monkeypatch.setattr(starter, "_from_cache", lambda: None)
    with pytest.raises(ValueError, match=r"spectra-nsa\[starter\]"):
        starter.starter_checkpoint()
