"""Which candidates become negatives: the rules applied to the scores of search and judge."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from spectra_nsa.core.console import progress
from spectra_nsa.index.topk import IndexPairs
from spectra_nsa.index.vectors import ROWS
from spectra_nsa.text.duplicates import alike
from spectra_nsa.workflows.mine.candidates import CandidateSearch
from spectra_nsa.workflows.mine.judging import JudgeScores
from spectra_nsa.workflows.mine.pool import MiningPool
from spectra_nsa.workflows.mine.rules import Bools, Floats, Ints, Rules, allowed, chosen, judged

DUPLICATE_JACCARD = 0.8  # the Jaccard similarity of near-duplicates, as in `spectra data preview`


class Negatives(NamedTuple):
    """The negatives of Q anchors with P distinct positive pairs.

    Attributes:
        index_QN: document indices, best first; −1 if there are fewer than N.
        scores_QN: their scores, by the judge if there is one.
        positive_P: the scores of the positive pairs, by the same model.
        candidates: how many documents were considered.
        dropped: how many of them each rule dropped, in the order of the rules.
    """

    index_QN: Ints
    scores_QN: Floats
    positive_P: Floats
    candidates: int
    dropped: Counter[str]


def select_negatives(search: CandidateSearch, judge: JudgeScores | None, rules: Rules) -> Negatives:
    """Applies the rules to the candidates of a finished search, and to the judge's scores if there are any."""
    size = len(search.pool.queries), rules.negatives
    index_QN, scores_QN = np.full(size, -1, dtype=np.int64), np.full(size, -np.inf, dtype=np.float32)
    positive_P: list[Floats] = []
    dropped: Counter[str] = Counter()
    candidates = 0
    for number in progress(range(search.count), label="choosing"):
        hits, pairs = search.block(number), search.positive_pairs(number)
        scores_BK, block_positive_P = hits.scores_BK, hits.excluded_P
        allowed_BK = allowed(rules, scores_BK, _lowest(pairs, block_positive_P, len(scores_BK)), dropped)
        if judge is not None:
            scores_BK, block_positive_P = judge.block(number)
            judged(rules, allowed_BK, scores_BK, _lowest(pairs, block_positive_P, len(scores_BK)), dropped)
        first = number * ROWS
        duplicates = _NearDuplicates(search.pool, hits.index_BK, pairs, first)
        rank_BN = chosen(rules, allowed_BK, first, duplicates, dropped)
        rows, filled, width = slice(first, first + len(rank_BN)), rank_BN >= 0, rank_BN.shape[1]
        index_QN[rows, :width] = np.where(filled, np.take_along_axis(hits.index_BK, rank_BN, 1), -1)
        scores_QN[rows, :width] = np.where(filled, np.take_along_axis(scores_BK, rank_BN, 1), -np.inf)
        positive_P.append(block_positive_P)
        candidates += int((hits.index_BK[:, rules.range_min :] >= 0).sum())
    return Negatives(index_QN, scores_QN, np.concatenate(positive_P), candidates, +dropped)


class _NearDuplicates:
    """Finds candidates of a block that are near-duplicates of their anchor or of one of its positives."""

    def __init__(self, pool: MiningPool, index_BK: Ints, positives: IndexPairs, first: int) -> None:
        self.pool, self.index_BK, self.positives, self.first = pool, index_BK, positives, first

    def __call__(self, query_N: Ints, rank_N: Ints) -> Bools:
        """Returns which of the candidates, each by its anchor's index in the block and its rank, are duplicates."""
        query_P = self.positives.query_P
        low, high = np.searchsorted(query_P, query_N), np.searchsorted(query_P, query_N, "right")
        count = high - low
        pair = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
        candidate_N = self.index_BK[query_N, rank_N]
        both = np.concatenate([candidate_N, self.positives.document_P[pair]])
        documents, document_text = np.unique(both, return_inverse=True)
        queries, query_text = np.unique(query_N, return_inverse=True)
        texts = [*self.pool.documents.get(documents), *self.pool.queries.get(queries + self.first)]
        size = len(query_N)
        # Each candidate is compared with the positives of its anchor, then with the anchor.
        left = np.concatenate([np.repeat(document_text[:size], count), document_text[:size]])
        right = np.concatenate([document_text[size:], query_text + len(documents)])
        candidate = np.concatenate([np.repeat(np.arange(size), count), np.arange(size)])
        return np.bincount(candidate[alike(texts, left, right, DUPLICATE_JACCARD)], minlength=size) > 0


def _lowest(pairs: IndexPairs, scores_P: Floats, size: int) -> Floats:
    """Returns the lowest score of each anchor's positives."""
    lowest = np.full(size, np.inf, dtype=np.float32)
    np.minimum.at(lowest, pairs.query_P, scores_P)
    return lowest
