"""The job of `spectra train`: a sentence model, trained on pairs, triplets, scored pairs or taught texts."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training.checks import check_data, check_recipe, data_notes, expert_notes, live_terms_of, row_counts
from spectra_nsa.training.jobs.job import Job

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from spectra_nsa.encoder.experts.spec import ExpertSpec
    from spectra_nsa.losses.stack import LossStack
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
    from spectra_nsa.training.loop.plan import RunSetup
    from spectra_nsa.training.loop.trainer import RunTrainer
    from spectra_nsa.training.monitor.dev_metric import DevEvaluator


class PairsJob(Job):
    """A run of `spectra train`.

    Attributes:
        data: what it learns from, after `load_rows`.
    """

    command = "train"
    shards = True
    has_pairs = True
    data: TrainingData
    model: SpectraSentenceTransformer
    _start: dict[str, Tensor] | None = None  # the weights to interpolate with

    @staticmethod
    def applies_to(recipe: Recipe) -> bool:
        return True

    @staticmethod
    def check_recipe(recipe: Recipe) -> None:
        check_recipe(recipe)

    def load_rows(self, quarantine: Path | None) -> None:
        from spectra_nsa.training.data.rows import load_training_data

        recipe = self.recipe
        if self.preloaded is not None:
            self.data = self.preloaded
            return
        self.data = load_training_data(
            recipe.data, seed=recipe.train.seed, quarantine=quarantine, distill=recipe.distill
        )
        self.quarantined = self.data.quarantined

    @property
    def rows(self) -> int:
        return len(self.data.train)

    def check_rows(self) -> None:
        check_data(self.recipe, self.data)

    def open_model(self) -> None:
        from spectra_nsa.training.init.frozen import train_only
        from spectra_nsa.training.init.start import open_start

        self.model = open_start(self.recipe)
        train_only(self.model.spectra, self.recipe.train.parts)
        self.model._model_card_text = None  # a saved model's card describes its own training, not this one

    def check_checkpoint(self, checkpoint: Path) -> None:
        from spectra_nsa.training.runs.resume import check_resumable, row_facts

        facts = row_facts(self.recipe, self.data)
        check_resumable(checkpoint, self.model.spectra.config, self.model.tokenizer, facts, self.command)

    def prepare(self, *, resumed: bool) -> None:
        from spectra_nsa.training.init.interpolation import start_weights
        from spectra_nsa.training.init.rarity import fit_rarity

        recipe, texts = self.recipe, self.data.train.select_columns(self.data.columns)
        # A resumed run needs the words only for what is fitted to its start: the map from the teachers' vectors.
        if recipe.model.token_vectors is not None and (not resumed or recipe.distill.teachers):
            self._begin_with_words(recipe.model.token_vectors, texts, quiet=resumed)
        self._start = start_weights(self.model) if recipe.train.interpolate < 1 else None
        if not resumed and recipe.model.entity is not False and self._trains_heads:
            fit_rarity(self.model, texts)

    @property
    def _trains_heads(self) -> bool:
        """Whether the heads are trained; others are not fitted either."""
        return self.recipe.train.parts is None or "heads" in self.recipe.train.parts

    def _begin_with_words(self, source: str, texts: Dataset, *, quiet: bool) -> None:
        from spectra_nsa.training.init.words import begin_with_words

        pieces = begin_with_words(self.model, source, texts)
        if not quiet and processes.is_first():
            print(
                f"words: {pieces:,} pieces start with the vector that {source} gives them", file=sys.stderr, flush=True
            )

    def start_line(self, folder: Path, first_step: int) -> str:
        from spectra_nsa.training.data.mixing import epoch_rows
        from spectra_nsa.training.loop.arguments import steps_of
        from spectra_nsa.training.runs.start_line import start_line

        data = self.data
        counts = [row_counts(data)]
        if data.dev is not None:
            counts.append(f"{len(data.dev):,} held out")
        if data.left_out:
            counts.append(f"{data.left_out:,} left out (they share a text with a held-out row)")
        steps = steps_of(self.recipe, epoch_rows(self.recipe, data))
        line = start_line(folder, steps, counts, data.quarantined, first_step)
        notes = [*data_notes(self.recipe, data), *expert_notes(self.recipe, self._experts())]
        return "\n".join([line, *(f"note: {note}" for note in notes)])

    def _experts(self) -> ExpertSpec | None:
        """Returns the experts of the model that is trained; ``None`` for none."""
        return experts_of(self.model.spectra.config)

    def build_trainer(self, setup: RunSetup) -> PairsTrainer:
        return build_trainer(self.recipe, self.model, self.data, setup)

    def finish(self, trainer: RunTrainer, *, interrupted: bool, steps: int) -> None:
        from spectra_nsa.training.init.interpolation import interpolate, interpolation_line
        from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
        from spectra_nsa.training.runs.outcome import kept_step, measure_again

        assert isinstance(trainer, PairsTrainer)
        if trainer.shards is not None:
            trainer.shards.unshard()
        # Accelerate leaves autocast around a trained model's forward pass; a saved and reopened model has none.
        trainer.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if interrupted:
            return
        if self._start is not None:
            interpolate(self.model, self._start, self.recipe.train.interpolate)
        fitted = self._fit_heads(quiet=steps == 0)
        moved = self._start is not None or kept_step(trainer) != trainer.state.global_step
        if moved or fitted:
            before, share = trainer.state.best_metric, self.recipe.train.interpolate
            measure_again(trainer, self.model, dev=moved)
            if self._start is not None and processes.is_first():
                print(interpolation_line(share, trainer.best_dev, before), file=sys.stderr, flush=True)

    def _fit_heads(self, *, quiet: bool) -> bool:
        """Fits the heads that are fitted after training; returns whether any was, in the first process."""
        from spectra_nsa.core.precision import resolve_precision
        from spectra_nsa.training.init.fit_heads import fit_heads_to_rows

        recipe = self.recipe
        wanted = {"bridge": recipe.model.bridge, "anchors": recipe.model.anchor}
        if not any(wanted.values()) or not recipe.train.fit_heads or not self._trains_heads:
            return False
        fitted = False
        if processes.is_first():
            texts, precision = recipe.train.fit_heads, resolve_precision(recipe.train.precision)
            fitted = fit_heads_to_rows(
                self.model, self.data.train, texts, **wanted, seed=recipe.train.seed, precision=precision, quiet=quiet
            )
        processes.broadcast_weights(self.model.spectra.bridge)
        processes.broadcast_weights(self.model.spectra.anchors)
        return fitted

    def save(self, folder: Path) -> None:
        from spectra_nsa.training.runs.model_card import complete_card

        self.model.save_pretrained(str(folder))
        complete_card(folder, self.recipe, self.rows)


def build_trainer(
    recipe: Recipe, model: SpectraSentenceTransformer, data: TrainingData, setup: RunSetup
) -> PairsTrainer:
    """Builds the trainer of a recipe; nothing has run yet.

    Args:
        recipe: the run.
        model: what to train, changed in place.
        data: what it learns from.
        setup: the run's folder, deadline and backup.

    Raises:
        UsageError: fp16 with sharding, or a batch that the processes cannot share.
        SpectraError: a teacher cannot be opened, or there are fewer rows than processes.
    """
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.models.size import flops_per_token
    from spectra_nsa.training.data.mixing import epoch_rows, texts_per_row
    from spectra_nsa.training.jobs.batches import training_batches
    from spectra_nsa.training.loop.arguments import training_arguments
    from spectra_nsa.training.loop.expert_balance import BalanceExperts
    from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
    from spectra_nsa.training.loop.plan import plan_run
    from spectra_nsa.training.loop.step_callbacks import LossClock
    from spectra_nsa.training.monitor.health import HealthSample
    from spectra_nsa.training.monitor.throughput import Throughput
    from spectra_nsa.training.runs.resume import row_facts

    precision = resolve_precision(recipe.train.precision)
    shard = shards_weights(recipe, precision)
    evaluator = dev_evaluator(recipe, data, precision)
    arguments = training_arguments(recipe, setup.folder, epoch_rows(recipe, data), precision, evaluator)
    loss = _loss_stack(recipe, model, shard=shard)
    sample = HealthSample(data.first, recipe.monitor.rows, seed=recipe.train.seed, precision=precision)
    throughput = Throughput(
        loss.work, texts_per_row(recipe, data), functools.partial(flops_per_token, model.spectra.config), precision
    )
    plan = plan_run(
        recipe,
        setup,
        throughput,
        facts=row_facts(recipe, data),
        evaluator=evaluator,
        terms=live_terms_of(recipe, data, experts=model.spectra.config.ffn == "moe"),
        measure=functools.partial(sample.measure, model) if recipe.monitor.rows else None,
        callbacks=[LossClock(loss), BalanceExperts(model.spectra.encoder, loss)],
    )
    batches = training_batches(recipe, model, data, tokenize=setup.deadline is None)
    return PairsTrainer(
        model,
        plan,
        loss=loss,
        groups=data.groups,
        texts=batches.texts,
        mixed=batches.sampler,
        shard=shard,
        args=arguments,
        train_dataset=batches.rows,
        data_collator=batches.collator,
    )


def experts_of(config: object) -> ExpertSpec | None:
    """Returns the experts of a model with this config; ``None`` for none, and for a config that is not ours."""
    from spectra_nsa.models.config import SpectraConfig

    return config.encoder_spec().experts if isinstance(config, SpectraConfig) and config.ffn == "moe" else None


def dev_evaluator(recipe: Recipe, data: TrainingData, precision: str) -> DevEvaluator | None:
    """Returns the dev metric of a run; ``None`` without a dev set."""
    from spectra_nsa.training.monitor.dev_metric import DevEvaluator

    if data.dev is None or data.dev_kind is None:
        return None
    held_out = recipe.data.sets is not None and recipe.data.dev is None
    prompts = next(iter(recipe.data.sets.values())).prompts if held_out and recipe.data.sets else None
    return DevEvaluator(data.dev, data.dev_kind, precision, prompts, sparse=recipe.sparse is not None)


def _loss_stack(recipe: Recipe, model: SpectraSentenceTransformer, *, shard: bool) -> LossStack:
    from spectra_nsa.config.terms import active_terms
    from spectra_nsa.losses.stack import LossStack

    dims = model.spectra.config.semantic_dims or [model.spectra.config.projection_dim]
    return LossStack(
        model,
        recipe.loss,
        active=active_terms(recipe, experts=model.spectra.config.ffn == "moe"),
        dense=model.spectra,
        sizes=dims if recipe.model.matryoshka else dims[:1],
        groups=recipe.train.passes_per_batch,
        cached=recipe.train.cached_pass_tokens,
        equal_passes=shard,
        distill_temperature=recipe.distill.temperature,
        sets={name: part.terms for name, part in (recipe.data.sets or {}).items() if part.terms is not None},
    )


def shards_weights(recipe: Recipe, precision: str) -> bool:
    """Returns whether the processes of this run shard the encoder.

    Raises:
        UsageError: in fp16.
    """
    if not recipe.train.shard or processes.count() == 1:
        return False
    if precision == "fp16":
        raise UsageError("train.shard does not work in fp16. Set train.precision=bf16 or fp32.")
    return True
