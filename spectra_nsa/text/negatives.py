"""Which of an anchor's best-scored documents become its hard negatives.

The names are those of sentence-transformers' `mine_hard_negatives`; the margin relative to the positive is the
percentage-to-positive rule of de Souza Moreira et al. (2024, NV-Retriever): with p = 1 − `relative_margin`, a document
with s(n) ≤ p · s(positive) stays. Of several positives of an anchor the one with the least score counts, and all of
its rows get the same negatives. Legend: Q anchors, K candidates of each, best first, N negatives.
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
MOST = 8  # negatives that our reader takes
WIDER = 10  # candidates a negative, where no range is given

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a hard negative must fulfil.

    Attributes:
        negatives: how many a row gets, 1 to 8.
        range_min: how many of the best candidates are passed over. The anchor's positives are no candidates and have no
            rank; a candidate that another rule drops keeps its rank.
        range_max: how many of the best candidates are looked at; ``None`` for 10 a negative beyond `range_min`.
        margin: least distance to the positive's score; ``None`` for no such rule.
        relative_margin: least distance as a share of the positive's score; ``None`` for no such rule.
        max_score: the largest score of a negative; ``None`` for no limit.
        min_score: the smallest; ``None`` for no limit.
        sampling: ``"top"`` takes the best that are left, ``"random"`` any.
        seed: of random sampling.
        judge_ratio: where a second model judges, its score of a negative may be so much of its score of the positive.

    Raises:
        UsageError: a value is out of its range, or the range has fewer candidates than negatives.
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
        if not 1 <= self.negatives <= MOST:
            raise UsageError(f"--negatives must be from 1 to {MOST}, not {self.negatives}.")
        if self.range_min < 0 or self.depth - self.range_min < self.negatives:
            raise UsageError(
                f"the ranks from {self.range_min} to {self.depth} hold fewer than {self.negatives} candidates: "
                "raise --range-max, or lower --range-min or --negatives."
            )
        if self.sampling not in SAMPLING:
            raise unknown_name("--sampling", self.sampling, SAMPLING)
        if self.relative_margin is not None and not 0 <= self.relative_margin < 1:
            raise UsageError(
                f"--relative-margin must be at least 0 and below 1, not {self.relative_margin:g} "
                "(--percentage-to-positive is 1 minus it)."
            )
        if self.margin is not None and self.margin < 0:
            raise UsageError(f"--margin must not be negative, and is {self.margin:g}.")
        if self.max_score is not None and self.min_score is not None and self.max_score < self.min_score:
            raise UsageError(
                f"--max-score {self.max_score:g} is below --min-score {self.min_score:g}: no score lies between."
            )
        if self.judge_ratio <= 0:
            raise UsageError(f"--judge-ratio must be above 0, not {self.judge_ratio:g}.")

    @property
    def depth(self) -> int:
        """How many of the best candidates are looked at."""
        return self.range_min + WIDER * self.negatives if self.range_max is None else self.range_max


def allowed(rules: Rules, scores_QK: Floats, positive_Q: Floats, dropped: Counter[str]) -> Bools:
    """Which candidates the ranks and the scores allow.

    Args:
        rules: see there.
        scores_QK: the candidates', −∞ where there is none.
        positive_Q: the least score of each anchor's positives.
        dropped: gains what each rule drops.
    """
    open_QK = np.isfinite(scores_QK)
    open_QK[:, : rules.range_min] = False
    limits: dict[str, Floats | float | None] = {
        "margin": None if rules.margin is None else positive_Q - rules.margin,
        "relative_margin": None if rules.relative_margin is None else share(positive_Q, 1 - rules.relative_margin),
        "max_score": rules.max_score,
    }
    for name, limit in limits.items():
        if limit is not None:
            _drop(open_QK, scores_QK > np.reshape(limit, (-1, 1)), name, dropped)
    if rules.min_score is not None:
        _drop(open_QK, scores_QK < rules.min_score, "min_score", dropped)
    return open_QK


def judged(rules: Rules, open_QK: Bools, scores_QK: Floats, positive_Q: Floats, dropped: Counter[str]) -> None:
    """Closes what the second model holds for another positive; its scores as for `allowed`."""
    _drop(open_QK, scores_QK > share(positive_Q, rules.judge_ratio)[:, None], "judge", dropped)


def share(score_Q: Floats, part: float) -> Floats:
    """`part` of a score, counted so that less than all of a negative score lies below it too."""
    return (score_Q - np.abs(score_Q) * (1 - part)).astype(np.float32)


def _drop(open_QK: Bools, wrong_QK: Bools, name: str, dropped: Counter[str]) -> None:
    dropped[name] += int((open_QK & wrong_QK).sum())
    open_QK &= ~wrong_QK


def chosen(
    rules: Rules, open_QK: Bools, first: int, same: Callable[[Ints, Ints], Bools], dropped: Counter[str]
) -> Ints:
    """The places of each anchor's negatives among its candidates: (Q, N), best first, −1 where there are fewer.

    Args:
        rules: see there.
        open_QK: the candidates that the other rules allow.
        first: the number of the first anchor, which a random choice depends on.
        same: anchors and candidates by place → which of these candidates say what one of the anchor's positives, or
            the anchor, says. Asked only of candidates that would be chosen, since texts are slow to compare.
        dropped: gains the number of those, as `duplicate`.
    """
    size, depth = open_QK.shape
    order_QK = np.broadcast_to(np.arange(depth), (size, depth))
    if rules.sampling == "random":
        order_QK = np.stack([np.random.default_rng([rules.seed, first + q]).permutation(depth) for q in range(size)])
    open_QK = np.take_along_axis(open_QK, order_QK, 1)
    known_QK = np.zeros_like(open_QK)
    while True:
        taken_QK = open_QK & (np.cumsum(open_QK, axis=1) <= rules.negatives)
        query, place = np.nonzero(taken_QK & ~known_QK)
        if not len(query):
            break
        known_QK[query, place] = True
        wrong = same(query, order_QK[query, place])
        open_QK[query[wrong], place[wrong]] = False
        dropped["duplicate"] += int(wrong.sum())
    places_QK = np.sort(np.where(taken_QK, order_QK, depth), axis=1)[:, : rules.negatives]
    return np.where(places_QK < depth, places_QK, -1)
