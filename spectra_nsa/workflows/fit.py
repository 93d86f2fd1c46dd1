"""Fitting a saved model's hash or anomaly head to texts, and writing the model back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

QUERIES = 300  # documents that stand for queries when a fit is measured
CANDIDATES = 100


def fit_codes_on(
    model: str, texts: Sequence[str], *, output: str | Path | None = None, seed: int = 0, say: Callable[[str], None]
) -> dict[str, Any]:
    """Fits the hash to a corpus and saves the model.

    Args:
        model: a saved model's folder, or a checkpoint (then `output` is needed).
        texts: the corpus; each text counts once.
        output: where to; ``None`` writes into the model's own folder.
        seed: see `fit_codes`.
        say: called with lines of progress.

    Returns:
        the folder, the number of texts, and recall of the ten nearest texts among the first 100 by 64, 128 and 256
        bits, symmetric and asymmetric, before and after; measured with texts of the corpus as queries.
    """
    from spectra_nsa.models.fit_codes import fit_codes

    target = _target(model, output)
    encoder, vectors = _encoded(model, texts, ("semantic", "entity", "embedding"), say)
    spectra = encoder.spectra
    semantic, embedding = torch.from_numpy(vectors["semantic"]), torch.from_numpy(vectors["embedding"])
    hashed = torch.cat([semantic, torch.from_numpy(vectors["entity"])], dim=1) if spectra.config.entity else semantic
    bridge = spectra.bridge.cpu()
    before = code_recall(bridge, hashed, embedding)
    fit_codes(bridge, hashed, embedding, seed=seed, watch=_watch(say))
    spectra.config.codes_fitted = True
    _save(encoder, target)
    return {
        "folder": str(target),
        "texts": len(embedding),
        "before": before,
        "after": code_recall(bridge, hashed, embedding),
    }


def fit_anomaly_on(
    model: str,
    texts: Sequence[str],
    *,
    output: str | Path | None = None,
    prototypes: int | None = None,
    level: float = 0.05,
    seed: int = 0,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fits the anomaly head to texts of a domain and saves the model.

    Args:
        model, texts, output, say: as for `fit_codes_on`.
        prototypes, level, seed: see `fit_anomaly`.

    Returns:
        the folder, and what the fit says of itself.
    """
    from spectra_nsa.models.fit_anomaly import fit_anomaly

    target = _target(model, output)
    encoder, vectors = _encoded(model, texts, ("semantic",), say)
    fit = fit_anomaly(torch.from_numpy(vectors["semantic"]), prototypes=prototypes, level=level, seed=seed)
    config = encoder.spectra.config
    config.anomaly_method = fit.head.method
    config.anomaly_prototypes, config.anomaly_calibration = fit.prototypes, fit.calibration
    config.anomaly_level = level
    encoder.spectra.anomaly = fit.head
    _save(encoder, target)
    return {
        "folder": str(target),
        "method": fit.head.method,
        "texts": fit.texts,
        "prototypes": fit.prototypes,
        "calibration": fit.calibration,
        "level": level,
        "false_alarms": fit.false_alarms,
        "checked": fit.checked,
    }


@torch.no_grad()
def code_recall(bridge: Any, hashed_NX: torch.Tensor, target_ND: torch.Tensor) -> dict[str, dict[str, float]]:
    """Recall of the ten nearest texts among the first 100 by code, by width: symmetric and asymmetric scoring."""
    from spectra_nsa.heads.bridge import WIDTHS
    from spectra_nsa.metrics.hashing import candidate_recall

    target_ND = torch.nn.functional.normalize(target_ND, dim=-1)
    queries = torch.linspace(0, len(target_ND) - 1, min(QUERIES, len(target_ND))).long()
    wanted_QK = (target_ND[queries] @ target_ND.T).topk(min(10, len(target_ND))).indices.numpy()
    logits_NB = bridge(hashed_NX)
    bits_NB = torch.where(logits_NB > 0, 1.0, -1.0)
    found: dict[str, dict[str, float]] = {}
    for width in WIDTHS:
        found[str(width)] = {
            name: candidate_recall(wanted_QK, (side[queries, :width] @ bits_NB[:, :width].T).numpy(), [CANDIDATES])[
                CANDIDATES
            ]
            for name, side in (("symmetric", bits_NB), ("asymmetric", logits_NB))
        }
    return found


def _target(model: str, output: str | Path | None) -> Path:
    """Where the fitted model goes, checked before any work."""
    if output is not None:
        return Path(output)
    if not (Path(model) / "config.json").is_file():
        raise UsageError(f"{model} is not a folder to write into: name one with --output.")
    from spectra_nsa.models.checks import check_folder

    if check_folder(Path(model)) == "bert":
        raise UsageError(f"{model} is a checkpoint, not a saved Spectra model: name a folder with --output.")
    return Path(model)


def _encoded(
    model: str, texts: Sequence[str], outputs: tuple[str, ...], say: Callable[[str], None]
) -> tuple[SpectraSentenceTransformer, dict[str, np.ndarray]]:
    from spectra_nsa.models.warm_start import open_model
    from spectra_nsa.training.precision import autocast, resolve_precision

    once = list(dict.fromkeys(text for text in texts if text.strip()))
    if not once:
        raise SpectraError("there are no texts to fit to.")
    encoder = open_model(model)
    say(f"encoding {len(once):,} texts")
    with autocast(encoder.device.type, resolve_precision("auto")):
        return encoder, encoder.encode(once, outputs=outputs)


def _watch(say: Callable[[str], None]) -> Callable[[int, float], None]:
    def watch(step: int, loss: float) -> None:
        if step % 50 == 0:
            say(f"fitting: step {step}, loss {loss:.3f}")

    return watch


def _save(encoder: SpectraSentenceTransformer, target: Path) -> None:
    with atomic_folder(target) as temporary:
        encoder.save_pretrained(str(temporary))
