"""The job of `spectra train` with a section `sparse`: a learned sparse encoder, trained on pairs or triplets."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import UsageError
from spectra_nsa.models.prompts import column_role
from spectra_nsa.training.checks import check_recipe
from spectra_nsa.training.jobs.pairs import PairsJob, dev_evaluator, experts_of

if TYPE_CHECKING:
    from spectra_nsa.encoder.experts.spec import ExpertSpec
    from spectra_nsa.losses.stack import LossStack
    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
    from spectra_nsa.training.jobs.batches import Batches
    from spectra_nsa.training.loop.plan import RunSetup
    from spectra_nsa.training.loop.sparse_trainer import SparseTrainer
    from spectra_nsa.training.loop.trainer import RunTrainer

# Keys without a meaning here. A recipe that sets one would describe a different run.
UNUSED = (
    "train.parts",
    "train.shard", "train.fit_heads", "train.interpolate", "model.semantic_dims", "model.pooling", "model.matryoshka",
    "model.pooling_kinds", "model.adapters", "model.adapter_size",
    "model.anchor", "model.bridge", "model.ranking", "model.anomaly", "model.entity", "loss.temperature",
    "loss.temperature_start",
)  # fmt: skip


class SparseJob(PairsJob):
    """A run that trains a sparse encoder."""

    shards = False
    model: SpectraSparseEncoder  # type: ignore[assignment]
    _checkpoint: Path | None = None

    @staticmethod
    def applies_to(recipe: Recipe) -> bool:
        return recipe.sparse is not None

    @staticmethod
    def check_recipe(recipe: Recipe) -> None:
        changed = recipe.model_dump(exclude_defaults=True)
        for key in UNUSED:
            section, _, name = key.partition(".")
            if name in changed.get(section, {}):
                raise UsageError(f"{key} means nothing for a sparse encoder. Leave it out of the recipe.")
        check_recipe(recipe)

    def _experts(self) -> ExpertSpec | None:
        return experts_of(self.model.masked_lm().config)

    def open_model(self) -> None:
        from spectra_nsa.training.init.sparse_start import needs_closed_form, open_sparse_start

        self._closed_form = needs_closed_form(self.recipe)
        self.model = open_sparse_start(self.recipe)
        self.model._model_card_text = None  # a saved model's card describes its own training, not this one

    def check_checkpoint(self, checkpoint: Path) -> None:
        from spectra_nsa.training.init.sparse_start import config_of
        from spectra_nsa.training.runs.resume import check_resumable, row_facts

        facts = row_facts(self.recipe, self.data)
        config = self.model.masked_lm().config
        check_resumable(
            checkpoint, config, self.model.tokenizer, facts, self.command, config_file=config_of(checkpoint)
        )
        self._checkpoint = checkpoint

    def prepare(self, *, resumed: bool) -> None:
        from spectra_nsa.training.init.sparse_start import prepare_sparse_start, untie_as

        if resumed:
            assert self._checkpoint is not None
            untie_as(self.model, self._checkpoint)
            return
        rows = self.data.train.select_columns(self.data.columns)
        prepare_sparse_start(self.recipe, self.model, rows, closed_form=self._closed_form)

    def build_trainer(self, setup: RunSetup) -> SparseTrainer:
        from spectra_nsa.core.precision import resolve_precision
        from spectra_nsa.training.checks import live_terms_of
        from spectra_nsa.training.data.mixing import epoch_rows, texts_per_row
        from spectra_nsa.training.jobs.batches import training_batches
        from spectra_nsa.training.loop.arguments import training_arguments
        from spectra_nsa.training.loop.plan import plan_run
        from spectra_nsa.training.loop.sparse_trainer import SparseTrainer
        from spectra_nsa.training.loop.step_callbacks import LossClock
        from spectra_nsa.training.monitor.sparse_health import SparseHealth
        from spectra_nsa.training.monitor.throughput import Throughput
        from spectra_nsa.training.runs.resume import row_facts

        recipe, data, model = self.recipe, self.data, self.model
        assert recipe.sparse is not None
        precision = resolve_precision(recipe.train.precision)
        evaluator = dev_evaluator(recipe, data, precision)
        arguments = training_arguments(recipe, setup.folder, epoch_rows(recipe, data), precision, evaluator)
        arguments.router_mapping = {name: column_role(name) for name in data.columns} if model.routes else {}
        batches = training_batches(recipe, model, data, tokenize=setup.deadline is None, routed=model.routes)
        loss = _loss_stack(recipe, model, batches)
        health = SparseHealth(data.first, recipe.monitor.rows, seed=recipe.train.seed, precision=precision)
        flops = functools.partial(_flops_per_token, model)
        plan = plan_run(
            recipe,
            setup,
            Throughput(loss.work, texts_per_row(recipe, data), flops, precision),
            facts=row_facts(recipe, data),
            evaluator=evaluator,
            terms=live_terms_of(recipe, data),
            measure=functools.partial(health.measure, model) if recipe.monitor.rows else None,
            callbacks=[LossClock(loss)],
        )
        return SparseTrainer(
            model,
            plan,
            loss=loss,
            static_lr=recipe.sparse.static_lr,
            groups=data.groups,
            texts=batches.texts,
            mixed=batches.sampler,
            args=arguments,
            train_dataset=batches.rows,
            data_collator=batches.collator,
        )

    def finish(self, trainer: RunTrainer, *, interrupted: bool, steps: int) -> None:
        from spectra_nsa.training.init.sparse_start import cap_document_frequency
        from spectra_nsa.training.runs.outcome import kept_step, measure_again

        # Accelerate leaves autocast around a trained model's forward pass; a saved and reopened model has none.
        trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if interrupted:
            return
        lowered = cap_document_frequency(self.recipe, self.model, self.data.train.select_columns(self.data.columns))
        if not lowered and kept_step(trainer) == trainer.state.global_step:
            return
        before = trainer.best_dev
        measure_again(trainer, self.model, dev=True)
        if lowered and processes.is_first():
            for name, value in trainer.best_dev.items():
                print(f"head: {name} is {value:.4f} now, {before.get(name, value):.4f} before", file=sys.stderr)


def _loss_stack(recipe: Recipe, model: SpectraSparseEncoder, batches: Batches) -> LossStack:
    from spectra_nsa.config.terms import active_terms
    from spectra_nsa.losses.stack import LossStack

    return LossStack(
        model,
        recipe.loss,
        active=active_terms(recipe),
        sparse=recipe.sparse,
        groups=recipe.train.passes_per_batch,
        cached=recipe.train.cached_pass_tokens,
        teachers=batches.teachers,
        sets={name: part.terms for name, part in (recipe.data.sets or {}).items() if part.terms is not None},
    )


def _flops_per_token(model: SpectraSparseEncoder, length: float) -> float:
    """Computes the FLOPs per token of one forward pass: 2 per weight of every matrix, and 4·T·D per layer.

    Lookups cost nothing, and the decoder is a matrix even where it shares its weights with one.
    """
    from torch import nn

    masked_lm = model.masked_lm()
    config, layers = masked_lm.config, [module for module in masked_lm.modules() if isinstance(module, nn.Linear)]
    matrices = sum(layer.weight.numel() for layer in layers)
    return 2.0 * matrices + 4 * length * config.hidden_size * config.num_hidden_layers
