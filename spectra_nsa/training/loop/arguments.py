"""transformers' training arguments for a recipe, and the numbers of steps and rows that follow from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import BatchSamplers

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.training.loop.plan import DevMetric


def steps_of(recipe: Recipe, rows: int) -> int:
    """Returns how many optimizer steps a recipe takes on `rows` rows.

    The last batches of an epoch make one step even if they are fewer than `train.accumulation`.
    """
    section = recipe.train
    batches = max(1, rows // section.batch)
    return section.max_steps or math.ceil(math.ceil(batches / section.accumulation) * section.epochs)


def sees_every_row(recipe: Recipe, rows: int) -> bool:
    """Returns whether a run reads every row at least once: only then it pays to tokenize them beforehand."""
    section = recipe.train
    return steps_of(recipe, rows) * section.accumulation >= rows // section.batch


def shared_batch(wanted: int, rows: int, count: int) -> int:
    """Returns the rows of a batch over all processes together, so that their number does not change the training.

    Args:
        wanted: the recipe's `train.batch`.
        rows: the number of training rows.
        count: the number of processes.

    Raises:
        UsageError: the batch cannot be divided evenly.
        SpectraError: there are fewer rows than processes.
    """
    if wanted % count:
        raise UsageError(
            f"train.batch: {count} processes cannot share {wanted} pairs evenly. Make it a multiple of {count}."
        )
    if rows < count:
        raise SpectraError(f"{rows} training rows are too few for {count} processes. Start fewer of them.")
    return min(wanted, rows // count * count)


def training_arguments(
    recipe: Recipe, folder: Path, rows: int, precision: str, evaluator: DevMetric | None
) -> SentenceTransformerTrainingArguments:
    """Returns transformers' training arguments for a recipe.

    Args:
        recipe: the run.
        folder: `runs/NAME`.
        rows: the number of training rows.
        precision: see `resolve_precision`.
        evaluator: the dev metric that decides which checkpoint is best; ``None`` for no dev set.
    """
    section = recipe.train
    metric = evaluator.metric if evaluator is not None else None
    checkpointing: dict[str, Any] = {}
    if section.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder / "checkpoints"),
        run_name=folder.name,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        per_device_train_batch_size=shared_batch(section.batch, rows, processes.count()),
        accelerator_config={"split_batches": True},  # each process gets its part of that batch
        gradient_accumulation_steps=section.accumulation,
        learning_rate=section.lr,
        lr_scheduler_type=section.schedule,
        warmup_steps=section.warmup,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
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
        greater_is_better=evaluator.greater_is_better if evaluator is not None else None,
        report_to=list(section.report_to) or "none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **checkpointing,
    )
