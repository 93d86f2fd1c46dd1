"""The job of `spectra pretrain`: a masked LM, trained on packed texts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training.checks import check_reporters
from spectra_nsa.training.jobs.job import Job

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import TrainerCallback

    from spectra_nsa.losses.router_terms import RouterTerms
    from spectra_nsa.models.model import SpectraForMaskedLM
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.documents import Documents, PretrainingTexts
    from spectra_nsa.training.data.packing import PackedSequences
    from spectra_nsa.training.loop.masked_lm_trainer import MaskedLMTrainer
    from spectra_nsa.training.loop.plan import RunSetup
    from spectra_nsa.training.loop.trainer import RunTrainer

# Keys without a meaning here. A recipe that sets one would describe a different run.
UNUSED = (
    "loss", "data.group", "data.negatives", "data.sets", "data.mixing",
    "train.cached_pass_tokens", "train.shard", "train.fit_heads", "train.parts",
    "train.interpolate",
    "model.matryoshka", "model.anchor", "model.bridge", "model.ranking", "model.anomaly", "model.token_vectors",
    "monitor.rows", "monitor.every",
)  # fmt: skip


class MaskedLMJob(Job):
    """A run of `spectra pretrain`.

    Attributes:
        texts: what it reads, after `load_rows`.
        sentence_model: the sentence model of the same weights, after `open_model`.
        train: the packed training texts, after `prepare`.
        dev: the packed held-out texts; ``None`` without any.
        length: the most tokens of a sequence.
    """

    command = "pretrain"
    texts: PretrainingTexts
    sentence_model: SpectraSentenceTransformer
    model: SpectraForMaskedLM
    train: PackedSequences
    dev: PackedSequences | None
    length: int

    @staticmethod
    def applies_to(recipe: Recipe) -> bool:
        return recipe.pretrain is not None

    @staticmethod
    def check_recipe(recipe: Recipe) -> None:
        changed = recipe.model_dump(exclude_defaults=True)
        for key in UNUSED:
            section, _, name = key.partition(".")
            if name in changed.get(section, {}) or (not name and section in changed):
                raise UsageError(
                    f"{key} means nothing in pretraining. Leave it out of the recipe, or use spectra train."
                )
        check_reporters(recipe)

    def load_rows(self, quarantine: Path | None) -> None:
        from spectra_nsa.training.data.documents import load_texts

        self.texts = load_texts(self.recipe, quarantine=quarantine)
        self.quarantined = self.texts.quarantined

    @property
    def rows(self) -> int:
        return len(self.texts.train)

    def check_rows(self) -> None:
        if self.recipe.train.patience is not None and not self.texts.dev:
            raise UsageError("train.patience waits for a better perplexity: set data.dev_rows or data.dev.")

    def open_model(self) -> None:
        from spectra_nsa.models.masked_lm import with_masked_lm_head
        from spectra_nsa.training.init.start import find_start, open_start

        self.sentence_model = open_start(self.recipe)
        start = self.recipe.model.start
        self.model = with_masked_lm_head(self.sentence_model, find_start(start).folder if start is not None else None)

    def check_checkpoint(self, checkpoint: Path) -> None:
        from spectra_nsa.training.runs.resume import check_resumable

        check_resumable(checkpoint, self.model.config, self.sentence_model.tokenizer, self.facts, self.command)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides which tokens a step reads and masks: kept in each checkpoint's manifest."""
        recipe = self.recipe
        assert recipe.pretrain is not None
        return {
            "train.batch": recipe.train.batch,
            "train.accumulation": recipe.train.accumulation,
            "train.seed": recipe.train.seed,
            "train.max_length": recipe.train.max_length,
            "model.max_length": recipe.model.max_length,
            "pretrain.mask_rate": recipe.pretrain.mask_rate,
            "pretrain.batch_tokens": recipe.pretrain.batch_tokens,
            "rows": len(self.texts.train),
            "sample": self.texts.digest,
        }

    def prepare(self, *, resumed: bool) -> None:
        """Tokenizes and packs the texts, and initializes the bias of an untrained head.

        Raises:
            UsageError: sequences are shorter than the tokenizer's special tokens.
        """
        import numpy as np

        from spectra_nsa.training.data.documents import special_ids_around, tokenize_documents
        from spectra_nsa.training.data.packing import Masking, PackedSequences

        recipe, tokenizer = self.recipe, self.sentence_model.tokenizer
        assert recipe.pretrain is not None
        special_ids = special_ids_around(tokenizer)
        length = self.sentence_model.max_seq_length or self.model.config.max_position_embeddings
        self.length = length = min(length, recipe.train.max_length or length)
        longest = length - len(special_ids[0]) - len(special_ids[1])
        if longest < 1:
            raise UsageError(
                f"max_length {length} leaves no room beside the tokenizer's special tokens: make it larger."
            )
        plain = np.setdiff1d(np.arange(len(tokenizer), dtype=np.int32), np.array(tokenizer.all_special_ids))
        masking = Masking(rate=recipe.pretrain.mask_rate, mask=tokenizer.mask_token_id, plain=plain)
        documents = tokenize_documents(self.texts.train, tokenizer, longest, self.texts.digest)
        self.train = PackedSequences(documents, special_ids, length, masking, recipe.train.seed)
        self.dev = None
        if self.texts.dev:
            self.dev = PackedSequences(
                tokenize_documents(self.texts.dev, tokenizer, longest), special_ids, length, masking, 0
            )
        if not self.model.lm_head.bias.any():  # an untrained head
            set_bias_to_frequencies(self.model.lm_head.bias, documents)

    @property
    def sized_recipe(self) -> Recipe:
        """The recipe with `train.batch` in sequences, if `pretrain.batch_tokens` counts tokens."""
        recipe = self.recipe
        assert recipe.pretrain is not None
        if recipe.pretrain.batch_tokens is None:
            return recipe
        batch = max(2, recipe.pretrain.batch_tokens // self.length)
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": batch})})

    def start_line(self, folder: Path, first_step: int) -> str:
        from spectra_nsa.training.loop.arguments import steps_of
        from spectra_nsa.training.runs.start_line import start_line

        texts = self.texts
        counts = [f"{counted(len(texts.train), 'text')}"]
        if texts.dev:
            counts.append(f"{len(texts.dev):,} held out")
        if texts.left_out:
            counts.append(f"{texts.left_out:,} left out (equal to a held-out text)")
        return start_line(folder, steps_of(self.sized_recipe, len(self.train)), counts, texts.quarantined, first_step)

    def build_trainer(self, setup: RunSetup) -> MaskedLMTrainer:
        from spectra_nsa.core.precision import resolve_precision
        from spectra_nsa.models.size import flops_per_token
        from spectra_nsa.tokens.length_batches import Work
        from spectra_nsa.training.loop.arguments import training_arguments
        from spectra_nsa.training.loop.masked_lm_trainer import MaskedLMTrainer, Perplexity
        from spectra_nsa.training.loop.plan import plan_run
        from spectra_nsa.training.monitor.throughput import Throughput

        recipe = self.sized_recipe
        precision = resolve_precision(recipe.train.precision)
        evaluator = Perplexity(self.dev, precision) if self.dev is not None else None
        arguments = training_arguments(recipe, setup.folder, len(self.train), precision, evaluator)
        arguments.remove_unused_columns = False  # a batch is row numbers
        work = Work()
        throughput = Throughput(work, 0, functools.partial(flops_per_token, self.model.spectra.config), precision)
        routers, callbacks = self._routers()
        plan = plan_run(recipe, setup, throughput, facts=self.facts, evaluator=evaluator, callbacks=callbacks)
        return MaskedLMTrainer(
            self.model,
            self.sentence_model,
            plan,
            sequences=self.train,
            work=work,
            groups=recipe.train.passes_per_batch,
            routers=routers,
            args=arguments,
            eval_dataset=self.dev,
        )

    def _routers(self) -> tuple[RouterTerms | None, list[TrainerCallback]]:
        """Returns the terms of the routers, and what moves a balancing bias; ``None`` without experts."""
        from spectra_nsa.losses.router_terms import RouterTerms
        from spectra_nsa.training.loop.expert_balance import BalanceExperts

        spec, section = self.model.config.encoder_spec(), self.recipe.pretrain
        if spec.ffn != "moe" or section is None:
            return None, []
        weights = {"router_balance": section.router_balance, "router_z": section.router_z}
        routers = RouterTerms(spec, weights)
        return routers, [BalanceExperts(self.model, routers)]

    def finish(self, trainer: RunTrainer, *, interrupted: bool, steps: int) -> None:
        """Does nothing: the model is complete as it is trained."""

    def save(self, folder: Path) -> None:
        from spectra_nsa.models.masked_lm import save_masked_lm

        save_masked_lm(self.model, self.sentence_model, folder)


def set_bias_to_frequencies(bias_V: Tensor, documents: Documents) -> None:
    """Sets the bias of a masked-LM head to the logarithms of the tokens' frequencies, minus their mean.

    Otherwise the token vectors, which are also the decoder, first learn the frequencies. All of them then move in one
    direction, and only the rest of each vector says what its token means (docs/guides/pretraining.md; for language
    models, Meister et al. 2023).

    Args:
        bias_V: changed in place.
        documents: the training texts; each token counts once more than it occurs.
    """
    import numpy as np
    import torch

    logs = np.log(np.bincount(documents.ids, minlength=len(bias_V)) + 1.0)
    with torch.no_grad():
        bias_V.copy_(torch.from_numpy(logs - logs.mean()))
