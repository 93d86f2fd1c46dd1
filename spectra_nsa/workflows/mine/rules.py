"""The selection of hard negatives from the best-scored documents of each anchor.

The names are those of `mine_hard_negatives` in sentence-transformers. The margin relative to the positive is the
percentage-to-positive rule of de Souza Moreira et al. (2024, NV-Retriever): with p = 1 − `relative_margin`, a document
with s(n) ≤ p · s(positive) is kept. If an anchor has several positives, the lowest-scored one counts, and all of its
rows get the same negatives. Legend: Q anchors, K candidates per anchor, best first, N negatives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import UsageError, unknown_name

SAMPLING = ("top", "random")
MAX_NEGATIVES = 8  # as many as the reader accepts
CANDIDATES_PER_NEGATIVE = 10  # if no range is given

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules for hard negatives.

    Attributes:
        negatives: the number of negatives per row, 1 to 8.
        range_min: the number of best candidates to skip. The positives of the anchor are not candidates and have no
            rank. A candidate that another rule drops keeps its rank.
        range_max: the number of best candidates to consider; ``None`` for 10 per negative after `range_min`.
        margin: the minimum distance to the score of the positive; ``None`` for no such rule.
        relative_margin: the minimum distance as a fraction of the score of the positive; ``None`` for no such rule.
        max_score: the maximum score of a negative; ``None`` for no limit.
        min_score: the minimum score of a negative; ``None`` for no limit.
        sampling: ``"top"`` selects the best remaining candidates, ``"random"`` any of them.
        seed: the seed of random sampling.
        judge_ratio: with a second model as judge, the maximum score of a negative as a fraction of the score of the
            positive, both by the judge.

    Raises:
        UsageError: a value is out of range, or there are fewer candidates than negatives.
    """

    negatives: int = 1
    range_min: int = 0
    range_max: int | None = None
    margin: float | None = None
    relative_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    sampling: Literal["top", "random"] = "top"
    seed: int = 0
    judge_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.negatives <= MAX_NEGATIVES:
            raise UsageError(f"--negatives must be from 1 to {MAX_NEGATIVES}, not {self.negatives}.")
        if self.range_min < 0 or self.depth - self.range_min < self.negatives:
            raise UsageError(
                f"ranks {self.range_min} to {self.depth} contain fewer than {self.negatives} candidates: "
                "increase --range-max, or decrease --range-min or --negatives."
            )
        if self.sampling not in SAMPLING:
            raise unknown_name("--sampling", self.sampling, SAMPLING)
        if self.relative_margin is not None and not 0 <= self.relative_margin < 1:
            raise UsageError(
                f"--relative-margin must be at least 0 and below 1, not {self.relative_margin:g} "
                "(--percentage-to-positive is 1 minus it)."
            )
        if self.margin is not None and self.margin < 0:
            raise UsageError(f"--margin must not be negative, got {self.margin:g}.")
        if self.max_score is not None and self.min_score is not None and self.max_score < self.min_score:
            raise UsageError(
                f"--max-score {self.max_score:g} is below --min-score {self.min_score:g}: no score lies between them."
            )
        if self.judge_ratio <= 0:
            raise UsageError(f"--judge-ratio must be above 0, not {self.judge_ratio:g}.")

    @property
    def depth(self) -> int:
        """The number of best candidates to consider."""
        return self.range_min + CANDIDATES_PER_NEGATIVE * self.negatives if self.range_max is None else self.range_max


def allowed(rules: Rules, scores_QK: Floats, positive_Q: Floats, dropped: Counter[str]) -> Bools:
    """Marks the candidates that the rules on ranks and scores allow.

    Args:
        rules: the rules.
        scores_QK: the scores of the candidates, −∞ for a missing candidate.
        positive_Q: the lowest score among the positives of each anchor.
        dropped: a counter that receives the number of candidates each rule drops.

    Returns:
        (Q, K) bool.
    """
    open_QK = np.isfinite(scores_QK)
    open_QK[:, : rules.range_min] = False
    limits: dict[str, Floats | float | None] = {
        "margin": None if rules.margin is None else positive_Q - rules.margin,
        "relative_margin": None
        if rules.relative_margin is None
        else fraction_of(positive_Q, 1 - rules.relative_margin),
        "max_score": rules.max_score,
    }
    for name, limit in limits.items():
        if limit is not None:
            _drop(open_QK, scores_QK > np.reshape(limit, (-1, 1)), name, dropped)
    if rules.min_score is not None:
        _drop(open_QK, scores_QK < rules.min_score, "min_score", dropped)
    return open_QK


def judged(rules: Rules, open_QK: Bools, scores_QK: Floats, positive_Q: Floats, dropped: Counter[str]) -> None:
    """Drops the candidates that the judge scores like a positive.

    Args:
        rules: the rules.
        open_QK: the candidates still allowed; changed in place.
        scores_QK, positive_Q, dropped: as for `allowed`, with the scores of the judge.
    """
    _drop(open_QK, scores_QK > fraction_of(positive_Q, rules.judge_ratio)[:, None], "judge", dropped)


def fraction_of(score_Q: Floats, fraction: float) -> Floats:
    """Returns a fraction of each score. Below 1 it is lower than the score, even if the score is negative."""
    return (score_Q - np.abs(score_Q) * (1 - fraction)).astype(np.float32)


def _drop(open_QK: Bools, wrong_QK: Bools, name: str, dropped: Counter[str]) -> None:
    dropped[name] += int((open_QK & wrong_QK).sum())
    open_QK &= ~wrong_QK


def chosen(
    rules: Rules, open_QK: Bools, first: int, same: Callable[[Ints, Ints], Bools], dropped: Counter[str]
) -> Ints:
    """Selects the negatives of each anchor.

    Args:
        rules: the rules.
        open_QK: the candidates that the other rules allow.
        first: the number of the first anchor; it seeds the random selection.
        same: anchors and the ranks of candidates → which candidates duplicate the anchor or one of its positives. It is
            called only for candidates that would be selected, because comparing texts is slow.
        dropped: a counter that receives the number of duplicates, as `duplicate`.

    Returns:
        (Q, N) ranks of the negatives among the candidates, best first; −1 if there are fewer.
    """
    size, depth = open_QK.shape
    order_QK = np.broadcast_to(np.arange(depth), (size, depth))
    if rules.sampling == "random":
        order_QK = np.stack([np.random.default_rng([rules.seed, first + q]).permutation(depth) for q in range(size)])
    open_QK = np.take_along_axis(open_QK, order_QK, 1)
    checked_QK = np.zeros_like(open_QK)
    while True:
        selected_QK = open_QK & (np.cumsum(open_QK, axis=1) <= rules.negatives)
        query, position = np.nonzero(selected_QK & ~checked_QK)
        if not len(query):
            break
        checked_QK[query, position] = True
        duplicate = same(query, order_QK[query, position])
        open_QK[query[duplicate], position[duplicate]] = False
        dropped["duplicate"] += int(duplicate.sum())
    ranks_QK = np.sort(np.where(selected_QK, order_QK, depth), axis=1)[:, : rules.negatives]
    return np.where(ranks_QK < depth, ranks_QK, -1)
