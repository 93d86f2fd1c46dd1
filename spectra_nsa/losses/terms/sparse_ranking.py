"""Terms that rank by dot products of sparse vectors, from matching texts or from teachers.

Legend: B rows, V the vocabulary, K negatives of a row, C candidates of the batch: all positives, then all negatives.
The first column is the queries; all others are documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.config.terms import MARGIN_SCORES, TEACHER_VECTORS
from spectra_nsa.losses.terms.term import Term, TermBatch


def info_nce(columns: Sequence[Tensor], scale: float, *, both_directions: bool) -> Tensor:
    """Computes the mean over rows of −log exp(s q·p) / Σ_c exp(s q·c), s the scale (van den Oord et al. 2018).

    Args:
        columns: queries, positives and any negatives, each (B, V).
        scale: factor on the dot products.
        both_directions: whether the mean also covers the direction from positives to queries.
    """
    scores_BC = scale * candidate_scores(columns)
    own_B = torch.arange(len(scores_BC), device=scores_BC.device)
    forward = F.cross_entropy(scores_BC, own_B)
    if not both_directions:
        return forward
    return (forward + F.cross_entropy(scores_BC[:, : len(own_B)].T, own_B)) / 2


def margin_mse(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Computes the mean squared difference of margins, positive minus negative (Hofstätter et al. 2020).

    Args:
        student_BK: (B, 1 + K) scores of the positive, then of each negative.
        teacher_BK: the same.
    """
    return F.mse_loss(student_BK[:, :1] - student_BK[:, 1:], teacher_BK[:, :1] - teacher_BK[:, 1:])


def kl(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Computes the mean over rows of KL(softmax(teacher) ‖ softmax(student))."""
    return F.kl_div(student_BC.log_softmax(1), teacher_BC.log_softmax(1), log_target=True, reduction="batchmean")


def candidate_scores(columns: Sequence[Tensor]) -> Tensor:
    """Computes the dot products of the first column's vectors with those of all others, (B, C)."""
    return columns[0] @ torch.cat(list(columns[1:])).T


def own_scores(scores_BC: Tensor) -> Tensor:
    """Returns the scores of each row's own positive and negatives, (B, 1 + K)."""
    return torch.stack([part.diagonal() for part in scores_BC.split(len(scores_BC), dim=1)], dim=1)


def unit_range(scores: Tensor, dim: int | None = None) -> Tensor:
    """Maps scores to 0 … 1 by their minimum and maximum along a dimension; ``None`` for those of all."""
    dims = tuple(range(scores.ndim)) if dim is None else (dim,)
    low, high = scores.amin(dims, keepdim=True), scores.amax(dims, keepdim=True)
    return (scores - low) / (high - low).clamp_min(1e-6)


def teacher_scores(batch: TermBatch) -> Tensor:
    """Computes the teachers' scores of all candidates: Σ_t w_t · unit_range(cos_t), times the scale, (B, C).

    Each teacher's cosines are normalized for each query, so that teachers of different spread count by their weights
    (Geng et al. 2024).
    """
    columns = [column[TEACHER_VECTORS] for column in batch.inputs]
    teachers = batch.teachers or ((columns[0].shape[1], 1.0),)
    parts = [column.split([width for width, _ in teachers], dim=1) for column in columns]
    total_BC = sum(
        weight * unit_range(candidate_scores([F.normalize(column[place], dim=-1) for column in parts]), dim=1)
        for place, (_, weight) in enumerate(teachers)
    )
    assert isinstance(total_BC, Tensor)
    return batch.teacher_scale * total_BC


def _given_scores(batch: TermBatch) -> Tensor | None:
    """Returns the scores of the data, (B, 1 + K); ``None`` if there are none."""
    if MARGIN_SCORES not in batch.inputs[1]:
        return None
    return torch.stack([column[MARGIN_SCORES] for column in batch.inputs[1:]], dim=1)


def _student_scores(batch: TermBatch) -> Tensor:
    return batch.scale * candidate_scores(batch.columns("sparse"))


def _semantic(batch: TermBatch) -> Tensor:
    return info_nce(batch.columns("sparse"), batch.scale, both_directions=batch.both_directions)


def _margin_mse(batch: TermBatch) -> Tensor:
    """Given scores take precedence. They are normalized over the batch: two of a row would always be 0 and 1."""
    given_BK = _given_scores(batch)
    if given_BK is None:
        teacher_BK = own_scores(teacher_scores(batch))
    else:
        teacher_BK = batch.teacher_scale * unit_range(given_BK)
    return margin_mse(own_scores(_student_scores(batch)), teacher_BK)


def _kl(batch: TermBatch) -> Tensor:
    """Given scores of a row's own candidates take precedence over the teachers', which cover the whole batch."""
    given_BK = _given_scores(batch)
    if given_BK is None or (given_BK.shape[1] == 1 and TEACHER_VECTORS in batch.inputs[0]):
        return kl(_student_scores(batch), teacher_scores(batch))
    return kl(own_scores(_student_scores(batch)), batch.teacher_scale * unit_range(given_BK, dim=1))


TERMS = (
    Term("sparse_semantic", ("sparse",), _semantic),
    Term("sparse_margin_mse", ("sparse",), _margin_mse),
    Term("sparse_kl", ("sparse",), _kl),
)
