"""What the rest of the package knows of a loss term."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

RowKind = Literal["texts", "pairs", "triplets", "scored"]
ModelKind = Literal["dense", "sparse"]
Side = Literal["query", "document"]
SIDES: tuple[Side, Side] = ("query", "document")
SCORE_COLUMN = "score"
# What a batch holds beside its tokens, per column: the teachers' vectors, the same on the student's width, and scores.
TEACHER_VECTORS, TARGET_VECTORS, MARGIN_SCORES = "teacher", "target", "margin_score"
DISTILLATION_INPUTS = (TEACHER_VECTORS, TARGET_VECTORS, MARGIN_SCORES)

ROW_KINDS: dict[RowKind, str] = {
    "texts": "single texts",
    "pairs": "pairs",
    "triplets": "triplets",
    "scored": "pairs with a score",
}
ALL_ROWS = frozenset(ROW_KINDS)
MATCHING = frozenset[RowKind]({"pairs", "triplets"})
NEGATIVES = frozenset[RowKind]({"triplets"})
SCORED = frozenset[RowKind]({"scored"})


@dataclass(frozen=True, kw_only=True)
class TermFacts:
    """What the rest of the package knows of a loss term.

    Attributes:
        name: its key under `loss.terms`.
        about: one line.
        rows: the kinds of training rows that it applies to.
        model_kind: the kind of models that it trains.
        weight: its default weight; 0 is off.
        train_encoder: the default of whether its gradient reaches the encoder; only a head's term can be detached.
        margin: the default margin; ``None`` for a term without one.
        side: of a regularizer of sparse vectors, whose they are; ``None`` for other terms.
        part: the recipe key under `model` that turns it off together with its head; ``None`` if there is none.
        learns_from: the distillation inputs of which it needs at least one; empty if it needs none.
        cacheable: whether the model's outputs are all that it needs, so that `train.cached_pass_tokens` is exact.
        routing: whether it is about the choice of experts, and so applies only to models that have some.
        ablation_weight: its weight when an ablation turns it on; ``None`` keeps it out of the catalogue, because the
            head's switch already covers it.
    """

    name: str
    about: str
    rows: frozenset[RowKind]
    model_kind: ModelKind = "dense"
    weight: float = 0.0
    train_encoder: bool = True
    margin: float | None = None
    side: Side | None = None
    part: str | None = None
    learns_from: tuple[str, ...] = ()
    cacheable: bool = True
    routing: bool = False
    ablation_weight: float | None = 1.0

    def applies(self, rows: RowKind, inputs: Collection[str]) -> bool:
        """Returns whether the term is defined on such rows with these distillation inputs."""
        return rows in self.rows and (not self.learns_from or any(name in inputs for name in self.learns_from))

    @property
    def remedy(self) -> str:
        """How a recipe provides its distillation inputs, in words."""
        if MARGIN_SCORES in self.learns_from:
            return (
                "set distill.scores=[…] (columns of the data, such as the one that spectra mine --scores writes) or "
                "distill.teachers=[MODEL]"
            )
        return "set distill.teachers=[MODEL]"

    @property
    def needed_rows(self) -> str:
        """The rows that it needs, in words."""
        if self.rows == SCORED:
            return "pairs with a score (columns sentence1, sentence2, score)"
        if self.rows == NEGATIVES:
            return "hard negatives (columns anchor, positive, negative; spectra mine finds them)"
        return "pairs of two texts"
