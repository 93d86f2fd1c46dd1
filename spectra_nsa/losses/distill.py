"""What a student learns from teachers: their vectors, their similarities, or the margins between their scores.

Legend: N texts (all anchors, then all positives, then any negatives), B rows, D the student's width, K negatives.

Several teachers are one: unit vectors side by side, times the roots of weights that sum to 1, are a unit vector whose
cosines are the weighted mean of the teachers' cosines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.heads.bridge import without_self

TAUGHT: Mapping[str, tuple[str, ...]] = {  # what each term needs of the model
    "distill_embedding": ("embedding",),
    "distill_similarity": ("embedding",),
    "margin_mse": ("embedding",),
}
# What a batch brings beside its tokens, by column: the teachers' vectors, where the student's should be, scores.
TEACHER, TARGET, SCORES = "teacher", "target", "margin_score"
BROUGHT = (TEACHER, TARGET, SCORES)


def embedding(student_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Mean of 1 − cos(student, target): half the squared distance of the unit vectors (cf. Kim et al. 2023).

    The target is the teacher's vector on the student's width by a fixed map (`training/teacher/lookup.py`), so that
    nothing is learnt beside the student, and nothing has to be kept or thrown away.
    """
    return 1 - F.cosine_similarity(student_ND, target_ND, dim=-1).mean()


def similarity(student_ND: Tensor, teacher_NE: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) of each text's softmax over the other texts' cosines / temperature, of any two widths.

    Mean over texts (cf. Passalis and Tefas 2018; Fang et al. 2021, whose queue the batch stands for).
    """
    ours_NN, theirs_NN = (_among_others(vectors, temperature) for vectors in (student_ND, teacher_NE))
    return F.kl_div(ours_NN, theirs_NN, log_target=True, reduction="batchmean")


def _among_others(vectors_ND: Tensor, temperature: float) -> Tensor:
    vectors_ND = F.normalize(vectors_ND, dim=-1)
    return without_self(vectors_ND @ vectors_ND.T / temperature)


def margin_mse(student: Sequence[Tensor], scores_BK: Tensor) -> Tensor:
    """Mean over rows and negatives of [(cos(a, p) − cos(a, n)) − (t(a, p) − t(a, n))]² (Hofstätter et al. 2020).

    Ours are cosines, not inner products: the teacher's scores have to lie from −1 to 1 too.

    Args:
        student: anchor, positive and negatives, each (B, D).
        scores_BK: (B, 1 + K), the teacher's score of the positive, then of each negative.
    """
    ours_BK = cosines(student)
    return F.mse_loss(ours_BK[:, :1] - ours_BK[:, 1:], scores_BK[:, :1] - scores_BK[:, 1:])


def cosines(columns: Sequence[Tensor]) -> Tensor:
    """(B, 1 + K): the cosine of the first column's vector with each other column's."""
    return torch.stack([F.cosine_similarity(columns[0], other, dim=-1) for other in columns[1:]], dim=1)


def taught(
    name: str,
    student: Sequence[Tensor],
    brought: Sequence[Mapping[str, Tensor]],
    sizes: Sequence[int],
    temperature: float,
) -> dict[str, Tensor]:
    """A term's values by name.

    Args:
        name: of `TAUGHT`.
        student: a column's vectors each, (B, D).
        brought: for each column what the batch brings beside its tokens.
        sizes: the Matryoshka sizes: similarities are learnt at each, and add up to their mean.
        temperature: of the similarity distributions.
    """
    if name == "distill_embedding":
        return {name: embedding(torch.cat(list(student)), torch.cat([column[TARGET] for column in brought]))}
    if name == "distill_similarity":
        ours_ND, theirs_NE = torch.cat(list(student)), torch.cat([column[TEACHER] for column in brought])
        return {f"{name}_{size}": similarity(ours_ND[:, :size], theirs_NE, temperature) / len(sizes) for size in sizes}
    if SCORES in brought[1]:
        return {name: margin_mse(student, torch.stack([column[SCORES] for column in brought[1:]], dim=1))}
    return {name: margin_mse(student, cosines([column[TEACHER] for column in brought]))}
