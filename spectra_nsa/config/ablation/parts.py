"""The catalogue of parts that an ablation switches: off if the recipe has the part, on if it does not.

docs/model.md says what each of them computes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from spectra_nsa.config.ablation.sparse_parts import SPARSE_PARTS
from spectra_nsa.config.ablation.variants import (
    Condition,
    Part,
    RecipeFacts,
    Switch,
    Variant,
    check_weight,
    senseless,
)
from spectra_nsa.config.overrides import read_override
from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.sections import SHAPE_OPTIONS, ModelSection
from spectra_nsa.config.shape_options import ShapeOption
from spectra_nsa.config.terms import ROW_KINDS, TERM_FACTS, TermFacts, distillation_inputs, model_kind
from spectra_nsa.core.errors import UsageError, unknown_name


def parts_for(recipe: Recipe) -> list[str]:
    """Returns the names of the catalogue that are for the recipe's kind of model."""
    return [name for name, part in PARTS.items() if part.model_kind in (None, model_kind(recipe))]


def variant_of(name: str, recipe: Recipe, facts: RecipeFacts) -> Variant:
    """Returns the variant that switches a part of the catalogue.

    Raises:
        UsageError: there is no such part, or switching it makes no sense for the recipe.
    """
    if name not in PARTS:
        raise unknown_name("part", name, PARTS)
    part, kind = PARTS[name], model_kind(recipe)
    if part.model_kind not in (None, kind):
        other = "sparse.kind=splade" if kind == "dense" else "sparse=null"
        raise senseless(name, f"the recipe trains a {kind} model", f"set {other}")
    has, values = part.switch(recipe, facts)
    return Variant(part=name, about=part.about, adds=not has, values=values, detached=part.detached(recipe, facts))


def custom_variant(text: str) -> Variant:
    """Returns the variant that adds a part of the user's own: ``NAME:key=value[,key=value…]``.

    Raises:
        UsageError: it is malformed, has a name of the catalogue, or a key that would make cells incomparable.
    """
    name, colon, rest = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or not rest:
        raise UsageError(f"--part is NAME:key=value[,key=value…], such as hot:loss.temperature=0.1, not {text!r}.")
    if name in PARTS or name == "all":
        raise UsageError(f"--part {name}: the catalogue has a part of that name. Choose another one.")
    values = dict(read_override(override, Recipe) for override in re.split(r",(?=[a-z_]+(?:\.[a-z_]+)*=)", rest))
    for key in values:
        if key in _COMMON or key.startswith("backup."):
            raise UsageError(f"--part {name}: {key} has to be the same in all cells. Leave this part out.")
    return Variant(part=name, about=rest, adds=True, values=values)


_GATED_POOLING = ("attention", "entropy")
_COMMON = ("name", "output", "train.seed", "train.patience", "data.train", "data.dev", "data.dev_rows")


def _check_buildable(part: str, facts: RecipeFacts) -> None:
    if facts.saved:
        raise senseless(
            part, "model.start is a saved model, whose parts cannot change", "start from a checkpoint or a size"
        )


def _check_rows(part: str, term: TermFacts, facts: RecipeFacts) -> None:
    if facts.rows not in term.rows:
        raise senseless(part, f"the training rows are {ROW_KINDS[facts.rows]}", f"give {term.needed_rows}")


def _check_sizes(part: str, facts: RecipeFacts) -> None:
    if len(facts.model["semantic_dims"]) < 2:
        raise senseless(part, "there is only one Matryoshka size", "give model.semantic_dims=[…] more of them")


def _check_part_on(part: str, key: str | None, recipe: Recipe) -> None:
    if key is not None and getattr(recipe.model, key) is False:
        default = json.dumps(ModelSection.model_fields[key].default)
        raise senseless(part, f"model.{key} is off", f"set model.{key}={default}")


def _path(kind: str) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        _check_buildable(kind, facts)
        if facts.path == kind:
            return True, {"model.spectral": False}
        return False, {"model.spectral": True, "model.mixer": kind}

    return switch


