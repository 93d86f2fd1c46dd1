"""Figures that say what a student kept of its teacher, and how fast it is."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import SCORE_COLUMN

if TYPE_CHECKING:
    from spectra_nsa.models.teacher import Teacher
    from spectra_nsa.training.data.rows import TrainingData

TEXTS = 400  # that teacher and student are compared on
ROUNDS = 3  # of encoding them, teacher and student in turn


def compare_with_teacher(teacher: Teacher, student: Any, data: TrainingData, recipe: Recipe) -> dict[str, Any]:
    """Compares two models in the number format of training.

    Returns:
        dev: the dev metric of both, ``None`` without a dev set; and what `compare_vectors` returns.
    """
    from spectra_nsa.core.precision import autocast, resolve_precision

    precision = resolve_precision(recipe.train.precision)
    dev = _dev_metrics(data, {"teacher": teacher.model, "student": student}, precision)
    with autocast(teacher.model.device.type, precision):
        return {"dev": dev} | compare_vectors(teacher, student, data)


def compare_vectors(teacher: Teacher, student: Any, data: TrainingData) -> dict[str, Any]:
    """Measures how similarly two models see the same texts, and how fast they are.

    Returns:
        agreement: Spearman's ρ of their cosines, over all pairs of up to 400 texts; held_out: whether these were kept
        from training; parameters of each; speed: texts per second of the student as a multiple of the teacher's, the
        median of three rounds.
    """
    import numpy as np

    from spectra_nsa.metrics.similarity import spearman
    from spectra_nsa.models.encoding.roles import encode_role

    models = {"teacher": teacher.model, "student": student}
    texts, cosines = _sample(data), {}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, model in models.items():
            began = time.perf_counter()
            options: dict[str, Any] = {"batch_size": 64, "normalize_embeddings": True}
            parts = [encode_role(model, part, role, **options) for role, part in texts.items()]
            seconds[name].append(time.perf_counter() - began)
            vectors = np.concatenate(parts)
            cosines[name] = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    ratios = [slow / fast for slow, fast in zip(seconds["teacher"], seconds["student"], strict=True)]
    return {
        "agreement": round(spearman(cosines["teacher"], cosines["student"]), 4),
        "held_out": data.dev is not None,
        "parameters": {name: sum(weight.numel() for weight in model.parameters()) for name, model in models.items()},
        "speed": round(statistics.median(ratios), 2),
    }


def _sample(data: TrainingData) -> dict[str, list[str]]:
    """Returns distinct held-out texts by their role; training texts if none are held out."""
    from spectra_nsa.models.prompts import column_role

    rows = data.train if data.dev is None else data.dev
    columns = [name for name in rows.column_names if name not in (SCORE_COLUMN, "label")]
    first = rows.select(range(min(TEXTS, len(rows))))
    roles: dict[str, str] = {}
    for name in columns:
        for text in first[name]:
            if isinstance(text, str):
                roles.setdefault(text, column_role(name))
    texts: dict[str, list[str]] = {}
    for text, role in list(roles.items())[:TEXTS]:
        texts.setdefault(role, []).append(text)
    return texts


def _dev_metrics(data: TrainingData, models: dict[str, Any], precision: str) -> dict[str, Any] | None:
    from spectra_nsa.training.monitor.dev_metric import DevEvaluator

    if data.dev is None or data.dev_kind is None:
        return None
    evaluator = DevEvaluator(data.dev, data.dev_kind, precision)
    return {"metric": evaluator.metric} | {
        name: round(evaluator(model)[evaluator.metric], 4) for name, model in models.items()
    }
