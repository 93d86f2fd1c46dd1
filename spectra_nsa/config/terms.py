"""The facts of each loss term, once: the recipe, the checks, ablation and the loss stack read them from here.

What a term computes is in `losses/terms/`; this module imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe

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
_ALL = frozenset(ROW_KINDS)
_MATCHING = frozenset[RowKind]({"pairs", "triplets"})
_NEGATIVES = frozenset[RowKind]({"triplets"})
_SCORED = frozenset[RowKind]({"scored"})


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
        if self.rows == _SCORED:
            return "pairs with a score (columns sentence1, sentence2, score)"
        if self.rows == _NEGATIVES:
            return "hard negatives (columns anchor, positive, negative; spectra mine finds them)"
        return "pairs of two texts"


_BUILT_IN = (
    TermFacts(
        name="semantic",
        about="InfoNCE of the embedding at every Matryoshka size",
        rows=_MATCHING,
        weight=1.0,
        ablation_weight=None,
    ),
    TermFacts(name="cosent", about="orders cosines by score (CoSENT)", rows=_SCORED, weight=1.0),
    TermFacts(name="angle", about="orders angles by score (AnglE)", rows=_SCORED),
    TermFacts(name="cosine", about="squared difference of cosine and score", rows=_SCORED),
    TermFacts(name="contrastive", about="contrastive loss on scores, with a margin", rows=_SCORED, margin=0.5),
    TermFacts(name="triplet", about="triplet loss with a margin; needs hard negatives", rows=_NEGATIVES, margin=0.2),
    TermFacts(
        name="matryoshka_angular",
        about="keeps the cosines of the full size at the smaller Matryoshka sizes",
        rows=_ALL,
        part="matryoshka",
    ),
    TermFacts(
        name="spectral",
        about="spreads the spectrum of the anchors' embeddings",
        rows=_ALL - {"texts"},
        ablation_weight=0.1,
    ),
    TermFacts(
        name="ranking",
        about="InfoNCE of the ranking vector; needs hard negatives",
        rows=_NEGATIVES,
        weight=1.0,
        train_encoder=False,
        part="ranking",
        ablation_weight=None,
    ),
    TermFacts(
        name="anchor",
        about="spectral contrastive loss of the spectral anchors",
        rows=_MATCHING,
        weight=1.0,
        train_encoder=False,
        part="anchor",
        ablation_weight=None,
    ),
    TermFacts(
        name="fast",
        about="matches the similarities of binary codes to the cosines of the embedding",
        rows=_ALL,
        weight=0.1,
        train_encoder=False,
        part="bridge",
        ablation_weight=None,
    ),
    TermFacts(
        name="bridge",
        about="cosine distance between the decoded code and the embedding",
        rows=_ALL,
        weight=1.0,
        train_encoder=False,
        part="bridge",
        ablation_weight=None,
    ),
    TermFacts(
        name="entity",
        about="InfoNCE of the entity vector at each of its sizes",
        rows=_MATCHING,
        weight=1.0,
        train_encoder=False,
        part="entity",
    ),
    TermFacts(
        name="anomaly",
        about="distance of texts to the nearest prototype of the anomaly head",
        rows=_ALL,
        weight=1.0,
        train_encoder=False,
        part="anomaly",
        ablation_weight=None,
    ),
    TermFacts(
        name="distill_embedding",
        about="cosine distance to the teachers' vectors",
        rows=_ALL,
        weight=1.0,
        learns_from=(TEACHER_VECTORS,),
    ),
    TermFacts(
        name="distill_similarity",
        about="KL divergence from the teachers' similarities within the batch",
        rows=_ALL,
        weight=1.0,
        learns_from=(TEACHER_VECTORS,),
    ),
    TermFacts(
        name="margin_mse",
        about="squared difference from the margins of teachers or given scores; needs hard negatives",
        rows=_NEGATIVES,
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
    ),
    TermFacts(
        name="sparse_semantic",
        about="InfoNCE of the sparse vectors' dot products",
        rows=_MATCHING,
        model_kind="sparse",
        weight=1.0,
    ),
    TermFacts(
        name="sparse_margin_mse",
        about="squared difference from the margins of teachers or given scores; needs hard negatives",
        rows=_NEGATIVES,
        model_kind="sparse",
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
        ablation_weight=0.05,
    ),
    TermFacts(
        name="sparse_kl",
        about="KL divergence from the scores of teachers for the batch's documents, or from given scores",
        rows=_MATCHING,
        model_kind="sparse",
        weight=1.0,
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
    ),
    *(
        TermFacts(
            name=f"{side}_{name}",
            about=about.format("queries" if side == "query" else "documents"),
            rows=_MATCHING,
            model_kind="sparse",
            weight=weight,
            side=side,
            ablation_weight=3e-4,
        )
        for side in SIDES
        for name, weight, about in (
            ("flops", 3e-4, "FLOPS of the {}: squared mean weights of the terms"),
            ("l1", 0.0, "sum of the weights of the {}"),
            ("df_flops", 0.0, "FLOPS of the {}, of the terms that are in many of them"),
        )
    ),
)
TERM_FACTS: dict[str, TermFacts] = {facts.name: facts for facts in _BUILT_IN}


def add_term_facts(facts: TermFacts) -> None:
    """Adds a term, which then has its keys in every recipe (see `spectra_nsa.losses.terms.register`).

    Raises:
        UsageError: the name is taken, or recipes have been defined already.
    """
    if facts.name in TERM_FACTS:
        raise UsageError(f"there is a loss term {facts.name!r} already. Choose another name.")
    if "spectra_nsa.config.loss_sections" in sys.modules:
        raise UsageError(
            f"the loss term {facts.name!r} comes too late: the recipe's keys are fixed. Register it before anything "
            "else of spectra_nsa is imported."
        )
    TERM_FACTS[facts.name] = facts


def row_kind(texts: int, scored: bool) -> RowKind:
    """Returns the kind of rows with this many texts each, with or without a score."""
    if scored:
        return "scored"
    return "texts" if texts == 1 else "pairs" if texts == 2 else "triplets"


def active_terms(recipe: Recipe) -> list[str]:
    """Returns the terms of the recipe's kind of model whose part of it is on, whatever their weight."""
    kind = model_kind(recipe)
    return [
        name
        for name, facts in TERM_FACTS.items()
        if facts.model_kind == kind and (facts.part is None or getattr(recipe.model, facts.part) is not False)
    ]


def model_kind(recipe: Recipe) -> ModelKind:
    """Returns the kind of model that a recipe trains."""
    return "dense" if recipe.sparse is None else "sparse"


def live_terms(recipe: Recipe, columns: Sequence[str], inputs: Collection[str] | None = None) -> list[str]:
    """Returns the terms that take part in training.

    Args:
        recipe: the run.
        columns: of the training rows: texts, and a score if there is one.
        inputs: the distillation inputs of the rows; ``None`` for those that the recipe provides.
    """
    rows = row_kind(sum(name != SCORE_COLUMN for name in columns), SCORE_COLUMN in columns)
    inputs = distillation_inputs(recipe) if inputs is None else inputs
    return [
        name
        for name in active_terms(recipe)
        if recipe.loss.terms[name].weight > 0 and TERM_FACTS[name].applies(rows, inputs)
    ]


def distillation_inputs(recipe: Recipe) -> list[str]:
    """Returns which of the inputs that terms learn from a recipe provides."""
    provided = {TEACHER_VECTORS: recipe.distill.teachers, MARGIN_SCORES: recipe.distill.scores}
    return [name for name, sources in provided.items() if sources]
