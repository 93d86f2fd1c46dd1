"""What a recipe asks for around a run, checked before any work is done."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.terms import (
    MARGIN_SCORES,
    ROW_KINDS,
    TERM_FACTS,
    distillation_inputs,
    live_terms,
    row_kind,
)
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.training.data.rows import TrainingData


def check_recipe(recipe: Recipe) -> None:
    """That a recipe is one to train by.

    Raises:
        UsageError: it is one for pretraining, or asks for a term that has nothing to learn from, or to go back to a
            start that it has not.
        SpectraError: what it reports to is not installed.
    """
    if recipe.pretrain is not None:
        raise UsageError("the recipe has a section pretrain: it is one for spectra pretrain. Leave the section out.")
    if recipe.model.words is not None and recipe.model.start is not None:
        raise UsageError("model.words is for a model from scratch; model.start has learnt words. Leave one out.")
    if recipe.model.words is not None and recipe.model.pooling is not None:
        check_pooling(recipe.model.pooling, projected=True)
    if recipe.train.interpolate < 1 and recipe.model.start is None:
        raise UsageError(
            "train.interpolate draws back to model.start, and there is none: leave it out, or name a start."
        )
    check_reporters(recipe)
    check_terms(recipe)


def check_pooling(name: str, *, projected: bool) -> None:
    """That a model of this pooling can begin with words.

    Raises:
        UsageError: it takes no mean over tokens, or half of what it takes is none and no projection leaves that out.
    """
    if name in ("cls", "max") or (name == "mean_max" and not projected):
        raise UsageError(f"model.words: pooling {name} takes no mean over tokens. Set model.pooling=mean.")


def check_verb(resume: str | Path, verb: str) -> None:
    """That the run to go on with is one of `verb`, "train" or "pretrain".

    Raises:
        UsageError: it is one of the other.
        SpectraError: there is no such run.
    """
    from spectra_nsa.training.runs.checkpoints import run_of

    own = "train" if load_recipe(run_of(resume) / "recipe.yaml").pretrain is None else "pretrain"
    if own != verb:
        raise UsageError(f"{resume} is a run of spectra {own}: go on with it by spectra {own} --resume {resume}.")


def check_reporters(recipe: Recipe) -> None:
    """That what `train.report_to` names is installed.

    Raises:
        SpectraError: it is not.
    """
    for name in recipe.train.report_to:
        if importlib.util.find_spec(name) is None:
            raise SpectraError(
                f"train.report_to names {name}, which is not installed. Install it (pip install {name}), or leave it "
                "out: metrics.jsonl, report.html and spectra monitor need nothing more."
            )


def check_names(recipe: Recipe) -> None:
    """That the sources and models which a recipe names are there, so far as this can be told without opening them.

    It takes no time, so that a misspelt name does not wait for libraries to load.

    Raises:
        UsageError: no source is given.
        SpectraError: one is not there.
    """
    from spectra_nsa.models.checks import named_folder, named_tokenizer
    from spectra_nsa.text.sources import check_source

    data = recipe.data
    also = recipe.pretrain.also if recipe.pretrain is not None else []
    for source in (data.source, *also, *([data.dev] if data.dev is not None and data.dev_rows else [])):
        check_source(source)
    for name in (recipe.model.start, *recipe.distill.teachers):
        if name is not None:
            named_folder(name)
    if recipe.model.words is not None:
        named_folder(recipe.model.words, "model.words")
    if recipe.model.tokenizer is not None:
        named_tokenizer(recipe.model.tokenizer, "model.tokenizer")


def check_terms(recipe: Recipe) -> None:
    """Checks that each term that a recipe turns on has its distillation inputs, and that scores have a term.

    Raises:
        UsageError: such as `margin_mse` without scores, or scores without `margin_mse`.
    """
    provided = distillation_inputs(recipe)
    weighted = [facts for name, facts in TERM_FACTS.items() if recipe.loss.terms[name].weight > 0]
    for facts in weighted:
        turned_on = facts.learns_from and facts.weight == 0
        if turned_on and not any(name in provided for name in facts.learns_from):
            raise UsageError(f"loss.terms.{facts.name} has nothing to learn from: {facts.remedy}.")
    learners = [facts.name for facts in TERM_FACTS.values() if MARGIN_SCORES in facts.learns_from]
    if recipe.distill.scores and not any(facts.name in learners for facts in weighted):
        raise UsageError(
            f"distill.scores is set, but the term that learns from it is off: set loss.terms.{learners[0]}.weight=1."
        )


def check_data(recipe: Recipe, data: TrainingData) -> None:
    """Checks that what a recipe asks for can be done with the rows.

    Raises:
        UsageError: a term that is off by default was turned on and does not apply to such rows, no term applies, or
            `train.patience` waits for a dev metric that does not exist.
        SpectraError: `distill.scores` cannot be used.
    """
    from spectra_nsa.training.teacher.lookup import check_scores

    live = live_terms(recipe, data.train.column_names)
    rows = ROW_KINDS[row_kind(len(data.columns), data.scored)]
    for name, facts in TERM_FACTS.items():
        turned_on = recipe.loss.terms[name].weight > 0 and facts.weight == 0
        if turned_on and name not in live:
            raise UsageError(f"loss.terms.{name} has nothing to learn from {rows}: it needs {facts.needed_rows}.")
    if not live:
        raise UsageError(f"no term of the loss applies to {rows}: give a weight to one that does.")
    if data.scores is not None:
        check_scores(data.scores, data.columns, recipe.distill.scores or [])
    if recipe.train.patience is not None and data.dev is None:
        raise UsageError(
            "train.patience waits for a better dev metric, and there is none: set data.dev_rows or data.dev."
        )
