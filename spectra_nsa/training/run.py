"""One run of any kind, from a recipe to `runs/NAME/`."""

from __future__ import annotations

import contextlib
import datetime
import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe, load_recipe, load_run_recipe
from spectra_nsa.core import processes
from spectra_nsa.core.console import no_library_bars
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder, atomic_write
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.training.jobs import check_command, checked_recipe, job_for
from spectra_nsa.training.jobs.job import Job
from spectra_nsa.training.runs.checkpoints import ResumePoint, find_resume_point, prepare_resume
from spectra_nsa.training.runs.claim import claim_folder, deleted_on_error, locked_by_first

if TYPE_CHECKING:
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.runs.backup import Backup, Tally


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: `runs/NAME`.
        model: the best model by the dev metric, in memory; the last one without a dev set. A
            `SpectraSentenceTransformer` after `train`, a `SpectraForMaskedLM` after `pretrain`.
        steps: steps trained, including those before the checkpoint that it resumed from.
        first_step: the step that it resumed from; 0 for a new run.
        seconds: wall time of the training itself.
        pairs_per_second: throughput of all processes together; ``None`` if its rows are not pairs.
        best: the best dev metric by name; empty without a dev set.
        start: the dev metric before the first step by name; empty without a dev set and in a resumed run.
        ended: how, in a word or two.
        quarantined: the number of quarantined rows.
        interrupted: whether Ctrl-C ended it; then there is no `model/`, and `--resume` continues it.
        backup: what became of the copies; ``None`` if the recipe asks for none.
    """

    folder: Path
    model: Any
    steps: int
    first_step: int
    seconds: float
    pairs_per_second: float | None
    best: dict[str, float]
    start: dict[str, float]
    ended: str
    quarantined: int
    interrupted: bool
    backup: Tally | None = None


def train(
    recipe: Recipe | str | Path | None = None,
    *,
    resume: str | Path | None = None,
    data: TrainingData | None = None,
    deadline: float | None = None,
) -> RunResult:
    """Trains a model by a recipe and writes `runs/NAME/` (docs/reference/files.md).

    Under torchrun or `accelerate launch` every process calls this, and the first one writes.

    Args:
        recipe: what to do, as a `Recipe` or the path of a recipe file; ``None`` only with `resume`.
        resume: a run's folder or one of its checkpoints, to resume with the run's own recipe unless one is given. A
            run that was stopped before its first checkpoint starts over.
        data: rows already loaded; ``None`` loads the recipe's.
        deadline: a `time.monotonic()` at which training ends, its schedule fitted to the time; ``None`` for none.

    Raises:
        UsageError: a recipe or a run of `spectra pretrain`, or no recipe and no run.
        SpectraError: unusable data, model, folder or checkpoint, or a checkpoint of a different model or data.
    """
    return _run("train", recipe, resume, data, deadline)


def pretrain(
    recipe: Recipe | str | Path | None = None, *, resume: str | Path | None = None, deadline: float | None = None
) -> RunResult:
    """Pretrains a masked LM by a recipe and writes `runs/NAME/` (docs/guides/pretraining.md).

    Args:
        recipe: what to do, as a `Recipe` with a section `pretrain` or its defaults, or the path of a recipe file;
            ``None`` only with `resume`.
        resume: see `train`.
        deadline: see `train`.

    Raises:
        UsageError: a key that means nothing here, or a run of `spectra train`.
        SpectraError: unusable data, model, folder or checkpoint, or a checkpoint of a different model or data.
    """
    return _run("pretrain", recipe, resume, None, deadline)


def _run(
    command: str,
    recipe: Recipe | str | Path | None,
    resume: str | Path | None,
    data: TrainingData | None,
    deadline: float | None,
) -> RunResult:
    """Connects the processes, locates the run, and drives its job from the rows to the saved model."""
    launched_sharded = processes.connect()  # by `accelerate launch --use_fsdp`
    recipe, point = processes.run_on_first(functools.partial(_locate, command, recipe, resume))
    kind = job_for(recipe)
    with locked_by_first(point.folder):
        if launched_sharded:
            if not kind.shards:
                raise UsageError(f"spectra {command} does not shard the model. Launch it without --use_fsdp.")
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"shard": True})})
        if recipe.train.shard and processes.count() == 1:
            print("spectra: train.shard does nothing in a single process", file=sys.stderr, flush=True)
        backup = _open_backup(recipe, point)
        set_seed(recipe.train.seed)
        job = kind(recipe, data)
        _load(job, point)
        if data is None and processes.is_first():
            print(job.start_line(point.folder, point.step), file=sys.stderr, flush=True)
        if processes.is_first():
            if resume is not None:
                prepare_resume(point)
            with atomic_write(point.folder / "recipe.yaml") as file:
                file.write(recipe.to_yaml())
        return _train(job, point, backup, deadline)


def _locate(command: str, recipe: Recipe | str | Path | None, resume: str | Path | None) -> tuple[Recipe, ResumePoint]:
    """Checks the recipe; then finds the run to resume, or claims the folder of a new one."""
    if isinstance(recipe, (str, Path)):
        recipe = load_run_recipe(recipe)
    if recipe is None and resume is None:
        raise UsageError(
            f'name a recipe or a run to resume: {command}("recipe.yaml") or {command}(resume="runs/NAME").'
        )
    if recipe is not None and not isinstance(recipe, Recipe):
        raise UsageError(f"{command} takes a Recipe or the path of a recipe file, not a {type(recipe).__name__}.")
    point = None
    if resume is not None:
        check_command(resume, command)
        point = find_resume_point(resume)
        before = load_recipe(point.folder / "recipe.yaml")
        recipe = recipe or before
        if recipe.name != before.name:
            raise UsageError(f"{point.folder} resumes under its own name. Leave out name={recipe.name}.")
    assert recipe is not None
    recipe = checked_recipe(recipe, command)
    if point is None:
        name = recipe.name or datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        point = ResumePoint(claim_folder(Path(recipe.output) / name), None)
    return recipe, point


def _open_backup(recipe: Recipe, point: ResumePoint) -> Backup | None:
    """Opens the first process's backup; the others have none, and fail if it does."""
    from spectra_nsa.training.runs.backup import open_backup

    opened: list[Backup | None] = []
    processes.run_on_first(
        lambda: opened.append(open_backup(recipe.backup, point.folder, new=point.checkpoint is None))
    )
    return opened[0] if opened else None


