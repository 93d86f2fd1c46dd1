"""Fitting of a saved model's binary codes or anomaly head to texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.strings import is_blank
from spectra_nsa.models.checks import local_folder
from spectra_nsa.models.open import find_model, open_model

if TYPE_CHECKING:
    from spectra_nsa.heads.bridge import HashBridge
    from spectra_nsa.heads.fit_codes import Pair
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

MAX_HELD_OUT = 300  # queries to measure a fit with
CANDIDATES = 100
MAX_TEXTS = 20_000  # to fit to; a random sample if there are more


def fit_codes_on(
    model: str,
    texts: Iterable[str],
    queries: Iterable[str] | None = None,
    *,
    output: str | Path | None = None,
    seed: int = 0,
    name: str = "the corpus",
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fits the binary codes to a corpus and saves the model.

    Args:
        model: a saved model's folder, or a BERT checkpoint (which requires `output`).
        texts: the corpus. Repeated texts count once; if there are more than 20,000, a random sample is used.
        queries: typical queries; ``None`` uses excerpts of the documents, 6 to 20 words long.
        output: the folder to write; ``None`` replaces `model`.
        seed: seed of the sample, the excerpts and the fit.
        name, say: what errors call the corpus; called with each line of progress.

    Returns:
        the folder, the numbers of texts and of held-out queries, and the recall of the held-out queries' ten nearest
        texts among the first 100 (by 64, 128 and 256 bits, symmetric and asymmetric), before and after.

    Raises:
        SpectraError: there are too few texts, or the model cannot be opened or computes NaN or infinity.
        UsageError: the model cannot be written to that folder.
    """
    import torch

    from spectra_nsa.heads.fit_codes import check_text_count, fit_codes
    from spectra_nsa.training.init.fit_heads import hash_inputs

    target = fit_target(model, output)
    generator = random.Random(seed)
    documents = _distinct(texts)
    check_text_count(len(documents), name)
    documents = generator.sample(documents, MAX_TEXTS) if len(documents) > MAX_TEXTS else documents
    encoder = open_model(model)
    say(f"encoding {counted(len(documents), 'text')}")
    corpus = hash_inputs(encoder, documents, "document", "auto", name=model)
    query_texts = _distinct(queries, "queries") if queries is not None else excerpts(documents, generator)
    has_queries = len(query_texts) >= 4
    if has_queries:
        query_texts = generator.sample(query_texts, min(len(query_texts), MAX_TEXTS))
        say(f"encoding {counted(len(query_texts), 'query')}")
        inputs = hash_inputs(encoder, query_texts, "query", "auto", name=model)
    else:  # the texts are too short for excerpts: they serve as queries themselves
        rows = torch.tensor(generator.sample(range(len(documents)), len(documents)))
        inputs = (corpus[0][rows], corpus[1][rows])
    count = min(MAX_HELD_OUT, len(inputs[0]) // 4)
    held_out, fitted = ((inputs[0][part], inputs[1][part]) for part in (slice(count), slice(count, None)))
    bridge = encoder.spectra.bridge.cpu()
    before = code_recall(bridge, corpus, held_out)
    pairs = (corpus, fitted) if has_queries else (fitted,)
    fit_codes(bridge, *pairs, seed=seed, on_step=_report_loss(say))
    encoder.spectra.config.codes_fitted = True
    _save(encoder, target)
    after = code_recall(bridge, corpus, held_out)
    return {"folder": str(target), "texts": len(documents), "queries": count, "before": before, "after": after}


def excerpts(texts: Sequence[str], generator: random.Random) -> list[str]:
    """Returns 6 to 20 of the first 90 words of each text with more than 12 words, to serve as queries."""
    cut = []
    for text in texts:
        words = text.split()[:90]
        if len(words) > 12:
            size = min(generator.randint(6, 20), len(words) // 2)
            start = generator.randrange(len(words) - size + 1)
            cut.append(" ".join(words[start : start + size]))
    return cut


def fit_anomaly_on(
    model: str,
    texts: Iterable[str],
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
        the folder and the figures of the fit.

    Raises:
        SpectraError: there are too few texts, or the model cannot be opened or computes NaN or infinity.
        UsageError: `prototypes` or `level` does not suit the texts, or the model cannot be written to that folder.
    """
    import torch

    from spectra_nsa.heads.fit_anomaly import check_fit, fit_anomaly
    from spectra_nsa.metrics.finite import check_finite
    from spectra_nsa.models.encoding.roles import encode_role

    target = fit_target(model, output)
    normal = _distinct(texts)
    check_fit(len(normal), prototypes, level)
    encoder = open_model(model)
    say(f"encoding {counted(len(normal), 'text')}")
    semantic = encode_role(encoder, normal, "document", precision="auto", outputs=["semantic"])["semantic"]
    check_finite(semantic, model)
    fit = fit_anomaly(torch.from_numpy(semantic), prototypes=prototypes, level=level, seed=seed)
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


def code_recall(bridge: HashBridge, documents: Pair, queries: Pair) -> dict[str, dict[str, float]]:
    """Returns the recall of the ten nearest documents among the first 100 by code, for each width and scoring."""
    import torch

    from spectra_nsa.heads.bridge import WIDTHS
    from spectra_nsa.metrics.hashing import candidate_recall

    document_ND, query_QD = (torch.nn.functional.normalize(pair[1], dim=-1) for pair in (documents, queries))
    nearest_QK = (query_QD @ document_ND.T).topk(min(10, len(document_ND))).indices.numpy()
    with torch.no_grad():
        bits_NB = torch.where(bridge(documents[0]) > 0, 1.0, -1.0)
        logits_QB = bridge(queries[0])
    queries_QB = {"symmetric": torch.where(logits_QB > 0, 1.0, -1.0), "asymmetric": logits_QB}
    recall: dict[str, dict[str, float]] = {}
    for width in WIDTHS:
        scores = {name: (query_QB[:, :width] @ bits_NB[:, :width].T).numpy() for name, query_QB in queries_QB.items()}
        recall[str(width)] = {
            name: candidate_recall(nearest_QK, scores_QN, [CANDIDATES])[CANDIDATES]
            for name, scores_QN in scores.items()
        }
    return recall


def fit_target(model: str, output: str | Path | None) -> Path:
    """Returns the folder to write the fitted model to. Loads nothing.

    Args:
        model, output: as for `fit_codes_on`.

    Raises:
        UsageError: the folder cannot be replaced, or `model` is no saved model and `output` names no folder.
        SpectraError: there is no such model.
    """
    if output is not None:
        check_replaceable(output, "modules.json")
        local_folder(model)
        return Path(output)
    if local_folder(model) is None:
        raise UsageError(f"{model} is not a folder, so it cannot be written to: name a folder with --output.")
    if find_model(model).kind == "bert":
        raise UsageError(f"{model} is a checkpoint, not a saved Spectra model: name a folder with --output.")
    return expand_user(model)


def _distinct(texts: Iterable[str], what: str = "texts") -> list[str]:
    distinct = list(dict.fromkeys(text for text in text_list(texts, what) if not is_blank(text)))
    if not distinct:
        raise SpectraError("there are no texts to fit to.")
    return distinct


def _report_loss(say: Callable[[str], None]) -> Callable[[int, float], None]:
    def report(step: int, loss: float) -> None:
        if step % 50 == 0:
            say(f"fitting: step {step}, loss {loss:.3f}")

    return report


def _save(encoder: SpectraSentenceTransformer, target: Path) -> None:
    with atomic_folder(target) as temporary:
        encoder.save_pretrained(str(temporary))
