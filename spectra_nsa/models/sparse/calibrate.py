"""How active a vocabulary is, and its calibration before the first step.

A masked LM's head was not made for sparse vectors. Before training nearly every term may be active, or none, and the
logits may be so large that all texts look alike (sentence-transformers#3431; Nogueira et al. 2026 on ModernBERT). Then
no regularizer helps. `calibrate` moves and scales the logits on a sample; `check_vocabulary_use` refuses what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sentence_transformers.util import batch_to_device
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.metrics.finite import not_finite
from spectra_nsa.models.encoding.loop import batches
from spectra_nsa.models.sparse.closed_form import untie_decoder
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.models.sparse.head import VocabularyHead
from spectra_nsa.models.sparse.pooling import max_logits

COMMON = 0.5  # the share of the texts in which a term may be active after calibration
_STRONGEST = 6.4  # the logit of a text's strongest term after calibration: it weighs log1p(6.4) = 2.0
_ALIKE = 0.8  # the mean overlap of two texts' terms from which all texts look alike
_KEPT = (0.2, 3.0)  # active dimensions, as multiples of the target, of a head that stays as it is


@dataclass(frozen=True, kw_only=True)
class VocabularyUse:
    """How a sample of texts uses the vocabulary.

    Attributes:
        active: the mean number of active terms.
        overlap: the mean share of terms that two texts have in common (Jaccard).
        common: the number of terms that are active in more than half of the texts.
        strongest: the median weight of a text's strongest term.
    """

    active: float
    overlap: float
    common: int
    strongest: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a calibration did to the use of the vocabulary by its sample.

    Attributes:
        before: the use that it found.
        after: the use that it left.
        changed: whether it changed the head.
    """

    before: VocabularyUse
    after: VocabularyUse
    changed: bool


def vocabulary_use(vectors_NV: Tensor) -> VocabularyUse:
    """Measures the vectors of a sample: (N, V), at least two."""
    active_NV = (vectors_NV > 0).float()
    sizes_N = active_NV.sum(1)
    shared = active_NV[:-1] * active_NV[1:]
    union_N = (sizes_N[:-1] + sizes_N[1:] - shared.sum(1)).clamp_min(1)
    return VocabularyUse(
        active=float(sizes_N.mean()),
        overlap=float((shared.sum(1) / union_N).mean()),
        common=int((active_NV.mean(0) > COMMON).sum()),
        strongest=float(vectors_NV.amax(1).median()),
    )


def check_vocabulary_use(use: VocabularyUse, width: int, *, calibrated: bool = False) -> None:
    """Checks that a vocabulary can be trained.

    Args:
        use: that of a sample.
        width: the size of the vocabulary.
        calibrated: whether the logits were calibrated, so that this is no remedy.

    Raises:
        SpectraError: it is silent, active throughout, or the same for all texts.
    """
    first = (
        "Calibration does not help. Set "
        if calibrated
        else ("Set sparse.calibrate=256, which moves and scales the logits before the first step, or ")
    )
    remedy = f"{first}sparse.head=closed_form, which makes a new head, or start from a different checkpoint."
    if use.active < 1:
        raise SpectraError(f"the model's vocabulary is silent: {use.active:.2f} active terms a text. {remedy}")
    if use.active > width / 2:
        raise SpectraError(
            f"the model's vocabulary is active throughout: {use.active:,.0f} of {width:,} terms a text. {remedy}"
        )
    if use.overlap > _ALIKE:
        raise SpectraError(
            f"the model maps all texts to the same terms: two texts share {use.overlap:.0%} of theirs. {remedy}"
        )