def _load(job: Job, point: ResumePoint) -> None:
    """Loads rows and model, and prepares both; if that is refused, a new quarantine folder is deleted again."""
    quarantine = point.folder / "quarantine"
    new_quarantine = None if quarantine.exists() else quarantine
    with deleted_on_error(new_quarantine):
        with processes.first_before_others():
            job.load_rows(quarantine if processes.is_first() else None)
        counts = sorted({rows for (rows,) in processes.gather_counts([job.rows])})
        if len(counts) > 1:
            raise SpectraError(
                f"the processes read different data: {' and '.join(map(str, counts))} rows. Give all of them the same "
                "files."
            )
        job.check_rows()
        with no_library_bars():
            job.open_model()
            if point.checkpoint is not None:
                job.check_checkpoint(point.checkpoint)
            job.prepare(resumed=point.checkpoint is not None)


@no_library_bars()
def _train(job: Job, point: ResumePoint, backup: Backup | None, deadline: float | None) -> RunResult:
    """Builds the trainer, trains, and saves the model."""
    import torch

    from spectra_nsa.training.loop.interrupt import StopOnInterrupt
    from spectra_nsa.training.loop.plan import RunSetup
    from spectra_nsa.training.runs.outcome import closing, outcome_of

    recipe, folder, interrupt = job.recipe, point.folder, StopOnInterrupt()
    processes.broadcast_weights(job.model)
    trainer = job.build_trainer(RunSetup(folder=folder, interrupt=interrupt, backup=backup, deadline=deadline))
    if processes.count() > 1:
        torch.manual_seed(recipe.train.seed + processes.rank())  # each process has its own dropout
    start = time.monotonic()
    with closing(trainer, interrupt, folder):
        trainer.train_from(point.checkpoint)
        seconds = time.monotonic() - start
        steps = trainer.state.global_step
        interrupted = processes.any_process(interrupt.requested)
        if steps == 0 and not interrupted:
            raise SpectraError(
                f"no step was trained: {counted(job.rows, 'row')} make no batch of {recipe.train.batch} in which no "
                "text repeats. Lower train.batch, or add rows with other texts."
            )
        job.finish(trainer, interrupted=interrupted, steps=steps - point.step)
        if processes.is_first():
            with contextlib.suppress(OSError):  # sentence-transformers creates it for reports that are not written
                (folder / "checkpoints" / "eval").rmdir()
            if not interrupted:
                with atomic_folder(folder / "model") as temporary:
                    job.save(temporary)
    processes.barrier()  # no process returns before the model is there
    best = trainer.state.best_model_checkpoint
    rows = (steps - point.step) * min(recipe.train.batch, job.rows) * recipe.train.accumulation
    return RunResult(
        folder=folder,
        model=job.model,
        steps=steps,
        first_step=point.step,
        seconds=seconds,
        pairs_per_second=rows / max(seconds, 1e-9) if job.has_pairs else None,
        best=trainer.best_dev,
        start=trainer.start_dev,
        ended=outcome_of(trainer, interrupted),
        quarantined=job.quarantined,
        interrupted=interrupted,
        backup=backup.finish(Path(best) if best else None, model=not interrupted) if backup is not None else None,
    )
