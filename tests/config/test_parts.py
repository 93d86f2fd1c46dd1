"""The catalogue of parts against the recipe's keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spectra_nsa.config.parts import PARTS, Held, own_part, turn, turned
from spectra_nsa.config.recipe import Recipe, load_recipe, with_values
from spectra_nsa.config.sections import ModelSection, Terms
from spectra_nsa.core.errors import UsageError

BARE = Held(
    path="none", depth_mix=False, entity=False, pooling="mean", dropout=0.0, sizes=3, fixed=False, negatives=True
)
# What a warm start has after a part was turned on, as the plan would read it from the model.
GAINED: dict[str, dict[str, Any]] = {
    "spectral": {"path": "spectral"}, "conv": {"path": "conv"}, "depth_mix": {"depth_mix": True},
    "entity": {"entity": True}, "attention_pooling": {"pooling": "attention"},
    "entropy_pooling": {"pooling": "entropy"},
}  # fmt: skip


# Those that need teachers.
TAUGHT = load_recipe(None, ["distill.teachers=[one]"])


def recipe_for(name: str) -> Recipe:
    return TAUGHT if name in ("distill_embedding", "distill_similarity", "margin_mse") else Recipe()


def held(name: str) -> Held:
    if name in ("cosent", "angle", "cosine", "contrastive"):
        return replace(BARE, scored=True)
    return replace(BARE, path="spectral") if name == "gate_lr" else BARE


@pytest.mark.parametrize("name", PARTS)
def test_a_part_turned_twice_is_as_it_was(name: str) -> None:
    recipe = recipe_for(name)
    once = turn(name, recipe, held(name))
    changed = turned(recipe, once)
    assert changed != recipe
    after = replace(held(name), **GAINED.get(name, {}))
    back = turn(name, changed, after)
    assert back.adds is not once.adds and back.part == once.part == name
    assert once.cell == f"{'with' if once.adds else 'without'}-{name}"
    again = turned(changed, back)
    assert turn(name, again, held(name)).adds is once.adds, "turned back, it can be turned over as at first"


def test_every_switch_of_the_recipe_is_in_the_catalogue() -> None:
    keys = set()
    for name in PARTS:
        for recipe in (recipe_for(name), with_values(recipe_for(name), {"model.spectral": True})):
            keys |= set(turn(name, recipe, held(name)).values)
    switches = [name for name, field in ModelSection.model_fields.items() if "bool" in str(field.annotation)]
    assert {f"model.{name}" for name in switches} <= keys
    heads = [name for name in Terms.model_fields if not getattr(Terms(), name).joined and name != "anomaly"]
    assert {f"loss.terms.{name}.joined" for name in heads} <= keys
    off = [name for name in Terms.model_fields if getattr(Terms(), name).weight == 0]
    assert {f"loss.terms.{name}.weight" for name in off} <= keys


@pytest.mark.parametrize(
    ("name", "words", "has", "said"),
    [
        ("ranking", [], {"negatives": False}, "column negative"),
        ("ranking-joined", [], {"negatives": False}, "column negative"),
        ("triplet", [], {"negatives": False}, "column negative"),
        ("anchor", [], {"scored": True}, "Give pairs"),
        ("both_directions", [], {"scored": True}, "Give pairs"),
        ("entity_term", [], {"scored": True}, "Give pairs"),
        ("angle", [], {}, "sentence1, sentence2 and score"),
        ("spectral", [], {"fixed": True}, "saved model"),
        ("entity", [], {"fixed": True}, "saved model"),
        ("matryoshka", [], {"sizes": 1}, "semantic_dims"),
        ("matryoshka_angular", ["model.matryoshka=false"], {}, "model.matryoshka=true"),
        ("anchor", ["loss.terms.anchor.weight=0"], {}, "loss.terms.anchor.weight=1"),
        ("anchor-joined", ["model.anchor=false"], {}, "model.anchor=true"),
        ("entity_term", ["model.entity=false"], {}, "model.entity=null"),
        ("gate_lr", [], {}, "model.spectral=true"),
        ("distill_similarity", [], {}, "distill.teachers=[MODEL]"),
        ("margin_mse", ["distill.teachers=[one]"], {"negatives": False}, "column negative"),
        ("spektral", [], {}, "Did you mean 'spectral'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_remedy(
    name: str, words: list[str], has: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        turn(name, load_recipe(None, words), replace(BARE, **has))
    assert name in str(error.value) and said in str(error.value)


def test_a_head_is_alone_until_it_is_joined() -> None:
    joined = with_values(Recipe(), {"loss.terms.bridge.joined": True})
    assert turn("anchor", Recipe(), BARE).apart and turn("bridge", joined, BARE).apart  # fast still holds the logits
    both = with_values(joined, {"loss.terms.fast.joined": True})
    assert not turn("bridge", both, BARE).apart
    assert turn("entity_term", Recipe(), BARE).apart
    assert not turn("entity_term", Recipe(), replace(BARE, entity=True)).apart
    assert not turn("anchor-joined", Recipe(), BARE).apart


def test_conv_and_spectral_take_each_others_place() -> None:
    recipe = Recipe()
    assert turn("conv", recipe, replace(BARE, path="spectral")).values == {
        "model.spectral": True,
        "model.mixer": "conv",
    }
    assert turn("spectral", recipe, replace(BARE, path="spectral")).values == {"model.spectral": False}
    assert turn("spectral", recipe, replace(BARE, path="conv")).values["model.mixer"] == "spectral"


def test_a_part_of_ones_own() -> None:
    one = own_part("hot:loss.temperature=0.1,model.semantic_dims=[32, 16],train.lr=1e-3")
    assert one.values == {"loss.temperature": 0.1, "model.semantic_dims": [32, 16], "train.lr": 1e-3}
    assert one.cell == "with-hot" and turned(Recipe(), one).train.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hot", "NAME:key=value"),
        ("a/b:train.lr=1", "NAME:key=value"),
        ("anchor:train.lr=1", "catalogue"),
        ("x:train.seed=4", "train.seed is the same"),
        ("x:backup.to=there", "backup.to is the same"),
        ("x:train.l=4", "part x.*Did you mean 'train.lr'"),
        ("x:train.lr=1e-4", "has already"),
    ],
)
def test_bad_parts_of_ones_own(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        turned(Recipe(), own_part(text))
