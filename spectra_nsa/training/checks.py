"""What a run refuses before it trains: most of it before anything loads."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import (
    MARGIN_SCORES,
    ROW_KINDS,
    SIDES,
    TERM_FACTS,
    distillation_inputs,
    live_terms,
    model_kind,
    row_kind,
)
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError, errors_begin

if TYPE_CHECKING:
    from spectra_nsa.encoder.experts.spec import ExpertSpec
    from spectra_nsa.training.data.rows import TrainingData


def check_recipe(recipe: Recipe) -> None:
    """Checks that `spectra train` can run a recipe.

    Raises:
        UsageError: it is for pretraining, needs a start that it does not name, or has a term without anything to learn
            from.
        SpectraError: a tracker that it reports to is not installed.
    """
    if recipe.pretrain is not None:
        raise UsageError("the recipe has a section pretrain, so it is for spectra pretrain. Leave the section out.")
    if recipe.model.token_vectors is not None and recipe.model.start is not None:
        raise UsageError(
            "model.token_vectors is for a model from scratch; model.start has learned words. Leave one out."
        )
    if recipe.model.token_vectors is not None and recipe.model.pooling is not None:
        check_pooling(recipe.model.pooling, projected=True)
    if recipe.train.interpolate < 1 and recipe.model.start is None:
        raise UsageError(
            "train.interpolate interpolates with model.start, and there is none: leave it out, or name a start."
        )
    check_reporters(recipe)
    check_terms(recipe)


def check_pooling(name: str, *, projected: bool) -> None:
    """Checks that a model of this pooling can start from word vectors.

    Args:
        name: the pooling.
        projected: whether a projection follows it, which can drop the part that is not a mean.

    Raises:
        UsageError: it takes no mean over tokens, or a part of it is no mean and there is no projection.
    """
    if name in ("cls", "max") or (name == "mean_max" and not projected):
        raise UsageError(f"model.token_vectors: pooling {name} takes no mean over tokens. Set model.pooling=mean.")


def check_reporters(recipe: Recipe) -> None:
    """Checks that the trackers that `train.report_to` names are installed.

    Raises:
        SpectraError: one is not.
    """
    for name in recipe.train.report_to:
        if importlib.util.find_spec(name) is None:
            raise SpectraError(
                f"train.report_to names {name}, which is not installed. Install it (pip install {name}), or leave it "
                "out: metrics.jsonl, report.html and spectra monitor need nothing more."
            )


def check_names(recipe: Recipe) -> None:
    """Checks that the sources and models that a recipe names exist, as far as this shows without opening them.

    It loads no library, so a misspelled name is reported at once.

    Raises:
        UsageError: no source is named.
        SpectraError: one does not exist.
    """
    from spectra_nsa.models.checks import check_tokenizer_name, local_folder
    from spectra_nsa.models.sparse.names import SHORT_NAMES
    from spectra_nsa.text.sources import check_source

    data = recipe.data
    for key, section in data.sources.items():
        with contextlib.nullcontext() if key == "data" else errors_begin(key):
            check_source(section.source)
    also = recipe.pretrain.extra_sources if recipe.pretrain is not None else []
    for source in (*also, *([data.dev] if data.dev is not None and data.dev_rows else [])):
        check_source(source)
    short = SHORT_NAMES if recipe.sparse is not None else ()
    for name in (recipe.model.start, *recipe.distill.teachers):
        if name is not None and name not in short:
            local_folder(name)
    if recipe.model.token_vectors is not None:
        local_folder(recipe.model.token_vectors, "model.token_vectors")
    if recipe.model.tokenizer is not None:
        check_tokenizer_name(recipe.model.tokenizer, "model.tokenizer")


def check_terms(recipe: Recipe) -> None:
    """Checks that each term that a recipe turns on has its distillation inputs, and that scores have a term.

    Raises:
        UsageError: such as `margin_mse` without scores, or scores without `margin_mse`.
    """
    _check_kinds(recipe)
    provided = distillation_inputs(recipe)
    weighted = [facts for name, facts in TERM_FACTS.items() if recipe.loss.terms[name].weight > 0]
    for facts in weighted:
        turned_on = facts.learns_from and facts.weight == 0
        if turned_on and not any(name in provided for name in facts.learns_from):
            raise UsageError(f"loss.terms.{facts.name} has nothing to learn from: {facts.remedy}.")
    kind = model_kind(recipe)
    learners = [
        facts.name for facts in TERM_FACTS.values() if MARGIN_SCORES in facts.learns_from and facts.model_kind == kind
    ]
    if recipe.distill.scores and not any(facts.name in learners for facts in weighted):
        raise UsageError(
            f"distill.scores is set, but the term that learns from it is off: set loss.terms.{learners[0]}.weight=1."
        )


def live_terms_by_set(recipe: Recipe, data: TrainingData, experts: bool | None = None) -> dict[str, list[str]]:
    """Returns the loss terms that take part in training by dataset; a single dataset has the name ``""``.

    Args:
        recipe: the run.
        data: its rows.
        experts: see `active_terms`.
    """
    live: dict[str, list[str]] = {}
    for name, part in data.parts.items():
        inputs = distillation_inputs(recipe)
        if part.scores is None and name:
            inputs = [given for given in inputs if given != MARGIN_SCORES]
        own = (recipe.data.sets or {})[name].terms if name else None
        names = live_terms(recipe, part.train.column_names, inputs, experts=experts)
        live[name] = [term for term in names if own is None or term in own]
    return live


def live_terms_of(recipe: Recipe, data: TrainingData, experts: bool | None = None) -> list[str]:
    """Returns the loss terms that take part in training, on whichever dataset; see `live_terms_by_set`."""
    live = live_terms_by_set(recipe, data, experts).values()
    return [name for name in TERM_FACTS if any(name in names for names in live)]


def row_counts(data: TrainingData) -> str:
    """Returns the number of training rows in words; of several datasets also that of each."""
    sets = ", ".join(f"{name} {len(part.train):,}" for name, part in data.sets.items())
    return counted(len(data.train), "row") + (f" ({sets})" if sets else "")


def plan_sets(recipe: Recipe, data: TrainingData, experts: bool | None = None) -> dict[str, dict[str, Any]]:
    """Returns rows, batches of an epoch and loss terms of each of several datasets; empty if there is only one.

    The arguments are those of `live_terms_by_set`.
    """
    from spectra_nsa.training.data.mixing import set_batches

    if not data.sets:
        return {}
    live, counts = live_terms_by_set(recipe, data, experts), set_batches(recipe, data)
    return {
        name: {"rows": len(part.train), "batches": count, "terms": live[name]}
        for (name, part), count in zip(data.sets.items(), counts, strict=True)
    }


def _check_kinds(recipe: Recipe) -> None:
    """Raises `UsageError` if the recipe sets a term of dense models for a sparse one, or the other way around."""
    kind, terms = model_kind(recipe), recipe.loss.terms
    defaults = {name: field.default for name, field in type(terms).model_fields.items()}
    on = [name for name in TERM_FACTS if terms[name].weight > 0]  # a term that is turned off is off in any model
    changed = {name: f"loss.terms.{name}" for name in on if terms[name] != defaults[name]}
    for name, part in (recipe.data.sets or {}).items():
        changed |= {term: f"data.sets.{name}.terms: {term}" for term in part.terms or []}
    for name, key in changed.items():
        other = TERM_FACTS[name].model_kind
        if other != kind:
            remedy = "leave it out" if kind == "sparse" else "leave it out, or set sparse.kind=splade"
            raise UsageError(f"{key} is a term of {other} models, and the recipe trains a {kind} one: {remedy}.")


def sparse_notes(recipe: Recipe) -> list[str]:
    """Returns remarks on the sides of a sparse encoder that no regularizer limits."""
    if recipe.sparse is None:
        return []
    free = []
    for side in SIDES:
        names = [name for name, facts in TERM_FACTS.items() if facts.side == side]
        static = side == "query" and recipe.sparse.kind == "inference_free"  # no more terms than tokens
        if not static and all(recipe.loss.terms[name].weight == 0 for name in names):
            free.append(f"loss.terms.{side}_flops.weight is 0: nothing limits the active dimensions of the {side} side")
    return free


def data_notes(recipe: Recipe, data: TrainingData) -> list[str]:
    """Returns remarks on the rows for the reader, such as that they are fewer than a batch."""
    rows, batch = len(data.train), recipe.train.batch
    parts = recipe.train.parts is not None and recipe.model.start is None
    frozen = "train.parts without model.start: the other parts keep their random weights"
    few = f"train.batch is {batch:,}, but there are only {counted(rows, 'row')}: each step takes all of them"
    return [*data.notes, *sparse_notes(recipe), *([few] if rows < batch else []), *([frozen] if parts else [])]


def check_data(recipe: Recipe, data: TrainingData) -> None:
    """Checks that what a recipe asks for can be done with the rows.

    Raises:
        UsageError: a term that is off by default was turned on and does not apply to such rows, no term applies, one
            of several datasets has no whole batch, or `train.patience` waits for a dev metric that does not exist.
        SpectraError: `distill.scores` cannot be used.
    """
    from spectra_nsa.training.teacher.lookup import check_scores

    live = live_terms_by_set(recipe, data)
    anywhere = live_terms_of(recipe, data)
    kinds = {name: ROW_KINDS[row_kind(len(part.columns), part.scored)] for name, part in data.parts.items()}
    rows = " and ".join(dict.fromkeys(kinds.values()))
    for name, facts in TERM_FACTS.items():
        turned_on = recipe.loss.terms[name].weight > 0 and facts.weight == 0
        if turned_on and name not in anywhere:
            raise UsageError(f"loss.terms.{name} has nothing to learn from {rows}: it needs {facts.needed_rows}.")
    for name, part in data.parts.items():
        key = f"data.sets.{name}: " if name else ""
        if not live[name]:
            raise UsageError(f"{key}no term of the loss applies to {kinds[name]}: give a weight to one that does.")
        if part.scores is not None:
            check_scores(part.scores, part.columns, recipe.distill.scores or [], cosines=recipe.sparse is None)
    for name, part in data.sets.items():
        _check_set(recipe, name, len(part.train), live[name], kinds[name])
    if recipe.train.patience is not None and data.dev is None:
        raise UsageError(
            "train.patience waits for a better dev metric, and there is none: set data.dev_rows or data.dev."
        )


def _check_set(recipe: Recipe, name: str, rows: int, live: Sequence[str], kind: str) -> None:
    """Checks that one of several datasets fills a batch, and that each term named for it takes part."""
    batch = recipe.train.batch
    if rows < batch:
        raise UsageError(
            f"data.sets.{name} has {counted(rows, 'training row')}, which fill no batch of {batch:,} of its own. Add "
            "rows, lower train.batch, or leave the dataset out."
        )
    for term in (recipe.data.sets or {})[name].terms or []:
        if recipe.loss.terms[term].weight == 0:
            raise UsageError(f"data.sets.{name}.terms: {term} is off. Set loss.terms.{term}.weight=1.")
        if term not in live:
            facts = TERM_FACTS[term]
            needs = facts.remedy if kind == ROW_KINDS["triplets"] and facts.learns_from else None
            raise UsageError(
                f"data.sets.{name}.terms: {term} has nothing to learn from {kind}: "
                f"{needs or f'it needs {facts.needed_rows}'}."
            )


def expert_notes(recipe: Recipe, experts: ExpertSpec | None) -> list[str]:
    """Returns remarks on experts and the run's batches.

    Args:
        recipe: the run.
        experts: of the model; ``None`` for none.
    """
    if experts is None or not experts.balanced:
        return []
    notes = []
    if experts.by_text and (recipe.data.group or recipe.data.sets):
        what = "data.group" if recipe.data.group else "data.sets"
        notes.append(
            f"each batch is of one group ({what}), but the router chooses by text: the balance compares the last "
            "batches with each other, and a domain may be spread over experts or kept from one. Batches of mixed texts "
            "are safer."
        )
    if recipe.sparse is not None:
        notes.append("the terms router_balance and router_z do not apply to sparse encoders: watch the experts' load.")
    return notes
