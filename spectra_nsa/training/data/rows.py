"""Training rows and dev rows of the recipe's `data` section."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.config.data_section import DataSection
from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.training.data.one_set import load_one_set
from spectra_nsa.training.data.several_sets import load_sets
from spectra_nsa.training.data.training_data import StoredRows, TrainingData

__all__ = ["StoredRows", "TrainingData", "load_training_data"]


def load_training_data(
    section: DataSection, *, seed: int, quarantine: Path | None, distill: DistillSection | None = None
) -> TrainingData:
    """Loads and splits the data of a recipe: that of `data.train`, or of each of `data.sets`.

    Args:
        section: the recipe's `data`.
        distill: the recipe's `distill`; with teachers, single texts can be trained on. ``None`` for no distillation.
        seed: decides which rows are held out.
        quarantine: the folder for quarantined rows; ``None`` only counts them.

    Raises:
        UsageError: the section names no source.
        SpectraError: the source holds rows of another kind, or too few of them.
    """
    load = load_one_set if section.sets is None else load_sets
    return load(section, seed=seed, quarantine=quarantine, distill=distill or DistillSection())
