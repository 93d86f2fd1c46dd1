"""What a recipe asks for around a run, checked before any work is done."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.sections import DataSection
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.training.data import TrainingData


def check_recipe(recipe: Recipe) -> None:
    """That a recipe is one to train by.

    Raises:
        UsageError: it is one for pretraining, or asks for a term that has nothing to learn from, or to go back to a
            start that it has not.
        SpectraError: what it reports to is not installed.
    """
    if recipe.pretrain is not None:
        raise UsageError("the recipe has a section pretrain: it is one for spectra pretrain. Leave the section out.")
    if recipe.train.interpolate < 1 and recipe.model.start is None:
        raise UsageError(
            "train.interpolate draws back to model.start, and there is none: leave it out, or name a start."
        )
    check_reporters(recipe)
    check_terms(recipe)


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


def check_names(recipe: Recipe) -> None:
    """That the sources and models which a recipe names are there, so far as this can be told without opening them.

    It takes no time, so that a misspelt name does not wait for libraries to load.

    Raises:
        UsageError: no source is given.
        SpectraError: one is not there.
    """
    from spectra_nsa.models.checks import named_folder
    from spectra_nsa.text.sources import check_source

    data = recipe.data
    also = recipe.pretrain.also if recipe.pretrain is not None else []
    for source in (source_of(data), *also, *([data.dev] if data.dev is not None and data.dev_rows else [])):
        check_source(source)
    for name in (recipe.model.start, recipe.model.tokenizer, *recipe.distill.teachers):
        if name is not None:
            named_folder(name)


def source_of(section: DataSection) -> str:
    """What is to be trained on.

    Raises:
        UsageError: nothing is named.
    """
    if section.train is None:
        raise UsageError("nothing to train on: give --data SOURCE (a file, a Hub set, or python:installed).")
    return section.train


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
