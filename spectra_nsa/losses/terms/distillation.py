"""Terms of distillation: a student learns its teachers' vectors, their similarities, or margins between scores.

Legend: N texts (all anchors, then all positives, then any negatives), B rows, D the student's width, E the teachers'
width, K negatives.

Several teachers are one: unit vectors side by side, times the roots of weights that sum to 1, are a unit vector whose
cosines are the weighted mean of the teachers' cosines.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.config.terms import MARGIN_SCORES, TARGET_VECTORS, TEACHER_VECTORS
from spectra_nsa.heads.bridge import without_self
from spectra_nsa.losses.terms.term import Term, TermBatch


def embedding(student_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Computes the mean of 1 − cos(student, target): half the squared distance of the unit vectors.

    Source: cf. Kim et al. 2023. The target is the teacher's vector on the student's width by a fixed map
    (`training/teacher/lookup.py`), so the loss needs no parameters beside the student's.
    """
    return 1 - F.cosine_similarity(student_ND, target_ND, dim=-1).mean()


def similarity(student_ND: Tensor, teacher_NE: Tensor, temperature: float) -> Tensor:
    """Computes the mean over texts of KL(teacher ‖ student), of a softmax over the other texts' cosines / temperature.

    The two widths may differ. Source: cf. Passalis and Tefas 2018; Fang et al. 2021, with the batch in place of their
    queue.
    """
    ours_NN, theirs_NN = (_log_similarities(vectors, temperature) for vectors in (student_ND, teacher_NE))
    return F.kl_div(ours_NN, theirs_NN, log_target=True, reduction="batchmean")


def _log_similarities(vectors_ND: Tensor, temperature: float) -> Tensor:
    vectors_ND = F.normalize(vectors_ND, dim=-1)
    return without_self(vectors_ND @ vectors_ND.T / temperature)


def margin_mse(student: Sequence[Tensor], scores_BK: Tensor) -> Tensor:
    """Computes the mean over rows and negatives of [(cos(a, p) − cos(a, n)) − (t(a, p) − t(a, n))]².

    Source: Hofstätter et al. 2020. Ours are cosines, not inner products, so the teacher's scores must lie from −1 to 1.

    Args:
        student: anchor, positive and negatives, each (B, D).
        scores_BK: (B, 1 + K), the teacher's score of the positive, then of each negative.
    """
    ours_BK = anchor_cosines(student)
    return F.mse_loss(ours_BK[:, :1] - ours_BK[:, 1:], scores_BK[:, :1] - scores_BK[:, 1:])


def anchor_cosines(columns: Sequence[Tensor]) -> Tensor:
    """Computes the cosine of the first column's vector with each other column's, (B, 1 + K)."""
    return torch.stack([F.cosine_similarity(columns[0], other, dim=-1) for other in columns[1:]], dim=1)


def _embedding(batch: TermBatch) -> Tensor:
    return embedding(batch.texts("embedding"), torch.cat([column[TARGET_VECTORS] for column in batch.inputs]))


def _similarity(batch: TermBatch) -> dict[int, Tensor]:
    ours_ND = batch.texts("embedding")
    theirs_NE = torch.cat([column[TEACHER_VECTORS] for column in batch.inputs])
    return {size: similarity(ours_ND[:, :size], theirs_NE, batch.distill_temperature) for size in batch.sizes}


def _margin_mse(batch: TermBatch) -> Tensor:
    """Given scores take precedence over the teachers' cosines."""
    if MARGIN_SCORES in batch.inputs[1]:
        scores_BK = torch.stack([column[MARGIN_SCORES] for column in batch.inputs[1:]], dim=1)
    else:
        scores_BK = anchor_cosines([column[TEACHER_VECTORS] for column in batch.inputs])
    return margin_mse(batch.columns("embedding"), scores_BK)


TERMS = (
    Term("distill_embedding", ("embedding",), _embedding),
    Term("distill_similarity", ("embedding",), _similarity),
    Term("margin_mse", ("embedding",), _margin_mse),
)
