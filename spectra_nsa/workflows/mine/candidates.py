"""The best-scored documents of every anchor, searched in blocks that stay on disk.

Other rules reuse them, and a killed run resumes.
"""

from __future__ import annotations

import hashlib

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.console import progress
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.index.topk import IndexPairs, TopHits, top_k
from spectra_nsa.index.vectors import ROWS, block_count
from spectra_nsa.workflows.mine.pool import MiningPool
from spectra_nsa.workflows.mine.scorers import Scorer

HITS = Cache("mining-hits", keep=12)


class CandidateSearch:
    """The search of a pool's documents for its anchors.

    Args:
        pool: anchors and documents.
        scorer: the model that searches.
        depth: candidates per anchor.
    """

    def __init__(self, pool: MiningPool, scorer: Scorer, depth: int) -> None:
        self.pool, self.scorer = pool, scorer
        self.depth = min(depth, len(pool.documents))
        self.count = block_count(len(pool.queries))
        self.key = {
            "model": scorer.stamp,
            "queries": pool.queries.digest,
            "documents": pool.documents.digest,
            "pairs": hashlib.sha256(pool.own_query_P.tobytes() + pool.own_document_P.tobytes()).hexdigest(),
            "depth": self.depth,
            "rows": ROWS,
        }
        self.blocks = Blocks(HITS.entry(**self.key))

    def run(self) -> None:
        """Searches for the anchors of the blocks that are missing."""
        if missing := self.blocks.missing(self.count):
            from spectra_nsa.workflows.mine.gpu import group_search

            queries, documents = self.scorer.vectors(self.pool)
            for number in progress(missing, label="searching"):
                pairs = self.positive_pairs(number)
                hits = top_k(queries.block(number), documents, self.depth, pairs, search_dense=group_search())
                self.blocks.put(number, **hits._asdict())

    def block(self, number: int) -> TopHits:
        """Returns the candidates of one block of anchors, and the scores of its positives."""
        return TopHits(**self.blocks.require(number))

    def positive_pairs(self, number: int) -> IndexPairs:
        """Returns the anchors of a block with their positives."""
        part = self.pool.own(number * ROWS, (number + 1) * ROWS)
        return IndexPairs(self.pool.own_query_P[part] - number * ROWS, self.pool.own_document_P[part])