@torch.no_grad()
def calibrate(
    model: SpectraSparseEncoder, texts: Sequence[str], target: float, *, precision: str = "fp32"
) -> Calibration:
    """Moves and scales the logits so that a text has about `target` active terms. A head that has stays as it is.

    Each term's bias falls by the same amount, and by more where the term would be active in more than half of the
    texts. The scale makes the median strongest term weigh 2. It goes into the norm before the decoder, which stays tied
    to the token embedding, or into the decoder if there is no such norm.

    Args:
        model: changed in place.
        texts: a sample of documents.
        target: active dimensions per text.
        precision: the number format of the forward passes (see `resolve_precision`).

    Returns:
        the use of the vocabulary before and afterwards.

    Raises:
        SpectraError: see `check_vocabulary_use`.
    """
    head = model.head("document")
    if head is None or head.bias is None:
        raise SpectraError("only a masked LM with a bias for each term can be calibrated. Set sparse.calibrate=0.")
    training = model.training
    model.eval()
    logits_NV = _pooled_logits(model, head, texts, precision)
    before = vocabulary_use(logits_NV.clamp_min(0).log1p())
    if _KEPT[0] * target <= before.active <= _KEPT[1] * target and before.overlap <= _ALIKE:
        model.train(training)
        return Calibration(before=before, after=before, changed=False)
    common_V = logits_NV.quantile(1 - COMMON, dim=0)
    entries = len(logits_NV) * round(target)
    # Terms above their own limit: what is left of them counts towards the target.
    above_NV = torch.where(logits_NV > common_V, logits_NV, -torch.inf)
    threshold = above_NV.flatten().topk(min(entries, above_NV.numel())).values[-1]
    shift_V = torch.maximum(common_V, threshold)
    strongest = float((logits_NV - shift_V).amax(1).median())
    scale = _STRONGEST / strongest if strongest > 0 else 1.0
    if not head.scale_states(scale):
        untie_decoder(head)
        head.weight.mul_(scale)
    head.bias.sub_(shift_V).mul_(scale)
    after = vocabulary_use(((logits_NV - shift_V) * scale).clamp_min(0).log1p())
    model.train(training)
    check_vocabulary_use(after, logits_NV.shape[1], calibrated=True)
    return Calibration(before=before, after=after, changed=True)


@torch.no_grad()
def cap_common_terms(
    model: SpectraSparseEncoder, texts: Sequence[str], share: float, *, precision: str = "fp32"
) -> int:
    """Lowers the bias of each term that is active in more than a share of the texts, until it is not.

    Such terms tell texts apart the least and have the longest posting lists.

    Args:
        model: changed in place.
        texts: a sample of documents.
        share: the highest document frequency.
        precision: the number format of the forward passes (see `resolve_precision`).

    Returns:
        the number of terms that were lowered.
    """
    head = model.head("document")
    if head is None or head.bias is None:
        return 0
    training = model.training
    model.eval()
    common_V = _pooled_logits(model, head, texts, precision).quantile(1 - share, dim=0)
    lowered_V = common_V > 0
    head.bias.sub_(common_V.clamp_min(0))
    model.train(training)
    return int(lowered_V.sum())


@torch.no_grad()
def measure_use(
    model: SpectraSparseEncoder, texts: Sequence[str], role: str = "document", *, precision: str = "fp32"
) -> VocabularyUse:
    """Measures how a sample of texts uses the vocabulary."""
    rows = model.encode_csr(texts, role, precision=precision)
    return vocabulary_use(torch.from_numpy(rows.toarray()))


def _pooled_logits(model: SpectraSparseEncoder, head: VocabularyHead, texts: Sequence[str], precision: str) -> Tensor:
    """Returns the largest logit of each term in each text, (N, V), also below zero; rows in any order."""
    parts = []
    for _, batch in batches(list(texts), 32):
        features = batch_to_device(model.preprocess(batch, task="document"), model.device)
        with autocast(model.device.type, resolve_precision(precision)):
            states_BTD = head.states({key: features[key] for key in ("input_ids", "attention_mask")})
            parts.append(max_logits(states_BTD, features["attention_mask"], head.weight, head.bias))
    logits_NV = torch.cat(parts)
    if not logits_NV.isfinite().all():
        raise not_finite(int((~logits_NV.isfinite().all(1)).sum()), len(logits_NV), "the masked LM", "logits")
    return logits_NV
