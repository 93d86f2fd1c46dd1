"""The kinds of runs. A new kind is a file with a `Job` and a line in `JOBS`."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.sections import PretrainSection
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training.jobs.job import Job
from spectra_nsa.training.jobs.masked_lm import MaskedLMJob
from spectra_nsa.training.jobs.pairs import PairsJob
from spectra_nsa.training.jobs.sparse import SparseJob
from spectra_nsa.training.runs.checkpoints import run_of

JOBS: tuple[type[Job], ...] = (MaskedLMJob, SparseJob, PairsJob)  # the first that applies to a recipe runs it


def job_for(recipe: Recipe) -> type[Job]:
    """Returns the kind of run that a recipe describes."""
    return next(job for job in JOBS if job.applies_to(recipe))


def checked_recipe(recipe: Recipe, command: str) -> Recipe:
    """Checks a recipe before anything loads; for `pretrain` it is returned with a section `pretrain`.

    Raises:
        UsageError: it is for another command, contradicts itself, or asks for what its kind of run does not do.
        SpectraError: something that it names is not installed.
    """
    if command == MaskedLMJob.command and recipe.pretrain is None:
        recipe = recipe.model_copy(update={"pretrain": PretrainSection()})
    kind = job_for(recipe)
    if kind.command != command:
        raise UsageError(
            f"the recipe has a section {kind.command}, so it is for spectra {kind.command}. Leave the section out."
        )
    kind.check_recipe(recipe)
    return recipe


def check_command(run_or_checkpoint: str | Path, command: str) -> None:
    """Checks that the run to resume was started by `command`, such as "train".

    Raises:
        UsageError: it was started by another command.
        SpectraError: there is no such run.
    """
    started_by = job_for(load_recipe(run_of(run_or_checkpoint) / "recipe.yaml")).command
    if started_by != command:
        raise UsageError(
            f"{run_or_checkpoint} is a run of spectra {started_by}. Resume it with: spectra {started_by} --resume "
            f"{run_or_checkpoint}"
        )
