"""The catalogue of parts against the recipe's keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spectra_nsa.config.ablation.parts import PARTS, custom_variant, variant_of
from spectra_nsa.config.ablation.variants import RecipeFacts, apply_variant
from spectra_nsa.config.recipe import Recipe, load_recipe, with_values
from spectra_nsa.config.sections import ModelSection
from spectra_nsa.config.sparse_section import SparseSection
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.errors import UsageError

BARE = RecipeFacts(
    model={
        "attention": "plain",
        "mixer": "spectral",
        "depth_mix": False,
        "layer_routing": False,
        "pooling_kinds": None,
        "ffn": "gelu",
        "adapters": 0,
        "entity": False,
        "pooling": "mean",
        "hidden_dropout_prob": 0.0,
        "semantic_dims": [48, 32, 16],
    },
    saved=False,
    rows="triplets",
)
# The facts of a warm start with the part turned on, as the plan would read them from the model.
GAINED: dict[str, dict[str, Any]] = {
    "spectral": {"attention": "spectral"}, "conv": {"attention": "spectral", "mixer": "conv"},
    "depth_mix": {"depth_mix": True}, "layer_routing": {"layer_routing": True},
    "experts": {"ffn": "moe"}, "adapters": {"adapters": 4}, "pooling_kinds": {"pooling_kinds": ["cls", "max"]},
    "entity": {"entity": True}, "attention_pooling": {"pooling": "attention"},
    "entropy_pooling": {"pooling": "entropy"},
}  # fmt: skip


def with_model(facts: RecipeFacts, **fields: Any) -> RecipeFacts:
    """Returns the facts with other fields of the model's spec."""
    return replace(facts, model={**facts.model, **fields})


def recipe_for(name: str) -> Recipe:
    learns = name == "sparse_semantic" or (name in TERM_FACTS and TERM_FACTS[name].learns_from)
    words = ["distill.teachers=[one]"] if learns else []
    return load_recipe(None, [*words, *(["sparse.kind=splade"] if PARTS[name].model_kind == "sparse" else [])])


def facts_for(name: str) -> RecipeFacts:
    if PARTS[name].model_kind == "sparse":
        return replace(BARE, trained_head=True)
    if name in ("cosent", "angle", "cosine", "contrastive"):
        return replace(BARE, rows="scored")
    return with_model(BARE, attention="spectral") if name == "gate_lr" else BARE


@pytest.mark.parametrize("name", PARTS)
def test_a_part_switched_twice_is_unchanged(name: str) -> None:
    recipe = recipe_for(name)
    once = variant_of(name, recipe, facts_for(name))
    changed = apply_variant(recipe, once)
    assert changed != recipe
    after = with_model(facts_for(name), **GAINED.get(name, {}))
    back = variant_of(name, changed, after)
    assert back.adds is not once.adds and back.part == once.part == name
    assert once.name == f"{'with' if once.adds else 'without'}-{name}"
    again = apply_variant(changed, back)
    assert variant_of(name, again, facts_for(name)).adds is once.adds, "switched back, it can be switched again"


def test_every_switch_of_the_recipe_is_in_the_catalogue() -> None:
    keys = set()
    for name in PARTS:
        for recipe in (recipe_for(name), with_values(recipe_for(name), {"model.spectral": True})):
            keys |= set(variant_of(name, recipe, facts_for(name)).values)
    switches = [name for name, field in ModelSection.model_fields.items() if "bool" in str(field.annotation)]
    assert {f"model.{name}" for name in switches} <= keys
    heads = [name for name, facts in TERM_FACTS.items() if not facts.train_encoder and name != "anomaly"]
    assert {f"loss.terms.{name}.train_encoder" for name in heads} <= keys
    off = [name for name, facts in TERM_FACTS.items() if facts.weight == 0]
    assert {f"loss.terms.{name}.weight" for name in off} <= keys


