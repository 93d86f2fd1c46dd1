"""What a batch brings for the terms of distillation: the teachers' vectors, the student's target, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.data_collator import BaseDataCollator

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import MARGIN_SCORES, TARGET_VECTORS, TEACHER_VECTORS
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.training.teacher.vectors import Vectors, digests_of, places_of, teacher_vectors

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData

SAMPLE = 20_000  # texts that the map between widths is fitted to
ALIGNED = 1_000  # of them, those whose vectors the student gives before it learns
_AT_A_TIME = 10_000


@dataclass(frozen=True)
class Scores:
    """Given scores of (anchor, passage), to be looked up by text.

    Attributes:
        digests: (N,) ascending.
        values: (N,).
    """

    digests: NDArray[np.uint64]
    values: NDArray[np.float32]

    def of(self, anchors: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """(B,)."""
        return self.values[places_of(digests_of(_joined(anchors, passages), "score"), self.digests)]


@dataclass(frozen=True)
class Teaching:
    """Looks up what a run learns from.

    Attributes:
        teachers: the vectors of each; none where only scores are learnt from.
        weights: of their cosines, summing to 1.
        map_ED: from the teachers' vectors, side by side, to the student's; ``None`` where they are the same.
        scores: given scores; ``None`` for none.
    """

    teachers: tuple[Vectors, ...]
    weights: tuple[float, ...]
    map_ED: NDArray[np.float32] | None = None
    scores: Scores | None = None

    def vectors(self, texts: Sequence[str], column: str) -> NDArray[np.float32]:
        """(B, E) unit vectors whose cosines are the weighted mean of the teachers'."""
        parts = [weight**0.5 * one.of(texts, column) for one, weight in zip(self.teachers, self.weights, strict=True)]
        return np.concatenate(parts, axis=1)

    def brought(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, torch.Tensor]:
        """What a batch of rows brings, under names that the trainer hands to the loss by column."""
        found: dict[str, torch.Tensor] = {}
        texts = {column: [row[column] for row in rows] for column in columns}
        for column in columns:
            if self.teachers:
                teacher_BE = self.vectors(texts[column], column)
                target_BD = teacher_BE if self.map_ED is None else teacher_BE @ self.map_ED
                found[f"{column}_{TEACHER_VECTORS}"] = torch.from_numpy(teacher_BE)
                found[f"{column}_{TARGET_VECTORS}"] = torch.from_numpy(target_BD)
            if self.scores is not None and column != columns[0]:
                found[f"{column}_{MARGIN_SCORES}"] = torch.from_numpy(self.scores.of(texts[columns[0]], texts[column]))
        return found


class TaughtCollator(BaseDataCollator):
    """The stock collator's batch, and what it brings for distillation.

    Args:
        stock: the trainer's own.
        teaching: what is looked up.
        columns: of the rows, those that hold texts.
    """

    def __init__(self, stock: BaseDataCollator, teaching: Teaching, columns: Sequence[str]) -> None:
        super().__init__(stock.preprocess_fn, prompts=stock.prompts, max_length=stock.max_length)
        self.stock, self.teaching, self.columns = stock, teaching, list(columns)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.stock(features), **self.teaching.brought(features, self.columns)}


def open_teaching(recipe: Recipe, data: TrainingData, model: SpectraSentenceTransformer) -> Teaching | None:
    """What the recipe's `distill` asks for; ``None`` where it asks for nothing.

    Args:
        recipe: the run.
        data: its rows; their texts are encoded by each teacher that has not done so before.
        model: the student, as it is before it learns.

    Raises:
        SpectraError: a teacher cannot be opened, or a score lies outside of −1 to 1.
    """
    section = recipe.distill
    scores = None if data.scores is None else read_scores(data.scores, data.columns, section.scores or [])
    if not section.teachers:
        return None if scores is None else Teaching((), (), scores=scores)
    found = []
    for name in section.teachers:
        teacher = open_teacher(name)
        with processes.first_before_others():
            found.append(teacher_vectors(teacher, data.whole, data.columns))
    given = section.weights or [1.0] * len(found)
    teaching = Teaching(tuple(found), tuple(weight / sum(given) for weight in given), scores=scores)
    width = model.get_embedding_dimension()
    assert width is not None
    if len(found) == 1 and found[0].vectors.shape[1] == width:
        return teaching
    mapped = processes.by_first(lambda: fit_map(teaching, data, model, width))
    return Teaching(teaching.teachers, teaching.weights, mapped, scores)


