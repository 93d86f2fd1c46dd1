"""Which terms take part in a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.config.terms.built_in import TERM_FACTS
from spectra_nsa.config.terms.facts import MARGIN_SCORES, SCORE_COLUMN, TEACHER_VECTORS, ModelKind, RowKind

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe


def row_kind(texts: int, scored: bool) -> RowKind:
    """Returns the kind of rows with this many texts each, with or without a score."""
    if scored:
        return "scored"
    return "texts" if texts == 1 else "pairs" if texts == 2 else "triplets"


def active_terms(recipe: Recipe, *, experts: bool | None = None) -> list[str]:
    """Returns the terms of the recipe's kind of model whose part of it is on, whatever their weight.

    Args:
        recipe: the run.
        experts: whether the model has some; ``None`` if only the recipe is known, which may not say so of its start.
    """
    kind, experts = model_kind(recipe), recipe.model.ffn == "moe" if experts is None else experts
    return [
        name
        for name, facts in TERM_FACTS.items()
        if facts.model_kind == kind
        and (facts.part is None or getattr(recipe.model, facts.part) is not False)
        and (experts or not facts.routing)
    ]


def model_kind(recipe: Recipe) -> ModelKind:
    """Returns the kind of model that a recipe trains."""
    return "dense" if recipe.sparse is None else "sparse"


def live_terms(
    recipe: Recipe, columns: Sequence[str], inputs: Collection[str] | None = None, *, experts: bool | None = None
) -> list[str]:
    """Returns the terms that take part in training.

    Args:
        recipe: the run.
        columns: of the training rows: texts, and a score if there is one.
        inputs: the distillation inputs of the rows; ``None`` for those that the recipe provides.
        experts: see `active_terms`.
    """
    rows = row_kind(sum(name != SCORE_COLUMN for name in columns), SCORE_COLUMN in columns)
    inputs = distillation_inputs(recipe) if inputs is None else inputs
    return [
        name
        for name in active_terms(recipe, experts=experts)
        if recipe.loss.terms[name].weight > 0 and TERM_FACTS[name].applies(rows, inputs)
    ]


def distillation_inputs(recipe: Recipe) -> list[str]:
    """Returns which of the inputs that terms learn from a recipe provides."""
    provided = {TEACHER_VECTORS: recipe.distill.teachers, MARGIN_SCORES: recipe.distill.scores}
    return [name for name, sources in provided.items() if sources]