def _shape_switch(name: str, option: ShapeOption) -> Switch:
    """Switches a part of the model that the recipe may leave open."""

    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        _check_buildable(name, facts)
        has = bool(facts.model[option.field or name])
        return has, {f"model.{name}": not has}

    return switch


def _pooling(kind: str) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        _check_buildable(f"{kind}_pooling", facts)
        has = facts.model["pooling"] == kind
        return has, {"model.pooling": "mean" if has else kind}

    return switch


def _matryoshka(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    _check_sizes("matryoshka", facts)
    return recipe.model.matryoshka, {"model.matryoshka": not recipe.model.matryoshka}


def _terms_of(key: str) -> list[TermFacts]:
    """Returns the terms that `model.KEY` turns off, the one of that name first."""
    return sorted((term for term in TERM_FACTS.values() if term.part == key), key=lambda term: term.name != key)


def _head(key: str) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        terms = _terms_of(key)
        check_weight(key, terms, recipe)
        _check_rows(key, terms[0], facts)
        has = getattr(recipe.model, key)
        return has, {f"model.{key}": not has}

    return switch


def _joined(key: str) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        part, terms = f"{key}-joined", _terms_of(key)
        check_weight(part, terms, recipe)
        _check_rows(part, terms[0], facts)
        _check_part_on(part, key, recipe)
        has = all(recipe.loss.terms[term.name].train_encoder for term in terms)
        return has, {f"loss.terms.{term.name}.train_encoder": not has for term in terms}

    return switch


def _head_detached(key: str) -> Condition:
    """Terms that share an output, as `bridge` and `fast` do, are detached until all of them train the encoder."""

    def detached(recipe: Recipe, facts: RecipeFacts) -> bool:
        settings = [recipe.loss.terms[term.name] for term in _terms_of(key)]
        return not all(term.train_encoder for term in settings if term.weight)

    return detached


def _term(part: str, term: TermFacts) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        _check_rows(part, term, facts)
        if term.learns_from and not set(term.learns_from) & set(distillation_inputs(recipe)):
            raise senseless(part, "it has nothing to learn from", term.remedy)
        _check_part_on(part, term.part, recipe)
        if term.part == "matryoshka":
            _check_sizes(part, facts)
        has = recipe.loss.terms[term.name].weight > 0
        if has and term.model_kind == "sparse" and term.side is None:
            _check_ranked_without(term, recipe, facts)
        return has, {f"loss.terms.{term.name}.weight": 0.0 if has else term.ablation_weight}

    return switch


def _check_ranked_without(term: TermFacts, recipe: Recipe, facts: RecipeFacts) -> None:
    inputs = distillation_inputs(recipe)
    for other in TERM_FACTS.values():
        ranks = other.model_kind == "sparse" and other.side is None and other is not term
        if ranks and recipe.loss.terms[other.name].weight and other.applies(facts.rows, inputs):
            return
    raise senseless(term.name, "no other term of the recipe ranks", "set distill.teachers=[MODEL]")


def _term_detached(term: TermFacts) -> Condition:
    def detached(recipe: Recipe, facts: RecipeFacts) -> bool:
        in_embedding = term.part == "entity" and facts.model["entity"]
        return not term.train_encoder and not recipe.loss.terms[term.name].train_encoder and not in_embedding

    return detached


def _number(key: str, on: float, off: float) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        section, name = key.split(".")
        value = getattr(getattr(recipe, section), name)
        has = (facts.model["hidden_dropout_prob"] if value is None else value) != off
        return has, {key: off if has else on}

    return switch


def _both_directions(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    _check_rows("both_directions", TERM_FACTS["semantic"], facts)
    return recipe.loss.both_directions, {"loss.both_directions": not recipe.loss.both_directions}


def _temperature(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    last, first = recipe.loss.temperature, recipe.loss.temperature_start
    has = first is not None and first != last
    return has, {"loss.temperature_start": None if has else round(1.4 * last, 6)}


def _gate_lr(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    model = facts.model
    gated = model["depth_mix"] or model["layer_routing"] or model["entity"] or model["pooling_kinds"]
    if not (facts.path != "none" or gated or model["pooling"] in _GATED_POOLING):
        raise senseless("gate_lr", "the model has no gates", "turn a gated part on, such as model.spectral=true")
    return _number("train.gate_lr_factor", 50.0, 1.0)(recipe, facts)


def _experts(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
    _check_buildable("experts", facts)
    if recipe.model.ffn == "moe":
        return True, {"model.ffn": None, "model.experts": {}}
    if facts.model["ffn"] == "moe":
        raise senseless("experts", f"the size {recipe.model.size} has them", "name a size without")
    return False, {"model.ffn": "moe"}


def _of_texts(key: str, on: Any) -> Switch:
    def switch(recipe: Recipe, facts: RecipeFacts) -> tuple[bool, dict[str, Any]]:
        _check_buildable(key, facts)
        if key == "pooling_kinds" and facts.model["pooling"] != "mean":
            raise senseless(key, f"the pooling is {facts.model['pooling']}", "set model.pooling=mean")
        has = bool(facts.model[key])
        return has, {f"model.{key}": None if has else on}

    return switch


_MODEL_AND_OPTIONS = (
    Part("spectral", "the entropy-gated path beside attention, with the spectral filter", _path("spectral")),
    Part("conv", "the same path with a convolution instead of the filter", _path("conv")),
    *(
        Part(name, option.part, _shape_switch(name, option))
        for name, option in SHAPE_OPTIONS.items()
        if option.part is not None
    ),
    Part("experts", "experts instead of one feed-forward network in each layer", _experts),
    Part("adapters", "small networks on the pooled vector that each text mixes, four if turned on",
         _of_texts("adapters", 4)),
    Part("pooling_kinds", "further poolings that each text mixes in, cls and max if turned on",
         _of_texts("pooling_kinds", ["cls", "max"])),
    Part("attention_pooling", "learned weights of tokens; mean pooling without it", _pooling("attention")),
    Part("entropy_pooling", "tokens weighted by attention entropy; mean pooling without it", _pooling("entropy")),
    Part("matryoshka", "the smaller sizes of `embedding`, trained too", _matryoshka),
    Part("anchor", "the term of the spectral anchors", _head("anchor"), _head_detached("anchor")),
    Part("bridge", "the terms of the binary codes: fast and bridge", _head("bridge"), _head_detached("bridge")),
    Part("ranking", "the ranking head's term; needs hard negatives", _head("ranking"), _head_detached("ranking")),
    Part("anomaly", "the anomaly head's prototypes", _head("anomaly"), lambda recipe, facts: True),
    Part("anchor-joined", "the gradient of the spectral anchors flows into the encoder", _joined("anchor")),
    Part("bridge-joined", "the gradient of the binary codes flows into the encoder", _joined("bridge")),
    Part("ranking-joined", "the ranking head's gradient flows into the encoder", _joined("ranking")),
    Part("entity-joined", "the entity head's gradient flows into the encoder", _joined("entity")),
    Part("both_directions", "InfoNCE also from document to query", _both_directions, model_kind=None),
    Part("temperature_schedule", "a temperature that falls, from 1.4 times its last value", _temperature),
    Part("dropout", "dropout, 0.1 if turned on", _number("model.dropout", 0.1, 0.0), model_kind=None),
    Part("weight_decay", "weight decay, 0.01 if turned on", _number("train.weight_decay", 0.01, 0.0),
         model_kind=None),
    Part("warmup", "a learning rate that rises at first, for 8 % of the steps if turned on",
         _number("train.warmup", 0.08, 0.0), model_kind=None),
    Part("gate_lr", "a separate learning rate for the gates, 50 times the others' if turned on", _gate_lr),
    *SPARSE_PARTS,
)  # fmt: skip
PARTS: dict[str, Part] = {part.name: part for part in _MODEL_AND_OPTIONS}
for _facts in TERM_FACTS.values():
    if _facts.ablation_weight is not None:
        _name = f"{_facts.name}_term" if _facts.name in PARTS else _facts.name
        _about = f"{_facts.about} (weight {_facts.ablation_weight:g} if turned on)"
        PARTS[_name] = Part(_name, _about, _term(_name, _facts), _term_detached(_facts), _facts.model_kind)
