"""The training rows of several datasets, of which each batch takes one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.data_section import DataSection, SetSection, SourceSection
from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.core.errors import SpectraError, errors_begin, unknown_name
from spectra_nsa.training.data.dev_rows import read_dev, texts_of
from spectra_nsa.training.data.one_set import dev_kind, load_one_set
from spectra_nsa.training.data.training_data import TrainingData

if TYPE_CHECKING:
    from datasets import Dataset


def load_sets(section: DataSection, *, seed: int, quarantine: Path | None, distill: DistillSection) -> TrainingData:
    """Loads the datasets of `data.sets`.

    Without `data.dev`, rows are held out from the first dataset. Rows of the others that share a text with one of them
    are left out.

    Args:
        section: the recipe's `data`, with `sets`.
        seed: decides which rows are held out.
        quarantine: the folder for quarantined rows, with a folder for each dataset; ``None`` only counts them.
        distill: the recipe's `distill`. Its `scores` hold for the datasets that have all of these columns.

    Raises:
        SpectraError: a dataset does not exist, or holds too few rows or rows of another kind; the message names it.
    """
    assert section.sets is not None
    parts: dict[str, TrainingData] = {}
    held_out: Set[str] = frozenset()
    for name, own in section.sets.items():
        with errors_begin(f"data.sets.{name}"):
            dev_rows = section.dev_rows if section.dev is None and not parts else 0
            parts[name] = _load_set(own, dev_rows, held_out, seed, quarantine and quarantine / name, distill)
        if (dev := parts[name].dev) is not None:
            held_out = texts_of(dev, _texts(dev))
    return _joined(section, parts, quarantine, distill)


def _load_set(
    own: SetSection, dev_rows: int, held_out: Set[str], seed: int, quarantine: Path | None, distill: DistillSection
) -> TrainingData:
    values = {name: getattr(own, name) for name in SourceSection.model_fields}
    data = load_one_set(
        DataSection(**values, dev_rows=dev_rows),
        seed=seed,
        quarantine=quarantine,
        distill=distill,
        held_out=held_out,
        optional_scores=True,
    )
    if data.columns == ["text"]:
        raise SpectraError(f"{own.train} holds single texts, which cannot be one of several datasets. Give pairs.")
    return data


def _joined(
    section: DataSection, parts: Mapping[str, TrainingData], quarantine: Path | None, distill: DistillSection
) -> TrainingData:
    """Returns the datasets as the data of one run."""
    if distill.scores and all(part.scores is None for part in parts.values()):
        known = list(dict.fromkeys(name for part in parts.values() for name in part.train.column_names))
        raise unknown_name("distill.scores: column of data.sets", distill.scores[0], known)
    first, *_ = parts
    dev, notes, quarantined = parts[first].dev, [], sum(part.quarantined for part in parts.values())
    if section.dev is not None and section.dev_rows:
        split = read_dev(section, section.dev, quarantine)
        dev, notes, quarantined = split.dev, list(split.notes), quarantined + split.quarantined
    sets = {**parts, first: replace(parts[first], dev=dev, dev_kind=dev_kind(dev))}
    notes = [*(f"{name}: {note}" for name, part in parts.items() for note in part.notes), *notes]
    return TrainingData(
        train=_first_texts(list(parts.values())), dev=dev, dev_kind=dev_kind(dev), quarantined=quarantined,
        left_out=sum(part.left_out for part in parts.values()), notes=tuple(notes), sets=sets,
    )  # fmt: skip


def _first_texts(parts: Sequence[TrainingData]) -> Dataset:
    """Returns the first two texts of all rows as anchor and positive."""
    from datasets import concatenate_datasets

    views = []
    for part in parts:
        first, second = part.columns[:2]
        view = part.train.select_columns([first, second])
        views.append(view if first == "anchor" else view.rename_columns({first: "anchor", second: "positive"}))
    return concatenate_datasets(views)


def _texts(rows: Dataset) -> list[str]:
    """Returns the columns of dev rows that hold the pair."""
    return ["anchor", "positive"] if "anchor" in rows.column_names else ["sentence1", "sentence2"]
