"""Docstrings and functions of installed packages, some packages held out: what choices are made on.

The standard library, which the quickstart is judged on, stays unseen.
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
    """At most `pairs` pairs to train on, none near a held-out one, and 2,500 held-out ones, both in mixed order.

    Columns anchor, positive and group, the package.
    """
    rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset.shuffle(seed=0)
    is_dev = np.array([group in DEV_PACKAGES for group in rows["group"]])
    dev = rows.select(np.flatnonzero(is_dev)[:DEV_PAIRS])
    rest = rows.select(np.flatnonzero(~is_dev))
    seen = near_duplicates(list(rest["positive"]), list(dev["positive"]))
    return rest.select(np.flatnonzero(~seen)[:pairs]), dev
