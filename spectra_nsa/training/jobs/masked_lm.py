"""A pretraining run: recipe in, `runs/NAME/` with a masked-LM model out."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.config.sections import PretrainSection
from spectra_nsa.core import processes
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.files import atomic_folder
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.training.runs.folder import backup_of, check_rows, held_by_first, place, taken_back, write_recipe
from spectra_nsa.training.runs.messages import opening

if TYPE_CHECKING:
    from torch import Tensor

    from spectra_nsa.models.model import SpectraForMaskedLM
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.documents import Documents, Texts
    from spectra_nsa.training.data.packing import Sequences
    from spectra_nsa.training.loop.masked_lm_trainer import Pretrainer
    from spectra_nsa.training.runs.backup import Backup, Tally

# Keys that mean nothing here; given one by name, a run would not be what its recipe says.
UNUSED = (
    "loss", "data.group", "train.cached_batch", "train.shard", "train.fit_codes", "train.interpolate",
    "model.matryoshka", "model.anchor", "model.bridge", "model.ranking", "model.anomaly", "model.words",
    "watch.rows", "watch.every",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What a pretraining run leaves.

    Attributes:
        folder: `runs/NAME`.
        model: the best model by held-out perplexity, in memory; the last one without held-out texts.
        steps: steps trained, of this run and of the one it went on from.
        first_step: where this run went on from; 0 for a new one.
        seconds: wall time of the training itself.
        best: the best held-out perplexity by name; empty without held-out texts.
        start: the one before the first step; empty without held-out texts and in a resumed run.
        ended: how, in a word or two.
        interrupted: whether Ctrl-C ended it; then `model/` is not written, and `--resume` goes on.
        backup: what became of the copies; ``None`` where the recipe asks for none.
    """

    folder: Path
    model: SpectraForMaskedLM
    steps: int
    first_step: int
    seconds: float
    best: dict[str, float]
    start: dict[str, float]
    ended: str
    interrupted: bool
    backup: Tally | None = None


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe with a section `pretrain`.

    Raises:
        UsageError: it names a key that pretraining has no use for.
    """
    changed = recipe.model_dump(exclude_defaults=True)
    for key in UNUSED:
        section, _, name = key.partition(".")
        if name in changed.get(section, {}) or (not name and section in changed):
            raise UsageError(f"{key} means nothing in pretraining: leave it out of the recipe, or use spectra train.")
    return recipe.model_copy(update={"pretrain": recipe.pretrain or PretrainSection()})


def pretrain(
    recipe: Recipe | None = None, *, resume: str | Path | None = None, deadline: float | None = None
) -> PretrainResult:
    """Pretrains a masked-LM model by a recipe and writes `runs/NAME/` (docs/guides/pretraining.md).

    Args:
        recipe: what to do; ``None`` only with `resume`.
        resume: a run's folder, or one of its checkpoints: goes on from there, as `train` does.
        deadline: a `time.monotonic()` at which it ends, its schedule fitted to the time; ``None`` for none.

    Raises:
        UsageError: a key that means nothing here, or a run of `spectra train`.
        SpectraError: unusable data, model, folder or checkpoint, or a checkpoint of another model or other data.
    """
    from spectra_nsa.training.checks import check_verb

    if processes.connect():
        raise UsageError("pretraining does not share weights out among processes: leave out --use_fsdp.")
    if resume is not None:
        check_verb(resume, "pretrain")
    recipe = check_recipe(recipe) if recipe is not None else None
    recipe, folder, checkpoint = processes.by_first(functools.partial(place, recipe, resume))
    with held_by_first(folder):
        return _run(check_recipe(recipe), folder, checkpoint, deadline, resumed=resume is not None)


def _run(
    recipe: Recipe, folder: Path, checkpoint: Path | None, deadline: float | None, *, resumed: bool
) -> PretrainResult:
    from spectra_nsa.training.data.documents import load_texts
    from spectra_nsa.training.runs.checkpoints import clear
    from spectra_nsa.training.runs.resume import check_alike

    backup = backup_of(recipe, folder, new=checkpoint is None)
    set_seed(recipe.train.seed)
    aside = folder / "quarantine"
    written = None if aside.exists() else aside
    with processes.first_before_others():
        texts = load_texts(recipe, quarantine=aside if processes.is_first() else None)
    with taken_back(written):
        check_rows(processes.everyones([len(texts.train)]))
        check_dev(recipe, texts)
        around, model = open_masked(recipe)
        if checkpoint is not None:
            check_alike(checkpoint, model.config, around.tokenizer, facts_of(recipe, texts), "pretrain")
    if processes.is_first():
        if resumed:
            clear(folder, checkpoint)
        write_recipe(folder, recipe)
    return _fit(recipe, folder, around, model, texts, checkpoint, backup, deadline)


def check_dev(recipe: Recipe, texts: Texts) -> None:
    """That there are held-out texts where `train.patience` waits for their perplexity.

    Raises:
        UsageError: there are none.
    """
    if recipe.train.patience is not None and not texts.dev:
        raise UsageError("train.patience waits for a better perplexity: set data.dev_rows or data.dev.")


def open_masked(recipe: Recipe) -> tuple[SpectraSentenceTransformer, SpectraForMaskedLM]:
    """The model that a recipe starts from, and the masked LM that shares its weights."""
    from spectra_nsa.models.checks import resolve_folder
    from spectra_nsa.models.masked_lm import with_masked_lm_head
    from spectra_nsa.training.init.start import open_start

    around = open_start(recipe)
    start = recipe.model.start
    return around, with_masked_lm_head(around, resolve_folder(start) if start is not None else None)


def facts_of(recipe: Recipe, texts: Texts) -> dict[str, Any]:
    """What decides which tokens a step sees, and which of them are masked: kept in each checkpoint's manifest."""
    assert recipe.pretrain is not None
    return {
        "train.batch": recipe.train.batch,
        "train.accumulation": recipe.train.accumulation,
        "train.seed": recipe.train.seed,
        "train.max_length": recipe.train.max_length,
        "model.max_length": recipe.model.max_length,
        "pretrain.mask_rate": recipe.pretrain.mask_rate,
        "pretrain.batch_tokens": recipe.pretrain.batch_tokens,
        "rows": len(texts.train),
        "sample": texts.digest,
    }


