"""A quick check on pairs: whether an anchor is closer to its positive than to the positive of another pair."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.detection import auroc
from spectra_nsa.metrics.similarity import cosine_pairs

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class PairCheck:
    """The cosines of N pairs.

    Attributes:
        positive: (N,) cosine of each anchor with its positive.
        negative: (N,) cosine of each anchor with the positive of another pair.
        closer: (N,) 1 if its own positive is closer, ½ for a tie, 0 otherwise.
        auroc: the AUROC of positive against negative cosines over all pairs.
    """

    positive: np.ndarray
    negative: np.ndarray
    closer: np.ndarray
    auroc: float


def draw_negatives(keys: Sequence[Hashable], *, seed: int = 0) -> np.ndarray:
    """Draws for each row a row with a different key.

    Args:
        keys: N keys, such as the texts of the positives: a row with the same positive is not a negative.
        seed: the seed of the draw. A draw with the same key is repeated, up to 20 times.

    Returns:
        (N,) row numbers, −1 if no row was found.
    """
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    generator = np.random.default_rng(seed)
    chosen = np.full(len(codes), -1)
    open_rows = np.arange(len(codes))
    for _ in range(20):
        if not len(open_rows):
            break
        draw = generator.integers(0, len(codes), size=len(open_rows))
        good = codes[draw] != codes[open_rows]
        chosen[open_rows[good]] = draw[good]
        open_rows = open_rows[~good]
    return chosen


def pair_check(
    anchors: np.ndarray, positives: np.ndarray, *, negatives: np.ndarray | None = None, seed: int = 0
) -> PairCheck:
    """Compares the cosine of each anchor with its positive and with the positive of another pair.

    Args:
        anchors: (N, D).
        positives: (N, D).
        negatives: (N,) the row of `positives` to compare with, as from `draw_negatives`; −1 skips the pair. ``None``
            draws any other row.
        seed: the seed of that draw.

    Raises:
        SpectraError: there are fewer than two pairs, or no pair has a negative.
    """
    import numpy as np

    rows = draw_negatives(range(len(anchors)), seed=seed) if negatives is None else np.asarray(negatives)
    usable = rows >= 0
    if len(anchors) < 2 or not usable.any():
        raise SpectraError("the pair check needs at least two pairs with different positives.")
    positive = cosine_pairs(anchors[usable], positives[usable])
    negative = cosine_pairs(anchors[usable], positives[rows[usable]])
    closer = (positive > negative) + 0.5 * (positive == negative)
    return PairCheck(positive=positive, negative=negative, closer=closer, auroc=auroc(positive, negative))
