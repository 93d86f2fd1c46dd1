"""The quickstart's data: docstring → code pairs of the Python packages on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spectra_nsa.core.cache import cache_folder

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.training.data.rows import TrainingData

PER_PACKAGE = 2_500  # pairs: a few huge packages would be most of the data otherwise, and take long to read
DEV_ROWS = 200


class QuickstartData(NamedTuple):
    """Pairs with the columns anchor, positive and group.

    Attributes:
        pairs: pairs of the installed packages, shuffled, without near-duplicates of the test pairs.
        test: pairs of the standard library, with the further column name.
        facts: the number of `packages`, of `pairs`, and of near-duplicates that were `removed`.
    """

    pairs: Dataset
    test: Dataset
    facts: dict[str, Any]


def load_pairs() -> QuickstartData:
    """Reads the pairs for training and testing."""
    from spectra_nsa.text.duplicates import near_duplicates
    from spectra_nsa.text.readers.python_env import environment_pairs

    cache = cache_folder("python-env")
    test = environment_pairs("stdlib", cache_dir=cache).dataset
    repeated = near_duplicates(list(test["anchor"]), None) | near_duplicates(list(test["positive"]), None)
    test = test.select(np.flatnonzero(~repeated))  # each question has one right answer
    pairs = environment_pairs("installed", per_package=PER_PACKAGE, cache_dir=cache).dataset
    in_test = near_duplicates(list(pairs["anchor"]), list(test["anchor"]))
    in_test |= near_duplicates(list(pairs["positive"]), list(test["positive"]))
    pairs = pairs.select(np.flatnonzero(~in_test)).shuffle(seed=0)
    facts = {"packages": len(set(pairs["group"])), "removed": int(in_test.sum()), "pairs": len(pairs)}
    return QuickstartData(pairs.select_columns(["anchor", "positive", "group"]), test, facts)


def training_data(pairs: Dataset, *, groups: bool) -> TrainingData:
    """Splits off the dev rows.

    Args:
        pairs: as `load_pairs` returns them.
        groups: whether batches are drawn from one package each.
    """
    from spectra_nsa.training.data.rows import TrainingData

    texts = pairs.select_columns(["anchor", "positive"])
    return TrainingData(
        train=texts.select(range(DEV_ROWS, len(pairs))),
        dev=texts.select(range(DEV_ROWS)),
        dev_kind="pairs",
        quarantined=0,
        groups=list(pairs["group"])[DEV_ROWS:] if groups else None,
    )
