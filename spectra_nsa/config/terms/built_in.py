"""The facts of the terms that the package has."""

from __future__ import annotations

import sys

from spectra_nsa.config.terms.facts import (
    ALL_ROWS,
    MARGIN_SCORES,
    MATCHING,
    NEGATIVES,
    SCORED,
    SIDES,
    TEACHER_VECTORS,
    TermFacts,
)
from spectra_nsa.core.errors import UsageError

_BUILT_IN = (
    TermFacts(
        name="semantic",
        about="InfoNCE of the embedding at every Matryoshka size",
        rows=MATCHING,
        weight=1.0,
        ablation_weight=None,
    ),
    TermFacts(name="cosent", about="orders cosines by score (CoSENT)", rows=SCORED, weight=1.0),
    TermFacts(name="angle", about="orders angles by score (AnglE)", rows=SCORED),
    TermFacts(name="cosine", about="squared difference of cosine and score", rows=SCORED),
    TermFacts(name="contrastive", about="contrastive loss on scores, with a margin", rows=SCORED, margin=0.5),
    TermFacts(name="triplet", about="triplet loss with a margin; needs hard negatives", rows=NEGATIVES, margin=0.2),
    TermFacts(
        name="matryoshka_angular",
        about="keeps the cosines of the full size at the smaller Matryoshka sizes",
        rows=ALL_ROWS,
        part="matryoshka",
    ),
    TermFacts(
        name="spectral",
        about="spreads the spectrum of the anchors' embeddings",
        rows=ALL_ROWS - {"texts"},
        ablation_weight=0.1,
    ),
    TermFacts(
        name="ranking",
        about="InfoNCE of the ranking vector; needs hard negatives",
        rows=NEGATIVES,
        weight=1.0,
        train_encoder=False,
        part="ranking",
        ablation_weight=None,
    ),
    TermFacts(
        name="anchor",
        about="spectral contrastive loss of the spectral anchors",
        rows=MATCHING,
        weight=1.0,
        train_encoder=False,
        part="anchor",
        ablation_weight=None,
    ),
    TermFacts(
        name="fast",
        about="matches the similarities of binary codes to the cosines of the embedding",
        rows=ALL_ROWS,
        weight=0.1,
        train_encoder=False,
        part="bridge",
        ablation_weight=None,
    ),
    TermFacts(
        name="bridge",
        about="cosine distance between the decoded code and the embedding",
        rows=ALL_ROWS,
        weight=1.0,
        train_encoder=False,
        part="bridge",
        ablation_weight=None,
    ),
    TermFacts(
        name="entity",
        about="InfoNCE of the entity vector at each of its sizes",
        rows=MATCHING,
        weight=1.0,
        train_encoder=False,
        part="entity",
    ),
    TermFacts(
        name="anomaly",
        about="distance of texts to the nearest prototype of the anomaly head",
        rows=ALL_ROWS,
        weight=1.0,
        train_encoder=False,
        part="anomaly",
        ablation_weight=None,
    ),
    TermFacts(
        name="distill_embedding",
        about="cosine distance to the teachers' vectors",
        rows=ALL_ROWS,
        weight=1.0,
        learns_from=(TEACHER_VECTORS,),
    ),
    TermFacts(
        name="distill_similarity",
        about="KL divergence from the teachers' similarities within the batch",
        rows=ALL_ROWS,
        weight=1.0,
        learns_from=(TEACHER_VECTORS,),
    ),
    TermFacts(
        name="margin_mse",
        about="squared difference from the margins of teachers or given scores; needs hard negatives",
        rows=NEGATIVES,
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
    ),
    TermFacts(
        name="router_balance",
        about="balance of the experts' load, in each layer over the whole step",
        rows=ALL_ROWS,
        weight=0.01,
        routing=True,
        ablation_weight=None,
    ),
    TermFacts(
        name="router_z",
        about="squared log-partition of the experts' gates, which keeps their logits small",
        rows=ALL_ROWS,
        weight=0.001,
        routing=True,
        ablation_weight=None,
    ),
    TermFacts(
        name="sparse_semantic",
        about="InfoNCE of the sparse vectors' dot products",
        rows=MATCHING,
        model_kind="sparse",
        weight=1.0,
    ),
    TermFacts(
        name="sparse_margin_mse",
        about="squared difference from the margins of teachers or given scores; needs hard negatives",
        rows=NEGATIVES,
        model_kind="sparse",
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
        ablation_weight=0.05,
    ),
    TermFacts(
        name="sparse_kl",
        about="KL divergence from the scores of teachers for the batch's documents, or from given scores",
        rows=MATCHING,
        model_kind="sparse",
        weight=1.0,
        learns_from=(TEACHER_VECTORS, MARGIN_SCORES),
    ),
    *(
        TermFacts(
            name=f"{side}_{name}",
            about=about.format("queries" if side == "query" else "documents"),
            rows=MATCHING,
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
