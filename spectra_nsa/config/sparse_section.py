"""The section `sparse` of a recipe: learned sparse encoders (SPLADE and inference-free)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spectra_nsa.config.section import Section


class SparseSection(Section):
    """Learned sparse encoders: texts as weighted terms of a vocabulary."""

    kind: Literal["splade", "inference_free"] = Field(
        "splade",
        description="splade encodes queries and documents; inference_free looks up one weight per query token",
    )
    head: Literal["auto", "checkpoint", "closed_form"] = Field(
        "auto",
        description=(
            "what maps token states to the vocabulary: the checkpoint's masked-LM head, or a head fitted in closed "
            "form; auto takes the checkpoint's if it has one"
        ),
    )
    query_active: float | None = Field(
        40,
        ge=1,
        description=(
            "target for the mean number of active dimensions of queries, which the weight of their regularizers "
            "follows; null takes the weights of `loss.terms` as they are"
        ),
    )
    document_active: float | None = Field(150, ge=1, description="the same target for documents")
    scale: float = Field(1.0, gt=0, description="factor on the dot products in the losses")
    teacher_scale: float = Field(
        30.0, gt=0, description="factor on the teachers' scores after they are normalized to 0 to 1"
    )
    static_lr: float = Field(0.01, gt=0, description="peak learning rate of the query weights (inference_free)")
    highest_df: float | None = Field(
        0.5,
        gt=0,
        le=1,
        description=(
            "highest share of the documents in which a term may be active, before the first step and after the last; "
            "null allows terms that are in all of them"
        ),
    )
    calibrate: int = Field(
        256, ge=0, description="texts on which the head is calibrated before the first step; 0 leaves it as it is"
    )
