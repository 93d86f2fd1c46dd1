"""The batches of a run: rows, the collator that makes batches of them, and the sampler of several datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers.base.data_collator import BaseDataCollator

    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
    from spectra_nsa.training.data.mixed_batches import MixedBatchSampler, SetRows
    from spectra_nsa.training.data.training_data import TrainingData
    from spectra_nsa.training.teacher.lookup import DistillationSource

    Encoder = SpectraSentenceTransformer | SpectraSparseEncoder


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What a trainer makes its batches of.

    Attributes:
        rows: the training rows, as texts or as token ids.
        collator: makes a batch of some of them.
        texts: the rows as texts if `rows` holds ids; else ``None``.
        sampler: returns the batch sampler of several datasets, given the rows of a batch; ``None`` for one dataset.
        teachers: the width and the weight of each teacher whose vectors stand side by side in a batch.
    """

    rows: Dataset | SetRows
    collator: Any
    texts: Dataset | None = None
    sampler: Callable[[int], MixedBatchSampler] | None = field(default=None)
    teachers: tuple[tuple[int, float], ...] = ()


def training_batches(
    recipe: Recipe,
    model: Encoder,
    data: TrainingData,
    *,
    tokenize: bool,
    routed: bool = False,
) -> Batches:
    """Returns what the batches of a run are made of.

    Args:
        recipe: the run.
        model: its tokenizer and prompts.
        data: the rows.
        tokenize: whether to tokenize the rows beforehand if the run reads all of them.
        routed: whether the model sends queries and documents different ways.

    Raises:
        SpectraError: a teacher cannot be opened, or a score is outside −1 to 1.
    """
    from spectra_nsa.training.data.mixing import epoch_rows
    from spectra_nsa.training.loop.arguments import sees_every_row
    from spectra_nsa.training.teacher.lookup import open_distillation

    tokenize = tokenize and sees_every_row(recipe, epoch_rows(recipe, data))
    if data.sets:
        return _mixed(recipe, model, data, tokenize=tokenize, routed=routed)
    collator = _stock(recipe, model, data, "", routed=routed)
    distillation = open_distillation(recipe, data, model)
    rows, made = _one_set(model, data, distillation, collator, tokenize=tokenize)
    return Batches(
        rows=rows,
        collator=made,
        texts=data.train if rows is not data.train else None,
        teachers=() if distillation is None else distillation.parts,
    )


def _stock(recipe: Recipe, model: Encoder, data: TrainingData, name: str, *, routed: bool) -> BaseDataCollator:
    """Returns the library's collator for a dataset, with its own prompts or otherwise those of the model."""
    from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

    from spectra_nsa.models.prompts import column_prompts, column_role

    own: Mapping[Any, str] = (recipe.data.sets[name].prompts if name and recipe.data.sets else None) or {}
    return SentenceTransformerDataCollator(
        model.preprocess,
        prompts=column_prompts({**model.prompts, **own}, data.columns),
        max_length=recipe.train.max_length,
        router_mapping={column: column_role(column) for column in data.columns} if routed else {},
    )


def _one_set(
    model: Encoder,
    data: TrainingData,
    distillation: DistillationSource | None,
    stock: BaseDataCollator,
    *,
    tokenize: bool,
) -> tuple[Dataset, Any]:
    """Returns the rows of one dataset, and the collator that makes batches of them."""
    from spectra_nsa.training.data.token_cache import token_rows
    from spectra_nsa.training.teacher.lookup import DistillationCollator

    if distillation is not None:
        return data.train, DistillationCollator(stock, distillation, data.columns)
    return (token_rows(data, model, stock) if tokenize else None) or (data.train, stock)


def _mixed(recipe: Recipe, model: Encoder, data: TrainingData, *, tokenize: bool, routed: bool) -> Batches:
    from spectra_nsa.training.data.mixed_batches import SetCollator, SetRows, mixed_sampler
    from spectra_nsa.training.data.mixing import set_batches
    from spectra_nsa.training.teacher.lookup import open_distillation

    rows, collators, first = {}, {}, None
    counts = set_batches(recipe, data)
    for (name, part), count in zip(data.sets.items(), counts, strict=True):
        distillation = open_distillation(recipe, part, model, like=first)
        first = first or distillation
        whole = tokenize and count >= len(part.train) // recipe.train.batch
        collator = _stock(recipe, model, part, name, routed=routed)
        rows[name], collators[name] = _one_set(model, part, distillation, collator, tokenize=whole)
    joined = SetRows(rows)
    return Batches(
        rows=joined,
        collator=SetCollator(collators),
        teachers=() if first is None else first.parts,
        sampler=lambda batch: mixed_sampler(
            data, joined, counts, batch=batch, mixing=recipe.data.mixing, seed=recipe.train.seed
        ),
    )
