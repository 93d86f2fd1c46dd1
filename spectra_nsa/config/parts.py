"""The parts of a recipe that can be turned over: off where it has them on, on where it has them off.

docs/model.md says what each of them computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectra_nsa.config.overrides import read_override
from spectra_nsa.config.recipe import Recipe, with_values
from spectra_nsa.core.errors import UsageError, unknown_name


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a recipe's model and data have, where the recipe itself leaves it open.

    Attributes:
        path: what stands beside attention: ``"none"``, ``"spectral"`` or ``"conv"``.
        depth_mix: whether the model mixes depths.
        entity: whether the entity vector is in `embedding`.
        pooling: its kind.
        dropout: of the hidden states.
        sizes: how many Matryoshka sizes there are.
        fixed: whether the model is a saved one, whose parts cannot be changed.
        negatives: whether the training rows have hard negatives.
        scored: whether they are scored pairs.
    """

    path: str
    depth_mix: bool
    entity: bool
    pooling: str
    dropout: float
    sizes: int
    fixed: bool
    negatives: bool
    scored: bool = False


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A part turned over.

    Attributes:
        part: its name.
        says: what it is, in a line.
        adds: whether the turned recipe has the part; otherwise the recipe has it.
        values: the recipe's keys that change, dotted.
        apart: whether the part is a head that trains alone: no gradient of it reaches the encoder.
    """

    part: str
    says: str
    adds: bool
    values: Mapping[str, Any]
    apart: bool = False

    @property
    def cell(self) -> str:
        """What the turned recipe is called."""
        return f"{'with' if self.adds else 'without'}-{self.part}"


@dataclass(frozen=True)
class Part:
    """An entry of the catalogue: `look` gives whether a recipe has the part, and the keys that turn it over."""

    name: str
    says: str
    look: Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]
    apart: Callable[[Recipe, Held], bool] = lambda recipe, held: False


def turn(name: str, recipe: Recipe, held: Held) -> Turn:
    """A part of the catalogue, turned over.

    Raises:
        UsageError: there is no such part, or it makes no sense for the recipe.
    """
    if name not in PARTS:
        raise unknown_name("part", name, PARTS)
    part = PARTS[name]
    has, values = part.look(recipe, held)
    return Turn(part=name, says=part.says, adds=not has, values=values, apart=part.apart(recipe, held))


def own_part(text: str) -> Turn:
    """A part of one's own: ``NAME:key=value[,key=value…]``, which the turned recipe has.

    Raises:
        UsageError: it is written otherwise, has a name of the catalogue, or a key that would make cells unequal.
    """
    name, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or not rest:
        raise UsageError(f"--part is NAME:key=value[,key=value…], such as hot:loss.temperature=0.1, not {text!r}.")
    if name in PARTS or name == "all":
        raise UsageError(f"--part {name}: the catalogue has a part of that name. Choose another one.")
    values = dict(read_override(one) for one in re.split(r",(?=[a-z_]+(?:\.[a-z_]+)*=)", rest))
    for key in values:
        if key in _COMMON or key.startswith("backup."):
            raise UsageError(f"--part {name}: {key} is the same in all cells. Leave this part out.")
    return Turn(part=name, says=rest, adds=True, values=values)


def turned(recipe: Recipe, one: Turn) -> Recipe:
    """The recipe with a part turned over.

    Raises:
        UsageError: a key that does not exist, a value of the wrong kind, or nothing changes.
    """
    changed = with_values(recipe, one.values, where=f"part {one.part}")
    if changed == recipe:
        raise UsageError(f"part {one.part}: {one.says} is what the recipe has already.")
    return changed


_COMMON = ("name", "output", "train.seed", "train.patience", "data.train", "data.dev", "data.dev_rows")


def _no(part: str, why: str, remedy: str) -> UsageError:
    return UsageError(f"part {part} makes no sense here: {why}. {remedy[:1].upper()}{remedy[1:]}, or leave it out.")


def _changeable(part: str, held: Held) -> None:
    if held.fixed:
        raise _no(part, "model.start is a saved model, whose parts stay as they are", "start from a checkpoint or size")


def _path(kind: str) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _changeable(kind, held)
        if held.path == kind:
            return True, {"model.spectral": False}
        return False, {"model.spectral": True, "model.mixer": kind}

    return look


def _flag(name: str) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    """A part of the model, which the recipe may leave to it."""

    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _changeable(name, held)
        has = bool(getattr(held, name))
        return has, {f"model.{name}": not has}

    return look


def _pooling(kind: str) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _changeable(f"{kind}_pooling", held)
        has = held.pooling == kind
        return has, {"model.pooling": "mean" if has else kind}

    return look


def _matryoshka(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
    if held.sizes < 2:
        raise _no("matryoshka", "there is one size only", "give model.semantic_dims=[…] more of them")
    return recipe.model.matryoshka, {"model.matryoshka": not recipe.model.matryoshka}


def _head(name: str, terms: Sequence[str]) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _weighted(name, recipe, terms)
        _rows(name, held)
        has = getattr(recipe.model, name)
        return has, {f"model.{name}": not has}

    return look


def _joined(name: str, terms: Sequence[str]) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    part = f"{name}-joined"

    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _weighted(part, recipe, terms)
        _rows(part, held)
        if getattr(recipe.model, name) is False:
            raise _no(part, f"model.{name} is off", f"set model.{name}=true")
        has = all(getattr(recipe.loss.terms, term).joined for term in terms)
        return has, {f"loss.terms.{term}.joined": not has for term in terms}

    return look


def _weighted(part: str, recipe: Recipe, terms: Sequence[str]) -> None:
    if not any(getattr(recipe.loss.terms, term).weight for term in terms):
        raise _no(part, f"loss.terms.{terms[0]}.weight is 0", f"set loss.terms.{terms[0]}.weight=1")


def _rows(part: str, held: Held) -> None:
    """Refuses a part whose term has nothing to say of the training rows."""
    name = part.removesuffix("-joined")
    if name in ("ranking", "triplet", "margin_mse") and not held.negatives:
        raise _no(part, "the training rows have no hard negatives", "give data with a column negative")
    if name in ("anchor", "entity", "entity_term", "both_directions") and part != "entity" and held.scored:
        raise _no(part, "the training rows are scored pairs, of which nobody says that they match", "give pairs")
    if name in _SCORED and not held.scored:
        raise _no(part, "the training rows have no scores", "give data with columns sentence1, sentence2 and score")


def _term(part: str, term: str, weight: float) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        _rows(part, held)
        if term in _TAUGHT and not (recipe.distill.teachers or (term == "margin_mse" and recipe.distill.scores)):
            raise _no(part, "there is no teacher", "set distill.teachers=[MODEL]")
        if term == "entity" and recipe.model.entity is False:
            raise _no(part, "model.entity is off", "set model.entity=null")
        if term == "matryoshka_angular" and (held.sizes < 2 or not recipe.model.matryoshka):
            raise _no(part, "one Matryoshka size is trained", "set model.matryoshka=true")
        has = getattr(recipe.loss.terms, term).weight > 0
        return has, {f"loss.terms.{term}.weight": 0.0 if has else weight}

    return look


def _number(key: str, on: float, off: float) -> Callable[[Recipe, Held], tuple[bool, dict[str, Any]]]:
    def look(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
        section, name = key.split(".")
        value = getattr(getattr(recipe, section), name)
        has = (held.dropout if value is None else value) != off
        return has, {key: off if has else on}

    return look


def _both_directions(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
    _rows("both_directions", held)
    return recipe.loss.both_directions, {"loss.both_directions": not recipe.loss.both_directions}


def _temperature(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
    last, first = recipe.loss.temperature, recipe.loss.temperature_start
    has = first is not None and first != last
    return has, {"loss.temperature_start": None if has else round(1.4 * last, 6)}


def _gate_lr(recipe: Recipe, held: Held) -> tuple[bool, dict[str, Any]]:
    gated = held.path != "none" or held.depth_mix or held.entity or held.pooling in ("attention", "entropy")
    if not gated:
        raise _no("gate_lr", "the model has no gates", "turn a gated part on, such as model.spectral=true")
    return _number("train.gate_lr", 50.0, 1.0)(recipe, held)


def _apart(*terms: str) -> Callable[[Recipe, Held], bool]:
    """Whether no gradient of the terms reaches the encoder; `bridge` and `fast` share an output, so one holds both."""

    def apart(recipe: Recipe, held: Held) -> bool:
        found = [getattr(recipe.loss.terms, term) for term in terms]
        return not all(term.joined for term in found if term.weight)

    return apart


_CODES = ("bridge", "fast")
_SCORED = ("cosent", "angle", "cosine", "contrastive")
_TAUGHT = ("distill_embedding", "distill_similarity", "margin_mse")
_CATALOGUE = (
    Part("spectral", "the entropy-gated path beside attention, with the spectral filter", _path("spectral")),
    Part("conv", "that path with a convolution in the filter's place", _path("conv")),
    Part("depth_mix", "states of dyadic depths, gated into the last", _flag("depth_mix")),
    Part("entity", "the entity vector, gated into `embedding`", _flag("entity")),
    Part("attention_pooling", "learned weights of tokens; mean pooling without", _pooling("attention")),
    Part("entropy_pooling", "tokens weighted by attention entropy; mean pooling without", _pooling("entropy")),
    Part("matryoshka", "the smaller sizes of `embedding`, trained too", _matryoshka),
    Part("anchor", "the anchor head's term", _head("anchor", ["anchor"]), _apart("anchor")),
    Part("bridge", "the terms of the hash: fast and bridge", _head("bridge", _CODES), _apart(*_CODES)),
    Part("ranking", "the ranking head's term; needs hard negatives", _head("ranking", ["ranking"]), _apart("ranking")),
    Part("anomaly", "the anomaly head's prototypes", _head("anomaly", ["anomaly"]), lambda recipe, held: True),
    Part("entity_term", "the entity head's own term (weight 1)", _term("entity_term", "entity", 1.0),
         lambda recipe, held: not held.entity and not recipe.loss.terms.entity.joined),
    Part("anchor-joined", "the anchors' gradient flows into the encoder", _joined("anchor", ["anchor"])),
    Part("bridge-joined", "the hash's gradient flows into the encoder", _joined("bridge", _CODES)),
    Part("ranking-joined", "the ranking head's gradient flows into the encoder", _joined("ranking", ["ranking"])),
    Part("entity-joined", "the entity head's gradient flows into the encoder", _joined("entity", ["entity"])),
    Part("cosent", "scores by the order of cosines (weight 1)", _term("cosent", "cosent", 1.0)),
    Part("angle", "scores by the order of AnglE's angles (weight 1)", _term("angle", "angle", 1.0)),
    Part("cosine", "scores as cosines (weight 1)", _term("cosine", "cosine", 1.0)),
    Part("contrastive", "scores as matches, with a margin (weight 1)", _term("contrastive", "contrastive", 1.0)),
    Part("triplet", "the triplet term (weight 1); needs hard negatives", _term("triplet", "triplet", 1.0)),
    Part("matryoshka_angular", "small sizes keep the full size's cosines (weight 1)",
         _term("matryoshka_angular", "matryoshka_angular", 1.0)),
    Part("spectral_term", "spread of the anchors' spectrum (weight 0.1)", _term("spectral_term", "spectral", 0.1)),
    Part("distill_embedding", "the teachers' vectors (weight 1)", _term("distill_embedding", "distill_embedding", 1.0)),
    Part("distill_similarity", "the teachers' similarities in the batch (weight 1)",
         _term("distill_similarity", "distill_similarity", 1.0)),
    Part("margin_mse", "margins between scores (weight 1); needs hard negatives",
         _term("margin_mse", "margin_mse", 1.0)),
    Part("both_directions", "InfoNCE also from document to query", _both_directions),
    Part("temperature_schedule", "a temperature that falls, from 1.4 times its last value", _temperature),
    Part("dropout", "dropout: 0.1 where it is off", _number("model.dropout", 0.1, 0.0)),
    Part("weight_decay", "weight decay: 0.01 where it is off", _number("train.weight_decay", 0.01, 0.0)),
    Part("warmup", "a learning rate that rises at first: for 8 % where it is off", _number("train.warmup", 0.08, 0.0)),
    Part("gate_lr", "a learning rate of the gates' own: 50 times the others' where it is off", _gate_lr),
)  # fmt: skip
PARTS: Mapping[str, Part] = {part.name: part for part in _CATALOGUE}
