"""Seeds of random generators."""

from __future__ import annotations

import random


def set_seed(seed: int) -> None:
    """Seeds Python's, numpy's and torch's generators (torch on every device)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
