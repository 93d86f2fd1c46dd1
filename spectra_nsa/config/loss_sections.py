"""The sections `loss` and `distill` of a recipe; the entries of `loss.terms` are made from the facts of the terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model, model_validator

from spectra_nsa.config.section import Section
from spectra_nsa.config.terms import TERM_FACTS, TermFacts


class TermSection(Section):
    """One term of the loss."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0 turns it off")
    start: int = Field(0, ge=0, description="first step at which the term counts")
    ramp: int | None = Field(
        0, ge=0, description="steps over which the weight rises from 0; null takes a third of the run"
    )
    train_encoder: bool = Field(True, description="whether the term of a head trains the encoder too")


class MarginTermSection(TermSection):
    """A term with a margin."""

    margin: float = Field(gt=0, description="how far apart texts that do not match have to be")


class RegularizerTermSection(TermSection):
    """A regularizer of sparse vectors. With a target in `sparse`, its weight is its share among those of its side."""

    threshold: int | None = Field(
        None, ge=0, description="only texts with more active dimensions than this count; null counts all"
    )


class _TermsBase(Section):
    """The terms by name (docs/model.md, section 7)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_defaults(cls, values: Any) -> Any:
        """Completes a term's entry from that term's own defaults: setting a weight does not join a head."""
        if not isinstance(values, Mapping):
            return values
        defaults = {name: field.default.model_dump() for name, field in cls.model_fields.items()}
        return {
            name: {**defaults[name], **term} if name in defaults and isinstance(term, Mapping) else term
            for name, term in values.items()
        }

    def __getitem__(self, name: str) -> TermSection:
        """Returns a term's settings."""
        term: TermSection = getattr(self, name)
        return term


def _term_field(facts: TermFacts) -> tuple[type[TermSection], Any]:
    values: dict[str, Any] = {"weight": facts.weight, "train_encoder": facts.train_encoder}
    if facts.side is not None:
        return RegularizerTermSection, Field(RegularizerTermSection(**values, ramp=None), description=facts.about)
    if facts.margin is None:
        return TermSection, Field(TermSection(**values), description=facts.about)
    return MarginTermSection, Field(MarginTermSection(**values, margin=facts.margin), description=facts.about)


if TYPE_CHECKING:

    class TermsSection(_TermsBase):
        def __getattr__(self, name: str) -> TermSection: ...

else:  # one field for each term
    TermsSection = create_model(
        "TermsSection",
        __base__=_TermsBase,
        __doc__=_TermsBase.__doc__,
        __module__=__name__,
        **{name: _term_field(facts) for name, facts in TERM_FACTS.items()},
    )


class LossSection(Section):
    """The loss stack."""

    temperature: float = Field(0.05, gt=0, description="temperature that cosines are divided by")
    temperature_start: float | None = Field(
        None,
        gt=0,
        description=(
            "start of the temperature, which falls to `loss.temperature` on a half cosine; null keeps it constant"
        ),
    )
    terms: TermsSection = TermsSection()
    both_directions: bool = Field(True, description="also train the direction from document to query")


class DistillSection(Section):
    """Distillation: other models whose vectors the student learns."""

    teachers: list[str] = Field(
        [],
        description="folders or Hub names of the models to learn from; if empty, the distillation terms are inactive",
    )
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None, description="weight of each teacher in the mean of their cosines; null weights them equally"
    )
    temperature: float = Field(0.05, gt=0, description="temperature of the similarity distributions that are compared")
    scores: list[str] | None = Field(
        None,
        min_length=1,
        description=(
            "columns of scores for `margin_mse`: the positive's, then one for each negative, or one column of "
            "lists; null takes the teachers' cosines"
        ),
    )

    @model_validator(mode="after")
    def _one_weight_for_each_teacher(self) -> DistillSection:
        if self.weights is not None and len(self.weights) != len(self.teachers):
            raise ValueError(f"{len(self.weights)} weights for {len(self.teachers)} teachers: give one for each")
        return self
