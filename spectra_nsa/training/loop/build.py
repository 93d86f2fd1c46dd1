"""The trainer that a recipe describes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.terms import active_terms, live_terms
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.data.token_cache import token_rows
from spectra_nsa.training.loop.callbacks import BackUp, Deadline, FiniteGradients, Restore, StackClock, TrimMemory
from spectra_nsa.training.loop.trainer import SpectraTrainer
from spectra_nsa.training.monitor.attach import add_watchers
from spectra_nsa.training.monitor.dev_metric import DevEvaluator
from spectra_nsa.training.runs.backup import Backup
from spectra_nsa.training.runs.resume import facts_of
from spectra_nsa.training.teacher.lookup import TaughtCollator, open_teaching

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData


def build_trainer(
    recipe: Recipe,
    folder: Path,
    model: SpectraSentenceTransformer,
    data: TrainingData,
    deadline: float | None = None,
    backup: Backup | None = None,
) -> SpectraTrainer:
    """Everything that `trainer.train()` needs; nothing has run yet.

    Args:
        recipe: the run.
        folder: `runs/NAME`.
        model: what to train, changed in place.
        data: what it learns from.
        deadline: see `train`.
        backup: what copies checkpoints; ``None`` for no copies.
    """
    precision = resolve_precision(recipe.train.precision)
    evaluator = DevEvaluator(data.dev, data.dev_kind, precision) if data.dev is not None and data.dev_kind else None
    loss = _loss(recipe, model)
    trainer = SpectraTrainer(
        model=model,
        args=training_arguments(recipe, folder, len(data.train), precision, evaluator.metric if evaluator else None),
        train_dataset=data.train,
        loss=loss,
        evaluator=evaluator,
        callbacks=[StackClock(loss), *([BackUp(backup)] if backup is not None else [])],
    )
    trainer.groups, trainer.gate_lr, trainer.facts = data.groups, recipe.train.gate_lr, facts_of(recipe, data)
    if backup is not None:
        trainer.held = backup.held
    _set_batches(trainer, recipe, model, data, whole=deadline is None)
    trainer.add_callback(Restore(trainer.restore))
    trainer.add_callback(FiniteGradients(trainer.skip, trainer.step_passed))
    terms = live_terms(recipe, data.train.column_names)
    add_watchers(trainer, model, loss, recipe=recipe, folder=folder, data=data, terms=terms, deadline=deadline)
    for unwanted in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(unwanted)
    if not torch.cuda.is_available():
        trainer.add_callback(TrimMemory())
    if deadline is not None:
        trainer.deadline = deadline
        trainer.add_callback(Deadline(deadline))
    return trainer


def _loss(recipe: Recipe, model: SpectraSentenceTransformer) -> LossStack:
    dims = model.spectra.config.semantic_dims or [model.spectra.config.projection_dim]
    return LossStack(
        model,
        recipe.loss,
        active=active_terms(recipe),
        sizes=dims if recipe.model.matryoshka else dims[:1],
        groups=recipe.train.length_groups,
        cached=recipe.train.cached_batch,
        together=shares_out(recipe),
        distill_temperature=recipe.distill.temperature,
    )


def _set_batches(
    trainer: SpectraTrainer, recipe: Recipe, model: SpectraSentenceTransformer, data: TrainingData, *, whole: bool
) -> None:
    """What makes batches of the rows; tokenised beforehand where a run without a time limit sees all of them."""
    trainer.data_collator.max_length = recipe.train.max_length
    trainer.data_collator.prompts = column_prompts(model.prompts, data.columns)
    teaching = open_teaching(recipe, data, model)
    if teaching is not None:
        collator: Any = TaughtCollator(trainer.data_collator, teaching, data.columns)
        trainer.data_collator = collator
    elif whole and sees_all(recipe, len(data.train)):
        trainer.take_tokens(token_rows(data, model, trainer.data_collator))


def shares_out(recipe: Recipe) -> bool:
    """Whether the processes of this run share the encoder out among them.

    Raises:
        UsageError: in fp16.
    """
    if not recipe.train.shard or processes.count() == 1:
        return False
    if resolve_precision(recipe.train.precision) == "fp16":
        raise UsageError("train.shard: fp16 does not work with it. Set train.precision=bf16 or fp32.")
    return True


def column_prompts(prompts: Mapping[str, str | None], columns: Sequence[str]) -> dict[str, str]:
    """The prompt of each training column: the model's query prompt for anchors, its document prompt for their matches.

    Scored pairs have none, as neither side is a query.

    A model that is used with prompts must be trained with them.
    """
    matches = [name for name in columns if not name.startswith("sentence")]
    by_column = {name: prompts.get("query" if name == "anchor" else "document") for name in matches}
    return {name: prompt for name, prompt in by_column.items() if prompt}


def steps_of(recipe: Recipe, rows: int) -> int:
    """How many optimiser steps a recipe takes on so many rows: of an epoch's last batches is one, however few."""
    section = recipe.train
    batches = max(1, rows // section.batch)
    return section.max_steps or math.ceil(math.ceil(batches / section.accumulation) * section.epochs)


def sees_all(recipe: Recipe, rows: int) -> bool:
    """Whether a run sees every row at least once: only then it pays to tokenise them beforehand."""
    section = recipe.train
    return steps_of(recipe, rows) * section.accumulation >= rows // section.batch


def shared_batch(wanted: int, rows: int, sharers: int) -> int:
    """How many rows a batch has, all processes together: a recipe trains alike on one process and on several.

    Args:
        wanted: the recipe's.
        rows: of the training data.
        sharers: processes.

    Raises:
        UsageError: it cannot be divided evenly.
        SpectraError: there are fewer rows than processes.
    """
    if wanted % sharers:
        raise UsageError(
            f"train.batch: {sharers} processes cannot share {wanted} pairs evenly. Make it a multiple of {sharers}."
        )
    if rows < sharers:
        raise SpectraError(f"{rows} training rows are too few for {sharers} processes. Start fewer of them.")
    return min(wanted, rows // sharers * sharers)


def training_arguments(
    recipe: Recipe, folder: Path, rows: int, precision: str, metric: str | None
) -> SentenceTransformerTrainingArguments:
    """transformers' training arguments for a recipe."""
    section = recipe.train
    checkpointing: dict[str, Any] = {}
    if section.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        run_name=folder.name,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        per_device_train_batch_size=shared_batch(section.batch, rows, processes.count()),
        accelerator_config={"split_batches": True},  # of that batch each process gets its part
        gradient_accumulation_steps=section.accumulation,
        learning_rate=section.lr,
        lr_scheduler_type=section.schedule,
        warmup_steps=section.warmup,
        weight_decay=section.weight_decay,
        max_grad_norm=section.clip,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        dataloader_drop_last=rows >= section.batch or processes.count() > 1,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=section.seed,
        data_seed=section.seed,
        logging_steps=section.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=section.checkpoint_every,
        save_total_limit=section.keep_checkpoints,
        eval_strategy="steps" if metric else "no",
        eval_steps=section.evaluate_every,
        load_best_model_at_end=metric is not None,
        metric_for_best_model=f"eval_{metric}" if metric else None,
        greater_is_better=True if metric else None,
        report_to=list(section.report_to) or "none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **checkpointing,
    )
