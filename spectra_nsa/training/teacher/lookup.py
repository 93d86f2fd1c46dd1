"""The distillation inputs of a batch: the teachers' vectors, the student's targets, given scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.base.data_collator import BaseDataCollator

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import MARGIN_SCORES, TARGET_VECTORS, TEACHER_VECTORS
from spectra_nsa.core import processes
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.encoding.roles import encode_role
from spectra_nsa.models.prompts import column_role
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.training.teacher.vectors import TeacherVectors, digests_of, positions_of, teacher_vectors

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
    from spectra_nsa.training.data.rows import TrainingData

SAMPLE = 20_000  # texts that the map between widths is fitted to
ALIGNED = 1_000  # those of them that the student encodes before it learns
_ROWS = 10_000  # rows that are Python objects at once
_ROUNDING = 1e-3  # how far a score may lie beyond -1 or 1, or from itself; rounding errors of float16 are smaller


@dataclass(frozen=True)
class GivenScores:
    """Scores of (anchor, passage) pairs, to be looked up by text.

    Attributes:
        digests: (N,) ascending.
        values: (N,).
        contradictory: the number of pairs that several rows score differently; the first score counts.
    """

    digests: NDArray[np.uint64]
    values: NDArray[np.float32]
    contradictory: int = 0

    def of(self, anchors: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Returns the scores of pairs, (B,)."""
        return self.values[positions_of(digests_of(_pair_texts(anchors, passages), "score"), self.digests)]


