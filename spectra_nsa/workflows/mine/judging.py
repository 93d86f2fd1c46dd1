"""A second model's scores of the candidates, computed in blocks that stay on disk."""

from __future__ import annotations

import numpy as np

from spectra_nsa.core.console import progress
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.index.topk import IndexPairs
from spectra_nsa.index.vectors import ROWS
from spectra_nsa.workflows.mine.candidates import HITS, CandidateSearch
from spectra_nsa.workflows.mine.rules import Floats
from spectra_nsa.workflows.mine.scorers import Scorer

CROSS_ENCODER_ROWS = 128  # anchors per block if a cross-encoder, which is slow, reads their candidates


class JudgeScores:
    """The judge's scores of candidates and positives.

    Args:
        search: the candidates.
        judge: the model that scores them.
    """

    def __init__(self, search: CandidateSearch, judge: Scorer) -> None:
        self.search, self.judge = search, judge
        self.size = min(CROSS_ENCODER_ROWS, ROWS) if judge.kind == "cross" else ROWS
        self.count = -(-len(search.pool.queries) // self.size)
        self.blocks = Blocks(HITS.entry(**search.key, judge=judge.stamp, size=self.size))

    def pairs_to_score(self) -> int:
        """Returns an upper bound of the number of pairs that have yet to be scored."""
        anchors = len(self.search.pool.queries)
        todo = sum(min(self.size, anchors - number * self.size) for number in self.blocks.missing(self.count))
        positives_per_anchor = len(self.search.pool.own_query_P) / anchors
        return round(todo * (self.search.depth + positives_per_anchor))

    def run(self) -> None:
        """Scores the blocks that are missing."""
        if missing := self.blocks.missing(self.count):
            score = self.judge.pair_scorer(self.search.pool)
            for number in progress(missing, label="judging"):
                search_block, start = divmod(number * self.size, ROWS)
                index_BK = self.search.block(search_block).index_BK[start : start + self.size]
                positives = self.search.positive_pairs(search_block)
                low, high = np.searchsorted(positives.query_P, [start, start + self.size])
                query, rank = np.nonzero(index_BK >= 0)
                pairs = IndexPairs(
                    np.concatenate([query + start, positives.query_P[low:high]]),
                    np.concatenate([index_BK[query, rank], positives.document_P[low:high]]),
                )
                scores = score(search_block, pairs)
                scores_BK = np.full(index_BK.shape, -np.inf, dtype=np.float32)
                scores_BK[query, rank] = scores[: len(query)]
                self.blocks.put(number, scores_BK=scores_BK, positive_P=scores[len(query) :])

    def block(self, number: int) -> tuple[Floats, Floats]:
        """Returns the scores of the candidates of a search block, and of its positives."""
        numbers = range(number * ROWS // self.size, min((number + 1) * ROWS // self.size, self.count))
        parts = [self.blocks.require(part) for part in numbers]
        return (
            np.concatenate([part["scores_BK"] for part in parts]),
            np.concatenate([part["positive_P"] for part in parts]),
        )