def packed(recipe: Recipe, around: SpectraSentenceTransformer, texts: Texts) -> tuple[Any, Any | None, int]:
    """The training sequences, the held-out ones (``None`` where there are no held-out texts), and their length."""
    import numpy as np

    from spectra_nsa.training.data.documents import documents_of, frame_of
    from spectra_nsa.training.data.packing import Masking, Sequences

    assert recipe.pretrain is not None
    words = around.tokenizer
    frame = frame_of(words)
    room = around.max_seq_length or around.spectra.config.max_position_embeddings
    room = min(room, recipe.train.max_length or room)
    longest = room - len(frame[0]) - len(frame[1])
    if longest < 1:
        raise UsageError(f"max_length {room} leaves no room beside the tokenizer's special tokens: make it larger.")
    plain = np.setdiff1d(np.arange(len(words), dtype=np.int32), np.array(words.all_special_ids))
    masking = Masking(rate=recipe.pretrain.mask_rate, mask=words.mask_token_id, plain=plain)

    def sequences(of: Documents, seed: int) -> Sequences:
        return Sequences(of, frame, room, masking, seed)

    train = sequences(documents_of(texts.train, words, longest, texts.digest), recipe.train.seed)
    dev = sequences(documents_of(texts.dev, words, longest), 0) if texts.dev else None
    return train, dev, room


def start_at_frequencies(bias_V: Tensor, documents: Documents) -> None:
    """Sets the bias of a masked-LM head to the logarithms of the tokens' frequencies, less their mean.

    Otherwise the token vectors, which are the decoder too, learn the frequencies first: all of them turn one way, and
    what they are for is told from the rest of them only (docs/guides/pretraining.md; for language models, Meister
    et al. 2023).

    Args:
        bias_V: changed in place.
        documents: what is learned from; each token is taken to be there once more than it is.
    """
    import numpy as np
    import torch

    logs = np.log(np.bincount(documents.ids, minlength=len(bias_V)) + 1.0)
    with torch.no_grad():
        bias_V.copy_(torch.from_numpy(logs - logs.mean()))


