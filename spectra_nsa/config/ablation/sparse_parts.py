"""The parts that an ablation of a sparse encoder switches, beside the loss terms."""

from __future__ import annotations

from typing import Any

from spectra_nsa.config.ablation.variants import Part, RecipeFacts, Switch, check_weight, senseless
from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import SIDES, TERM_FACTS, Side


def _sparse_option(key: str, on: float | str, off: float | str | None, *, side: Side | None = None) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        if side is not None:
            check_weight(key, [term for term in TERM_FACTS.values() if term.side == side], recipe)
        has = getattr(recipe.sparse, key) != off
        return has, {f"sparse.{key}": off if has else on}

    return switch


def _closed_form_head(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    if not facts.trained_head:
        raise senseless("closed_form_head", "the start has no head to compare it with", "start from a masked LM")
    assert recipe.sparse is not None
    has = recipe.sparse.head == "closed_form"
    return has, {"sparse.head": "checkpoint" if has else "closed_form"}


def _calibrate(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    assert recipe.sparse is not None
    if recipe.sparse.head == "closed_form" or not facts.trained_head:
        raise senseless("calibrate", "a head in closed form needs it", "start from a masked LM with its own head")
    return _sparse_option("calibrate", 256, 0)(recipe, facts)


SPARSE_PARTS = (
    Part("inference_free", "queries looked up in one weight per token; encoded without it",
         _sparse_option("kind", "inference_free", "splade"), model_kind="sparse"),
    Part("closed_form_head", "a vocabulary head fitted in closed form; the start's own without it", _closed_form_head,
         model_kind="sparse"),
    Part("calibrate", "the head is calibrated before the first step, on 256 texts if turned on", _calibrate,
         model_kind="sparse"),
    Part("highest_df", "the cap on the document frequency of a term, 0.5 if turned on",
         _sparse_option("highest_df", 0.5, None), model_kind="sparse"),
    *(
        Part(f"{side}_active", f"a target of active terms, {on} if turned on; the regularizers' own weights without it",
             _sparse_option(f"{side}_active", on, None, side=side), model_kind="sparse")
        for side, on in zip(SIDES, (40, 150), strict=True)
    ),
)  # fmt: skip
