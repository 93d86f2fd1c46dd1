"""A variant of a recipe: the values that switch one of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spectra_nsa.config.recipe import Recipe, with_values
from spectra_nsa.config.terms import ModelKind, RowKind, TermFacts
from spectra_nsa.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RecipeFacts:
    """What a recipe's model and data have where the recipe itself leaves it open.

    Attributes:
        model: the fields of the model's spec; of a sparse encoder only its dropout.
        saved: whether the recipe starts from a saved model, whose parts cannot be changed.
        rows: the kind of training rows.
        trained_head: whether the start of a sparse encoder has a vocabulary head.
    """

    model: Mapping[str, Any]
    saved: bool
    rows: RowKind
    trained_head: bool = False

    @property
    def path(self) -> str:
        """The path beside attention: ``"none"``, ``"spectral"`` or ``"conv"``."""
        return str(self.model["mixer"]) if self.model["attention"] == "spectral" else "none"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe's values with one part switched.

    Attributes:
        part: its name.
        about: what it is, in a line.
        adds: whether the variant has the part; otherwise the recipe has it.
        values: the recipe's keys that change, dotted.
        detached: whether the part is a head that trains alone: no gradient of it reaches the encoder.
    """

    part: str
    about: str
    adds: bool
    values: Mapping[str, Any]
    detached: bool = False

    @property
    def name(self) -> str:
        """``"with-PART"`` or ``"without-PART"``."""
        return f"{'with' if self.adds else 'without'}-{self.part}"


# Returns whether a recipe has the part, and the values that switch it.
Switch = Callable[[Recipe, RecipeFacts], tuple[bool, dict[str, Any]]]
Condition = Callable[[Recipe, RecipeFacts], bool]


@dataclass(frozen=True)
class Part:
    """An entry of the catalogue; see `Variant` for `detached`. A `model_kind` of ``None`` is both."""

    name: str
    about: str
    switch: Switch
    detached: Condition = lambda recipe, facts: False
    model_kind: ModelKind | None = "dense"


def senseless(part: str, reason: str, remedy: str) -> UsageError:
    """Returns the error for a part that makes no sense for a recipe."""
    return UsageError(f"part {part} makes no sense here: {reason}. {remedy[:1].upper()}{remedy[1:]}, or leave it out.")


def apply_variant(recipe: Recipe, variant: Variant) -> Recipe:
    """Returns the recipe with the variant's values.

    Raises:
        UsageError: a key that does not exist, a value of the wrong kind, or nothing changes.
    """
    changed = with_values(recipe, variant.values, where=f"part {variant.part}")
    if changed == recipe:
        raise UsageError(f"part {variant.part}: the recipe has {variant.about} already.")
    return changed


def check_weight(part: str, terms: list[TermFacts], recipe: Recipe) -> None:
    """Checks that one of some terms has a weight.

    Raises:
        UsageError: none has, so what acts through them cannot be switched.
    """
    if not any(recipe.loss.terms[term.name].weight for term in terms):
        key = f"loss.terms.{terms[0].name}.weight"
        raise senseless(part, f"{key} is 0", f"set {key}=1")