def batch_of(recipe: Recipe, room: int) -> Recipe:
    """The recipe with `train.batch` as sequences, where it counts tokens."""
    assert recipe.pretrain is not None
    if recipe.pretrain.batch_tokens is None:
        return recipe
    size = max(2, recipe.pretrain.batch_tokens // room)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch": size})})


def _opening(folder: Path, recipe: Recipe, texts: Texts, sequences: Sequences, first_step: int) -> str:
    """What a run begins with, in a line."""
    from spectra_nsa.training.loop.build import steps_of

    counted = [f"{len(texts.train):,} texts"]
    if texts.dev:
        counted.append(f"{len(texts.dev):,} to watch by")
    if texts.left_out:
        counted.append(f"{texts.left_out:,} left out (they are among those)")
    steps = steps_of(batch_of(recipe, sequences.room), len(sequences))
    return opening(folder, steps, counted, texts.quarantined, first_step)


def build_pretrainer(
    recipe: Recipe,
    folder: Path,
    around: SpectraSentenceTransformer,
    model: SpectraForMaskedLM,
    texts: Texts,
    backup: Backup | None = None,
    deadline: float | None = None,
) -> Pretrainer:
    """Everything that `go_on` needs; nothing has run yet. The arguments are `build_trainer`'s."""
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.models.size import flops_per_token
    from spectra_nsa.training.loop.build import training_arguments
    from spectra_nsa.training.loop.callbacks import Deadline
    from spectra_nsa.training.loop.masked_lm_trainer import Perplexity, Pretrainer
    from spectra_nsa.training.monitor.attach import look_on
    from spectra_nsa.training.monitor.throughput import Throughput

    train, dev, room = packed(recipe, around, texts)
    if not model.lm_head.bias.any():  # a head that has learnt nothing; of a run that goes on it is read afterwards
        start_at_frequencies(model.lm_head.bias, train.documents)
    facts, recipe = facts_of(recipe, texts), batch_of(recipe, room)
    precision = resolve_precision(recipe.train.precision)
    arguments = training_arguments(recipe, folder, len(train), precision, Perplexity.metric if dev else None)
    arguments.remove_unused_columns = False
    arguments.greater_is_better = False if dev else None
    trainer = Pretrainer(train, model=model, args=arguments, eval_dataset=dev)
    trainer.evaluator = Perplexity(dev, precision) if dev else None
    trainer.around = around
    trainer.precision, trainer.groups = precision, recipe.train.length_groups
    trainer.facts, trainer.gate_lr = facts, recipe.train.gate_lr
    _steady(trainer, backup)
    if deadline is not None:
        trainer.deadline = deadline
        trainer.add_callback(Deadline(deadline))
    speed = Throughput(trainer.work, 0, functools.partial(flops_per_token, model.spectra.config), precision)
    look_on(trainer, speed, recipe=recipe, folder=folder, deadline=deadline)
    return trainer


def _steady(trainer: Pretrainer, backup: Backup | None) -> None:
    """Adds what keeps a run safe, and takes away what transformers would print."""
    import torch
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from spectra_nsa.training.loop.callbacks import BackUp, FiniteGradients, Restore, TrimMemory

    if backup is not None:
        trainer.add_callback(BackUp(backup))
        trainer.held = backup.held
    trainer.add_callback(Restore(trainer.restore))
    trainer.add_callback(FiniteGradients(trainer.skip, trainer.step_passed))
    for unwanted in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(unwanted)
    if not torch.cuda.is_available():
        trainer.add_callback(TrimMemory())


def _fit(
    recipe: Recipe,
    folder: Path,
    around: SpectraSentenceTransformer,
    model: SpectraForMaskedLM,
    texts: Texts,
    checkpoint: Path | None,
    backup: Backup | None,
    deadline: float | None,
) -> PretrainResult:
    import torch

    from spectra_nsa.models.masked_lm import save_masked_lm
    from spectra_nsa.training.loop.callbacks import StopOnInterrupt
    from spectra_nsa.training.run import at_start, best_of
    from spectra_nsa.training.runs.checkpoints import step_of
    from spectra_nsa.training.runs.ending import closed, reason_of

    trainer = build_pretrainer(recipe, folder, around, model, texts, backup, deadline)
    first_step = step_of(checkpoint) if checkpoint else 0
    if processes.is_first():
        print(_opening(folder, recipe, texts, trainer.sequences, first_step), file=sys.stderr, flush=True)
    stop = StopOnInterrupt()
    trainer.add_callback(stop)
    if processes.count() > 1:
        processes.share_weights(model)
        torch.manual_seed(recipe.train.seed + processes.rank())  # each process drops out other numbers
    began = time.monotonic()
    with closed(trainer, stop, folder):
        trainer.go_on(checkpoint)
        seconds = time.monotonic() - began
        interrupted = processes.anyone(stop.asked)
        if processes.is_first() and not interrupted:
            with atomic_folder(folder / "model") as temporary:
                save_masked_lm(model, around, temporary)
    processes.barrier()
    best = trainer.state.best_model_checkpoint
    tally = backup.finish(Path(best) if best else None, model=not interrupted) if backup else None
    return PretrainResult(
        folder=folder,
        model=model,
        steps=trainer.state.global_step,
        first_step=first_step,
        seconds=seconds,
        best=best_of(trainer),
        start=at_start(trainer),
        ended=reason_of(trainer, interrupted),
        interrupted=interrupted,
        backup=tally,
    )
