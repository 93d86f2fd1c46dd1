"""The model that a recipe starts from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.sections import SHAPE_OPTIONS
from spectra_nsa.config.shape_options import shape_fields
from spectra_nsa.core import processes
from spectra_nsa.core.console import say_loading
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.encoder.experts.spec import check_asked

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.models.open import ModelFolder
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

_EXPERTS = ("ffn", "experts")  # are set after layers were dropped


def open_start(recipe: Recipe) -> SpectraSentenceTransformer:
    """Opens the model that a recipe starts from: a warm-started checkpoint, a saved model, or a fresh one of a size.

    If the recipe names a different tokenizer, a checkpoint or saved model gets that vocabulary (`models.vocabulary`),
    and a line on standard error says how many pieces keep a vector.

    Raises:
        UsageError: `model.keep_layers` without a start, or layers that the start does not have.
    """
    from spectra_nsa.models.experts.upcycle import set_experts
    from spectra_nsa.training.init.layers import keep_layers

    section = recipe.model
    if section.keep_layers is not None and section.start is None:
        raise UsageError("model.keep_layers names layers of model.start, which is not set: name a checkpoint.")
    model = _open(recipe)
    if section.keep_layers is not None:
        keep_layers(model, section.keep_layers)
    shape = _shape(recipe)
    check_asked(shape.get("ffn") or model.spec.ffn, shape.get("experts"))
    _check_adapter_size(recipe, model.spec.adapters)
    if section.start is not None and (shape.get("ffn") or shape.get("experts")):
        set_experts(model, shape.get("experts"))
    if section.start is None or section.tokenizer is None:
        return model
    from spectra_nsa.models.fresh import load_tokenizer
    from spectra_nsa.models.vocabulary import same_tokenizer, with_vocabulary

    tokenizer = load_tokenizer(section.tokenizer)
    if same_tokenizer(model.tokenizer, tokenizer):
        return model
    model, transfer = with_vocabulary(model, tokenizer)
    if processes.is_first():
        counts = transfer.summary
        print(
            f"new vocabulary: {counts['pieces']:,} pieces, {counts['taken']:,} with the vector of an old one, "
            f"{counts['averaged']:,} with the mean of several, {counts['without']:,} with the mean of all",
            file=sys.stderr,
            flush=True,
        )
    return model


def find_start(name: str) -> ModelFolder:
    """Returns the files of a model to start from: a Spectra model, a BERT or a BERT cross-encoder.

    Raises:
        SpectraError: it is another kind of model, or is not complete.
    """
    from spectra_nsa.models.checks import check_folder
    from spectra_nsa.models.open import SPECTRA, find_model

    files = find_model(name, accept=(*SPECTRA, "cross"))  # a cross-encoder has an encoder, too
    if files.kind == "cross":
        check_folder(files.folder)
    return files


def _open(recipe: Recipe) -> SpectraSentenceTransformer:
    from spectra_nsa.heads.spec import check_length
    from spectra_nsa.models.fresh import fresh_model
    from spectra_nsa.models.sentence import load
    from spectra_nsa.models.warm_start import warm_start

    section = recipe.model
    if section.start is None:
        return fresh_model(
            section.size or "M456",
            tokenizer=section.tokenizer,
            max_length=section.max_length,
            dropout=section.dropout,
            **_shape(recipe),
        )
    files = find_start(section.start)
    say_loading(files.name)
    if files.kind != "spectra":
        if section.position == "rope":
            raise SpectraError(
                f"model.position: {section.start} has learned positions, which its other weights depend on. Leave "
                "the key out, or train from scratch with model.size."
            )
        options = {name: getattr(section, name) for name, option in SHAPE_OPTIONS.items() if option.warm_start} | {
            "hidden_dropout_prob": section.dropout,
            "attention_probs_dropout_prob": section.dropout,
            "max_seq_length": section.max_length,
        }
        return warm_start(
            files.folder,
            **{name: value for name, value in options.items() if value is not None and name not in _EXPERTS},
        )
    model = load(files.folder)
    for name, value in _shape(recipe).items():
        if name not in _EXPERTS and getattr(model.spectra.config, name) != value:
            raise SpectraError(f"model.{name} is part of a saved model and cannot be changed to {value}.")
    if section.max_length is not None:
        check_length(section.max_length, model.spectra.config)
        model.max_seq_length = section.max_length
    if section.dropout is not None:
        model.spectra.set_dropout(section.dropout)
    return model


def _check_adapter_size(recipe: Recipe, adapters: int) -> None:
    """Checks that a width of adapters has adapters to apply to."""
    size = recipe.model.adapter_size
    if size is not None and not adapters:
        raise UsageError(f"model.adapter_size={size} without adapters does nothing: set model.adapters too.")


def _shape(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields of the model's spec that a recipe sets."""
    return shape_fields(SHAPE_OPTIONS, recipe.model.model_dump())


def planned_config(recipe: Recipe) -> tuple[SpectraConfig, int]:
    """Returns the config of the model that a recipe starts from, and its longest text in tokens.

    A warm start is opened, so that it refuses now what it would refuse later; a fresh model is not built.
    """
    from spectra_nsa.models.fresh import fresh_config

    section = recipe.model
    if section.start is not None:
        model = open_start(recipe)
        config = model.spectra.config
        return config, model.max_seq_length or config.max_position_embeddings
    config, _ = fresh_config(
        section.size or "M456",
        tokenizer=section.tokenizer,
        max_length=section.max_length,
        **_shape(recipe),
    )
    _check_adapter_size(recipe, config.adapters)
    return config, config.max_length or config.max_position_embeddings
