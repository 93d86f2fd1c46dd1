"""Opens the model of a plan."""

from __future__ import annotations

from typing import Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.open import ModelFolder, open_encoder, open_model
from spectra_nsa.workflows.corpus.job import CorpusJob
from spectra_nsa.workflows.index_models import find_any, open_any


def find_for_corpus(name: str, *, sparse: bool) -> ModelFolder:
    """Returns the files of a model.

    Raises:
        SpectraError: there is no such model, or it is of another kind.
    """
    return find_any(name, ("sparse",) if sparse else ("spectra", "bert"))


def open_for_job(job: CorpusJob, device: str | None) -> Any:
    """Opens the model of a plan.

    Args:
        job: the plan.
        device: ``None`` for the GPU if there is one.

    Raises:
        SpectraError: its files have changed since the plan was made.
    """
    files = find_for_corpus(job.model, sparse=job.dtype == "sparse")
    if files.checksum != job.checksum:
        raise SpectraError(
            f"{job.model} has changed since the first shard was encoded. Restore it, or encode into another folder."
        )
    if job.dtype == "sparse":
        model = open_any(files)
        return model if device is None else model.to(device)
    return open_encoder(files) if device is None else open_model(files, device=device)