@dataclass(frozen=True)
class DistillationSource:
    """Looks up the distillation inputs of a batch.

    Attributes:
        teachers: the vectors of each; empty if a run learns only from scores.
        weights: of their cosines, summing to 1.
        map_ED: from the teachers' vectors, side by side, to the student's width; ``None`` if they are used as they are.
        scores: given scores; ``None`` if there are none.
        targets: whether the student's own vectors have targets; those of a sparse student have none.
    """

    teachers: tuple[TeacherVectors, ...]
    weights: tuple[float, ...]
    map_ED: NDArray[np.float32] | None = None
    scores: GivenScores | None = None
    targets: bool = True

    @property
    def parts(self) -> tuple[tuple[int, float], ...]:
        """The width and the weight of each teacher's part of `vectors`."""
        widths = (teacher.vectors.shape[1] for teacher in self.teachers)
        return tuple(zip(widths, self.weights, strict=True))

    def vectors(self, texts: Sequence[str], column: str) -> NDArray[np.float32]:
        """Returns (B, E) unit vectors whose cosines are the weighted mean of the teachers' cosines."""
        parts = [
            weight**0.5 * teacher.of(texts, column) for teacher, weight in zip(self.teachers, self.weights, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def inputs(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, torch.Tensor]:
        """Returns the inputs of a batch of rows, under names that the trainer passes to the loss by column."""
        inputs: dict[str, torch.Tensor] = {}
        texts = {column: [row[column] for row in rows] for column in columns}
        for column in columns:
            if self.teachers:
                teacher_BE = self.vectors(texts[column], column)
                inputs[f"{column}_{TEACHER_VECTORS}"] = torch.from_numpy(teacher_BE)
                if self.targets:
                    target_BD = teacher_BE if self.map_ED is None else teacher_BE @ self.map_ED
                    inputs[f"{column}_{TARGET_VECTORS}"] = torch.from_numpy(target_BD)
            if self.scores is not None and column != columns[0]:
                inputs[f"{column}_{MARGIN_SCORES}"] = torch.from_numpy(self.scores.of(texts[columns[0]], texts[column]))
        return inputs


class DistillationCollator(BaseDataCollator):
    """Adds the distillation inputs to the stock collator's batch.

    Args:
        stock: the trainer's collator.
        source: of the inputs.
        columns: the columns of the rows that hold texts.
    """

    def __init__(self, stock: BaseDataCollator, source: DistillationSource, columns: Sequence[str]) -> None:
        super().__init__(stock.preprocess_fn, prompts=stock.prompts, max_length=stock.max_length)
        self.stock, self.source, self.columns = stock, source, list(columns)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self.stock(features), **self.source.inputs(features, self.columns)}


def open_distillation(
    recipe: Recipe,
    data: TrainingData,
    model: SpectraSentenceTransformer | SpectraSparseEncoder,
    like: DistillationSource | None = None,
) -> DistillationSource | None:
    """Returns the source that the recipe's `distill` section describes; ``None`` if it is empty.

    Args:
        recipe: the run.
        data: its rows; each teacher encodes the texts that the cache does not hold.
        model: the student before it learns.
        like: the source of another dataset of the same run, whose map to the student's width holds here too; ``None``
            fits the map.

    Raises:
        SpectraError: a teacher cannot be opened, or a score is outside −1 to 1.
    """
    section = recipe.distill
    dense, scores = recipe.sparse is None, None
    if data.scores is not None:
        scores = read_scores(data.scores, data.columns, section.scores or [], cosines=dense)
    if scores is not None and scores.contradictory and processes.is_first():
        pairs = counted(scores.contradictory, "pair")
        print(
            f"note: distill.scores: {pairs} scored differently in several rows; the first score is used",
            file=sys.stderr,
        )
    if not section.teachers:
        return None if scores is None else DistillationSource((), (), scores=scores)
    vectors = []
    for name in section.teachers:
        teacher = open_teacher(name)
        with processes.first_before_others():
            vectors.append(teacher_vectors(teacher, data.all_rows, data.columns))
    weights = section.weights or [1.0] * len(vectors)
    source = DistillationSource(tuple(vectors), tuple(weight / sum(weights) for weight in weights), scores=scores)
    if not dense:
        return replace(source, targets=False)
    width = model.get_embedding_dimension()
    assert width is not None
    if len(vectors) == 1 and vectors[0].vectors.shape[1] == width:
        return source
    if like is not None:
        return replace(source, map_ED=like.map_ED)
    map_ED = processes.run_on_first(lambda: fit_map(source, data, model, width))
    return replace(source, map_ED=map_ED)


def fit_map(
    source: DistillationSource,
    data: TrainingData,
    model: SpectraSentenceTransformer | SpectraSparseEncoder,
    width: int,
) -> NDArray[np.float32]:
    """Returns the map of the teachers' vectors to the student's width, rotated toward the student's vectors, (E, D).

    A smaller width takes the leading eigenvectors of XᵀX, not centered: no linear map of that rank preserves the inner
    products better in the sum of squares (Eckart and Young 1936). A larger width preserves them exactly. The rotation
    then brings the targets nearest to the student's vectors (Schönemann 1966), so a student with copied layers keeps
    its own axes. The map is not learned, and the same start gives the same map.
    """
    column = data.columns[-1]
    sample = _sample(data.all_rows, column, SAMPLE)
    x_NE = source.vectors(sample, column).astype(np.float64)
    basis_EK = np.eye(x_NE.shape[1])
    if x_NE.shape[1] > width:
        basis_EK = np.linalg.eigh(x_NE.T @ x_NE)[1][:, ::-1][:, :width]
    aligned = sample[:: max(1, len(sample) // ALIGNED)]
    y_ND = np.asarray(encode_role(model, aligned, column_role(column), normalize_embeddings=True), np.float64)
    check_finite(y_ND, "the student before training")
    own_NK = x_NE[:: max(1, len(sample) // ALIGNED)] @ basis_EK
    left, _, right = np.linalg.svd(own_NK.T @ y_ND, full_matrices=False)
    return (basis_EK @ left @ right).astype(np.float32)


def _sample(rows: Dataset, column: str, size: int) -> list[str]:
    positions = sorted({index * len(rows) // size for index in range(size)})
    return list(rows[positions][column])


def read_scores(rows: Dataset, columns: Sequence[str], names: Sequence[str], *, cosines: bool = True) -> GivenScores:
    """Reads the scores of each row's anchor with its other texts.

    Args:
        rows: texts and scores.
        columns: of the texts, the anchor first.
        names: columns of scores, one for each text after the anchor; or a single column of lists.
        cosines: whether they are compared with cosines; those that a sparse student learns from have any scale.

    Raises:
        SpectraError: as `check_scores`.
    """
    check_scores(rows, columns, names, cosines=cosines)
    passages = columns[1:]
    digests: list[NDArray[np.uint64]] = []
    values: list[NDArray[np.float32]] = []
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        digests += [digests_of(_pair_texts(part[columns[0]], part[column]), "score") for column in passages]
        found = _numbers(part, names, len(passages))
        values += [scores.clip(-1.0, 1.0) for scores in found] if cosines else found
    distinct, first, pair = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
    all_values = np.concatenate(values)
    differs = np.abs(all_values - all_values[first][pair]) > _ROUNDING
    return GivenScores(distinct, all_values[first], contradictory=len(np.unique(pair[differs])))


def check_scores(rows: Dataset, columns: Sequence[str], names: Sequence[str], *, cosines: bool = True) -> None:
    """Checks that the data's scores can be learned from; see `read_scores` for the arguments.

    Raises:
        SpectraError: wrong number of columns, or a score is not finite, or it is compared with cosines and more
            than a rounding error outside −1 to 1.
    """
    passages = columns[1:]
    if len(names) not in (1, len(passages)):
        raise SpectraError(
            f"distill.scores names {len(names)} columns; rows of {', '.join(columns)} need {len(passages)}: the "
            "positive's, then each negative's; or one column that holds lists of them."
        )
    low, high = np.inf, -np.inf
    scores = rows.select_columns(list(names))
    for start in range(0, len(rows), _ROWS):
        for values in _numbers(scores[start : start + _ROWS], names, len(passages)):
            low, high = np.minimum(low, values.min()), np.maximum(high, values.max())  # NaN stays NaN
    if not np.isfinite([low, high]).all() and not cosines:
        raise SpectraError("distill.scores has NaN or infinity. Leave these rows out, or give other columns.")
    if cosines and not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
        raise SpectraError(
            "distill.scores are compared with cosines, so they must lie from -1 to 1; these go from "
            f"{low:.3g} to {high:.3g}. Rescale them, for example with a sigmoid."
        )


def _numbers(part: Mapping[str, Sequence[Any]], names: Sequence[str], count: int) -> list[NDArray[np.float32]]:
    """Returns the scores of some rows, (B,) for each text after the anchor."""
    values = []
    for name in names:
        try:
            values.append(np.asarray(part[name], dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise SpectraError(f"distill.scores: column {name!r} holds more than numbers: {error}.") from error
    if len(names) == 1 and values[0].ndim == 2:
        values = list(values[0].T)
    if len(values) != count or any(value.ndim != 1 for value in values):
        raise SpectraError(
            f"distill.scores: column {names[0]!r} needs {count} scores in each row, the positive's first."
        )
    return values


def _pair_texts(anchors: Sequence[str], passages: Sequence[str]) -> list[str]:
    return [f"{len(anchor)} {anchor}{passage}" for anchor, passage in zip(anchors, passages, strict=True)]
