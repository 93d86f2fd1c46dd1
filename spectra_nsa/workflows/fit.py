"""Fitting a saved model's hash or anomaly head to texts, and writing the model back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder, check_replaceable

if TYPE_CHECKING:
    from spectra_nsa.heads.bridge import HashBridge
    from spectra_nsa.heads.fit_codes import Pair
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

HELD_OUT = 300  # queries that a fit is measured with, which it has not seen
CANDIDATES = 100
ENOUGH = 20_000  # texts to fit to; of more, a random sample


def fit_codes_on(
    model: str,
    texts: Sequence[str],
    queries: Sequence[str] | None = None,
    *,
    output: str | Path | None = None,
    seed: int = 0,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fits the hash to a corpus and saves the model.

    Args:
        model: a saved model's folder, or a checkpoint (then `output` is needed).
        texts: the corpus; each text counts once, and of more than 20,000 a sample is taken.
        queries: texts such as it will be searched with; ``None`` takes excerpts of the documents, 6 to 20 words long.
        output: where to; ``None`` writes into the model's own folder.
        seed: of sample, excerpts and fit.
        say: called with lines of progress.

    Returns:
        the folder, the numbers of texts and of queries held out, and recall of the ten nearest texts among the first
        100 by 64, 128 and 256 bits, symmetric and asymmetric, before and after, for the queries held out.
    """
    from spectra_nsa.heads.fit_codes import check_text_count, fit_codes
    from spectra_nsa.training.init.fit_heads import hash_inputs

    target = _target(model, output)
    generator = random.Random(seed)
    documents = _once(texts)
    check_text_count(len(documents))
    documents = generator.sample(documents, ENOUGH) if len(documents) > ENOUGH else documents
    encoder = _opened(model)
    say(f"encoding {len(documents):,} texts")
    found = hash_inputs(encoder, documents, "document", "auto")
    asked = _once(queries) if queries is not None else excerpts(documents, generator)
    if len(asked) >= 4:
        asked = generator.sample(asked, min(len(asked), ENOUGH))
        say(f"encoding {len(asked):,} queries")
        unseen = hash_inputs(encoder, asked, "query", "auto")
    else:  # texts too short to have excerpts stand for queries themselves
        rows = torch.tensor(generator.sample(range(len(documents)), len(documents)))
        unseen = (found[0][rows], found[1][rows])
    share = min(HELD_OUT, len(unseen[0]) // 4)
    held_out = (unseen[0][:share], unseen[1][:share])
    seen = (unseen[0][share:], unseen[1][share:])
    bridge = encoder.spectra.bridge.cpu()
    before = code_recall(bridge, found, held_out)
    if len(asked) >= 4:
        fit_codes(bridge, found, seen, seed=seed, on_step=_watch(say))
    else:
        fit_codes(bridge, seen, seed=seed, on_step=_watch(say))
    encoder.spectra.config.codes_fitted = True
    _save(encoder, target)
    return {
        "folder": str(target),
        "texts": len(documents),
        "queries": share,
        "before": before,
        "after": code_recall(bridge, found, held_out),
    }


def excerpts(texts: Sequence[str], generator: random.Random) -> list[str]:
    """6 to 20 words from somewhere in the first 90 of each text that has more than 12: they stand for queries."""
    found = []
    for text in texts:
        words = text.split()[:90]
        if len(words) > 12:
            size = min(generator.randint(6, 20), len(words) // 2)
            start = generator.randrange(len(words) - size + 1)
            found.append(" ".join(words[start : start + size]))
    return found


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
    from spectra_nsa.heads.fit_anomaly import check_fit, fit_anomaly
    from spectra_nsa.models.encode import encode_role

    target = _target(model, output)
    normal = _once(texts)
    check_fit(len(normal), prototypes, level)
    encoder = _opened(model)
    say(f"encoding {len(normal):,} texts")
    semantic = torch.from_numpy(
        encode_role(encoder, normal, "document", precision="auto", outputs=["semantic"])["semantic"]
    )
    fit = fit_anomaly(semantic, prototypes=prototypes, level=level, seed=seed)
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
def code_recall(bridge: HashBridge, documents: Pair, queries: Pair) -> dict[str, dict[str, float]]:
    """Recall of the ten nearest documents among the first 100 by code, by width: symmetric and asymmetric scoring."""
    from spectra_nsa.heads.bridge import WIDTHS
    from spectra_nsa.metrics.hashing import candidate_recall

    target_ND, asked_QD = (torch.nn.functional.normalize(side[1], dim=-1) for side in (documents, queries))
    wanted_QK = (asked_QD @ target_ND.T).topk(min(10, len(target_ND))).indices.numpy()
    bits_NB = torch.where(bridge(documents[0]) > 0, 1.0, -1.0)
    logits_QB = bridge(queries[0])
    sides = {"symmetric": torch.where(logits_QB > 0, 1.0, -1.0), "asymmetric": logits_QB}
    found: dict[str, dict[str, float]] = {}
    for width in WIDTHS:
        scores = {name: (side_QB[:, :width] @ bits_NB[:, :width].T).numpy() for name, side_QB in sides.items()}
        found[str(width)] = {
            name: candidate_recall(wanted_QK, scores_QN, [CANDIDATES])[CANDIDATES] for name, scores_QN in scores.items()
        }
    return found


def _target(model: str, output: str | Path | None) -> Path:
    """Where the fitted model goes, checked before any work."""
    if output is not None:
        check_replaceable(output, "modules.json")
        return Path(output)
    from spectra_nsa.models.checks import check_folder, named_folder

    named_folder(model)
    if not (Path(model) / "config.json").is_file():
        raise UsageError(f"{model} is not a folder to write into: name one with --output.")
    if check_folder(Path(model)) == "bert":
        raise UsageError(f"{model} is a checkpoint, not a saved Spectra model: name a folder with --output.")
    return Path(model)


def _once(texts: Sequence[str]) -> list[str]:
    once = list(dict.fromkeys(text for text in texts if text.strip()))
    if not once:
        raise SpectraError("there are no texts to fit to.")
    return once


def _opened(model: str) -> SpectraSentenceTransformer:
    from spectra_nsa.models.open import open_model

    return open_model(model)


def _watch(say: Callable[[str], None]) -> Callable[[int, float], None]:
    def watch(step: int, loss: float) -> None:
        if step % 50 == 0:
            say(f"fitting: step {step}, loss {loss:.3f}")

    return watch


def _save(encoder: SpectraSentenceTransformer, target: Path) -> None:
    with atomic_folder(target) as temporary:
        encoder.save_pretrained(str(temporary))
