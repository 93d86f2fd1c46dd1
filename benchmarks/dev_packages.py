"""Docstrings and functions of installed packages for development, with some packages held out.

The standard library, on which the quickstart is evaluated, stays unseen.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.workflows.quickstart.data import PER_PACKAGE

DEV_PACKAGES = {"networkx", "rich", "pip", "setuptools", "datasets", "fsspec"}
DEV_PAIRS = 2_500


def split_packages(pairs: int) -> tuple[Dataset, Dataset]:
    """Returns at most `pairs` training pairs and 2,500 held-out pairs, both shuffled.

    No training pair is a near duplicate of a held-out pair. The columns are anchor, positive and group (the package).
    """
    rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset.shuffle(seed=0)
    is_dev = np.array([group in DEV_PACKAGES for group in rows["group"]])
    dev = rows.select(np.flatnonzero(is_dev)[:DEV_PAIRS])
    rest = rows.select(np.flatnonzero(~is_dev))
    seen = near_duplicates(list(rest["positive"]), list(dev["positive"]))
    return rest.select(np.flatnonzero(~seen)[:pairs]), dev