def fit_map(
    teaching: Teaching, data: TrainingData, model: SpectraSentenceTransformer, width: int
) -> NDArray[np.float32]:
    """(E, D): the teachers' vectors on the student's width, turned towards what the student gives already.

    Onto fewer numbers by the leading eigenvectors of XᵀX, not centred: no linear map leaves inner products nearer to
    the teachers' in the sum of squares (Eckart and Young 1936); onto more, exactly. Then the rotation that brings them
    nearest to the student's vectors (Schönemann 1966), so that a student with copied layers keeps its own axes.
    Nothing of it is learnt, and the same start gives the same map.
    """
    sample = _sample(data.whole, data.columns[-1], SAMPLE)
    x_NE = teaching.vectors(sample, data.columns[-1]).astype(np.float64)
    basis_EK = np.eye(x_NE.shape[1])
    if x_NE.shape[1] > width:
        basis_EK = np.linalg.eigh(x_NE.T @ x_NE)[1][:, ::-1][:, :width]
    some = sample[:: max(1, len(sample) // ALIGNED)]
    y_ND = np.asarray(model.encode_document(some, normalize_embeddings=True, show_progress_bar=False), np.float64)
    own_NK = x_NE[:: max(1, len(sample) // ALIGNED)] @ basis_EK
    left, _, right = np.linalg.svd(own_NK.T @ y_ND, full_matrices=False)
    return (basis_EK @ left @ right).astype(np.float32)


def _sample(rows: Dataset, column: str, size: int) -> list[str]:
    places = sorted({place * len(rows) // size for place in range(size)})
    return list(rows[places][column])


def read_scores(rows: Dataset, columns: Sequence[str], names: Sequence[str]) -> Scores:
    """The scores of each row's anchor with its other texts.

    Args:
        rows: texts and scores.
        columns: of the texts, the anchor's first.
        names: of the scores, one for each text after the anchor; or a single one, of lists of them.

    Raises:
        SpectraError: as `check_scores`.
    """
    check_scores(rows, columns, names)
    wanted = columns[1:]
    digests, values = [], []
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        digests += [digests_of(_joined(part[columns[0]], part[column]), "score") for column in wanted]
        values += _numbers(part, names, len(wanted))
    once, first = np.unique(np.concatenate(digests), return_index=True)
    return Scores(once, np.concatenate(values)[first])


def check_scores(rows: Dataset, columns: Sequence[str], names: Sequence[str]) -> None:
    """That the data's scores can be learnt from; the arguments are those of `read_scores`.

    Raises:
        SpectraError: not as many columns, or a score that is none or lies outside of −1 to 1.
    """
    wanted = columns[1:]
    if len(names) not in (1, len(wanted)):
        raise SpectraError(
            f"distill.scores names {len(names)} columns; rows of {', '.join(columns)} need {len(wanted)}: the "
            "positive's, then each negative's; or one that holds lists of so many."
        )
    low, high = np.inf, -np.inf
    own = rows.select_columns(list(names))
    for start in range(0, len(rows), _AT_A_TIME):
        for found in _numbers(own[start : start + _AT_A_TIME], names, len(wanted)):
            low, high = np.minimum(low, found.min()), np.maximum(high, found.max())  # NaN stays NaN
    if not (low >= -1 and high <= 1):
        raise SpectraError(
            "distill.scores: margins are those of cosines, so scores have to lie from -1 to 1; these go from "
            f"{low:.3g} to {high:.3g}. Rescale them, such as by a sigmoid."
        )


def _numbers(part: Mapping[str, Sequence[Any]], names: Sequence[str], count: int) -> list[NDArray[np.float32]]:
    """The scores of some rows, (B,) for each text after the anchor."""
    found = []
    for name in names:
        try:
            found.append(np.asarray(part[name], dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise SpectraError(f"distill.scores: column {name!r} holds what is no number: {error}.") from error
    if len(names) == 1 and found[0].ndim == 2:
        found = list(found[0].T)
    if len(found) != count or any(one.ndim != 1 for one in found):
        raise SpectraError(f"distill.scores: column {names[0]!r} needs {count} scores a row, the positive's first.")
    return found


def _joined(anchors: Sequence[str], passages: Sequence[str]) -> list[str]:
    return [f"{len(anchor)} {anchor}{passage}" for anchor, passage in zip(anchors, passages, strict=True)]