@pytest.mark.parametrize(
    ("name", "words", "has", "said"),
    [
        ("ranking", [], {"rows": "pairs"}, "columns anchor, positive, negative"),
        ("ranking-joined", [], {"rows": "pairs"}, "columns anchor, positive, negative"),
        ("triplet", [], {"rows": "pairs"}, "columns anchor, positive, negative"),
        ("anchor", [], {"rows": "scored"}, "Give pairs"),
        ("both_directions", [], {"rows": "scored"}, "Give pairs"),
        ("entity_term", [], {"rows": "scored"}, "Give pairs"),
        ("angle", [], {}, "sentence1, sentence2, score"),
        ("spectral", [], {"saved": True}, "saved model"),
        ("entity", [], {"saved": True}, "saved model"),
        ("matryoshka", [], {"model": {**BARE.model, "semantic_dims": [48]}}, "semantic_dims"),
        ("matryoshka_angular", ["model.matryoshka=false"], {}, "model.matryoshka=true"),
        ("anchor", ["loss.terms.anchor.weight=0"], {}, "loss.terms.anchor.weight=1"),
        ("anchor-joined", ["model.anchor=false"], {}, "model.anchor=true"),
        ("entity_term", ["model.entity=false"], {}, "model.entity=null"),
        ("gate_lr", [], {}, "model.spectral=true"),
        ("distill_similarity", [], {}, "distill.teachers=[MODEL]"),
        ("margin_mse", ["distill.teachers=[one]"], {"rows": "pairs"}, "columns anchor, positive, negative"),
        ("query_flops", [], {}, "trains a dense model. Set sparse.kind=splade"),
        ("depth_mix", ["sparse.kind=splade"], {}, "trains a sparse model. Set sparse=null"),
        ("sparse_semantic", ["sparse.kind=splade"], {}, "no other term of the recipe ranks. Set distill.teachers"),
        ("calibrate", ["sparse.kind=splade"], {}, "a head in closed form needs it"),
        ("closed_form_head", ["sparse.kind=splade"], {}, "Start from a masked LM"),
        ("query_active", ["sparse.kind=splade", "loss.terms.query_flops.weight=0"], {}, "query_flops.weight=1"),
        ("spektral", [], {}, "Did you mean 'spectral'"),
    ],
)
def test_a_senseless_part_is_refused_with_the_remedy(
    name: str, words: list[str], has: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as error:
        variant_of(name, load_recipe(None, words), replace(BARE, **has))
    assert name in str(error.value) and said in str(error.value)


def test_a_head_is_detached_until_it_is_joined() -> None:
    joined = with_values(Recipe(), {"loss.terms.bridge.train_encoder": True})
    assert variant_of("anchor", Recipe(), BARE).detached
    assert variant_of("bridge", joined, BARE).detached  # `fast` still holds the logits
    both = with_values(joined, {"loss.terms.fast.train_encoder": True})
    assert not variant_of("bridge", both, BARE).detached
    assert variant_of("entity_term", Recipe(), BARE).detached
    assert not variant_of("entity_term", Recipe(), with_model(BARE, entity=True)).detached
    assert not variant_of("anchor-joined", Recipe(), BARE).detached


def test_every_switch_of_a_sparse_recipe_is_in_the_catalogue() -> None:
    names = [name for name, part in PARTS.items() if part.model_kind == "sparse"]
    keys = {key for name in names for key in variant_of(name, recipe_for(name), facts_for(name)).values}
    scales = {"scale", "teacher_scale", "static_lr"}
    assert {key for key in keys if key.startswith("sparse.")} == {
        f"sparse.{name}" for name in set(SparseSection.model_fields) - scales
    }
    terms = [name for name, facts in TERM_FACTS.items() if facts.model_kind == "sparse"]
    assert {f"loss.terms.{name}.weight" for name in terms} <= keys


def test_a_sparse_term_is_switched_off_while_another_ranks() -> None:
    taught = load_recipe(None, ["sparse.kind=splade", "distill.teachers=[one]"])
    off = apply_variant(taught, variant_of("sparse_kl", taught, BARE))
    assert off.loss.terms["sparse_kl"].weight == 0
    with pytest.raises(UsageError, match="no other term"):
        variant_of("sparse_semantic", off, BARE)


def test_conv_and_spectral_replace_each_other() -> None:
    recipe = Recipe()
    assert variant_of("conv", recipe, with_model(BARE, attention="spectral")).values == {
        "model.spectral": True,
        "model.mixer": "conv",
    }
    assert variant_of("spectral", recipe, with_model(BARE, attention="spectral")).values == {"model.spectral": False}
    assert (
        variant_of("spectral", recipe, with_model(BARE, attention="spectral", mixer="conv")).values["model.mixer"]
        == "spectral"
    )


def test_a_custom_part() -> None:
    one = custom_variant("hot:loss.temperature=0.1,model.semantic_dims=[32, 16],train.lr=1e-3")
    assert one.values == {"loss.temperature": 0.1, "model.semantic_dims": [32, 16], "train.lr": 1e-3}
    assert one.name == "with-hot" and apply_variant(Recipe(), one).train.lr == 1e-3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hot", "NAME:key=value"),
        ("a/b:train.lr=1", "NAME:key=value"),
        ("anchor:train.lr=1", "catalogue"),
        ("x:train.seed=4", "train.seed has to be the same"),
        ("x:backup.to=there", "backup.to has to be the same"),
        ("x:train.l=4", "part x.*Did you mean 'train.lr'"),
        ("x:train.lr=1e-4", "the recipe has train.lr=1e-4 already"),
    ],
)
def test_bad_custom_parts(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        apply_variant(Recipe(), custom_variant(text))
