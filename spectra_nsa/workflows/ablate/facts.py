"""What the model and the data of a recipe have, dense or sparse, and the model before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.config.ablation.variants import RecipeFacts
from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import row_kind

if TYPE_CHECKING:
    from spectra_nsa.config.terms import RowKind
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.training.data.rows import TrainingData


def recipe_facts(recipe: Recipe, data: TrainingData) -> RecipeFacts:
    """Returns what the recipe's model and data have.

    Raises:
        SpectraError: the model cannot be opened or built.
    """
    from spectra_nsa.training.init.start import find_start, planned_config

    rows = row_kind(len(data.first.columns), data.first.scored)
    if recipe.sparse is not None:
        return _sparse_facts(recipe, rows)
    config, _ = planned_config(recipe)
    start = recipe.model.start
    return RecipeFacts(
        model=config.to_dict(),
        saved=start is not None and find_start(start).kind == "spectra",
        rows=rows,
    )


def _sparse_facts(recipe: Recipe, rows: RowKind) -> RecipeFacts:
    from torch import nn

    from spectra_nsa.models.open import model_kind
    from spectra_nsa.training.init.sparse_start import find_sparse_start, has_trained_head, open_sparse_start

    start = find_sparse_start(recipe)
    rates = [module.p for module in open_sparse_start(recipe).modules() if isinstance(module, nn.Dropout)]
    return RecipeFacts(
        model={"hidden_dropout_prob": max(rates, default=0.0)},
        saved=start is not None and model_kind(start) == "sparse",
        rows=rows,
        trained_head=has_trained_head(start),
    )


def check_model(recipe: Recipe) -> None:
    """Checks that the model that a recipe starts from can be built.

    Raises:
        SpectraError: it cannot.
    """
    if recipe.sparse is None:
        from spectra_nsa.training.init.start import planned_config

        planned_config(recipe)
    else:
        from spectra_nsa.training.init.sparse_start import needs_closed_form, open_sparse_start

        needs_closed_form(recipe)
        open_sparse_start(recipe)


def has_start(recipe: Recipe) -> bool:
    """Returns whether a recipe starts from a trained model, whose figures are a baseline."""
    if recipe.sparse is None:
        return recipe.model.start is not None
    from spectra_nsa.training.init.sparse_start import find_sparse_start

    return find_sparse_start(recipe) is not None


def start_system(recipe: Recipe, dim: int | None) -> System:
    """Returns the model before its first step as a system; a sparse encoder with its head fitted and calibrated.

    Args:
        recipe: the run.
        dim: use only this many leading dimensions of a dense model.

    Raises:
        SpectraError: the model cannot be opened.
    """
    if recipe.sparse is None:
        from spectra_nsa.evaluation.systems import DenseSystem
        from spectra_nsa.training.init.start import open_start

        return DenseSystem("start", open_start(recipe).eval(), dim=dim)
    from spectra_nsa.evaluation.sparse.system import SparseSystem
    from spectra_nsa.training.data.rows import load_training_data
    from spectra_nsa.training.init.sparse_start import needs_closed_form, open_sparse_start, prepare_sparse_start

    closed_form, model = needs_closed_form(recipe), open_sparse_start(recipe)
    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    prepare_sparse_start(recipe, model, data.train.select_columns(data.columns), closed_form=closed_form)
    return SparseSystem("start", model.eval())
