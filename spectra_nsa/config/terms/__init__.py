"""The facts of each loss term, once: the recipe, the checks, ablation and the loss stack read them from here.

What a term computes is in `losses/terms/`; this package imports no torch.
"""

from spectra_nsa.config.terms.built_in import TERM_FACTS, add_term_facts
from spectra_nsa.config.terms.facts import (
    DISTILLATION_INPUTS,
    MARGIN_SCORES,
    ROW_KINDS,
    SCORE_COLUMN,
    SIDES,
    TARGET_VECTORS,
    TEACHER_VECTORS,
    ModelKind,
    RowKind,
    Side,
    TermFacts,
)
from spectra_nsa.config.terms.selection import active_terms, distillation_inputs, live_terms, model_kind, row_kind

__all__ = [
    "DISTILLATION_INPUTS",
    "MARGIN_SCORES",
    "ROW_KINDS",
    "SCORE_COLUMN",
    "SIDES",
    "TARGET_VECTORS",
    "TEACHER_VECTORS",
    "TERM_FACTS",
    "ModelKind",
    "RowKind",
    "Side",
    "TermFacts",
    "active_terms",
    "add_term_facts",
    "distillation_inputs",
    "live_terms",
    "model_kind",
    "row_kind",
]
