"""What a recipe asks for around a run, checked before any work is done."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.training.data import TrainingData


def check_reporters(recipe: Recipe) -> None:
    """That what `train.report_to` names is installed.

    Raises:
        SpectraError: it is not.
    """
    for name in recipe.train.report_to:
        if importlib.util.find_spec(name) is None:
            raise SpectraError(
                f"train.report_to names {name}, which is not installed. Install it (pip install {name}), or leave it "
                "out: metrics.jsonl, report.html and spectra monitor need nothing more."
            )


def check_terms(recipe: Recipe) -> None:
    """That a term which a recipe asks for by name has something to learn from.

    Raises:
        UsageError: `margin_mse` has no scores, or scores have no `margin_mse`.
    """
    wanted, section = recipe.loss.terms.margin_mse.weight > 0, recipe.distill
    if wanted and not (section.teachers or section.scores):
        raise UsageError(
            "loss.terms.margin_mse learns from scores, and there are none: set distill.scores=[…] (columns of the "
            "data, such as the one of spectra mine --scores) or distill.teachers=[…]."
        )
    if section.scores and not wanted:
        raise UsageError("distill.scores are for a term that is off: set loss.terms.margin_mse.weight=1.")


def check_patience(recipe: Recipe, data: TrainingData) -> None:
    """That there is a dev metric where `train.patience` waits for one.

    Raises:
        UsageError: there is none.
    """
    if recipe.train.patience is not None and data.dev is None:
        raise UsageError(
            "train.patience waits for a better dev metric, and there is none: set data.dev_rows or data.dev."
        )
