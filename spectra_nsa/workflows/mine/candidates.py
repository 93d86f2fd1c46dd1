"""The best-scored documents of every anchor, block by block, kept on disk: for other rules, and after a kill."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.console import progress
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.index.topk import ROWS, Found, Own, blocks_of, top_k
from spectra_nsa.text.duplicates import alike
from spectra_nsa.text.negatives import Bools, Floats, Ints, Rules, allowed, chosen, judged
from spectra_nsa.text.pool import Pool
from spectra_nsa.workflows.mine.scorers import Teacher

HITS = Cache("mining-hits", keep=12)
READ_AT_ONCE = 128  # anchors whose candidates a cross-encoder reads between two saves
SAME = 0.8  # the Jaccard similarity of near-duplicates, as in `spectra data preview`


class Negatives(NamedTuple):
    """What was chosen for Q anchors with P distinct pairs.

    Attributes:
        index_QN: documents, best first; −1 where there are fewer.
        scores_QN: the scores of them, by the judge where there is one.
        own_P: the scores of the pairs, by the same.
        candidates: how many documents were looked at.
        dropped: how many of them each rule dropped, in the order of the rules.
    """

    index_QN: Ints
    scores_QN: Floats
    own_P: Floats
    candidates: int
    dropped: Counter[str]


class Candidates:
    """The search of a pool by a model.

    Args:
        pool: anchors and documents.
        teacher: the model.
        depth: candidates an anchor.
    """

    def __init__(self, pool: Pool, teacher: Teacher, depth: int) -> None:
        self.pool, self.teacher = pool, teacher
        self.depth = min(depth, len(pool.documents))
        self.count = blocks_of(len(pool.queries))
        self.facts = {
            "model": teacher.stamp,
            "queries": pool.queries.digest,
            "documents": pool.documents.digest,
            "pairs": hashlib.sha256(pool.own_query_P.tobytes() + pool.own_document_P.tobytes()).hexdigest(),
            "depth": self.depth,
            "rows": ROWS,
        }
        self.blocks = Blocks(HITS.entry(**self.facts))

    def run(self) -> None:
        """Searches what is not there yet."""
        if missing := self.blocks.missing(self.count):
            queries, documents = self.teacher.vectors(self.pool)
            for number in progress(missing, label="searching"):
                found = top_k(queries.block(number), documents, self.depth, self.own(number))
                self.blocks.put(number, **found._asdict())

    def block(self, number: int) -> Found:
        """What one block found."""
        return Found(**_present(self.blocks, number))

    def own(self, number: int) -> Own:
        """The block's anchors with their positives."""
        part = self.pool.own(number * ROWS, (number + 1) * ROWS)
        return Own(self.pool.own_query_P[part] - number * ROWS, self.pool.own_document_P[part])


class Judgements:
    """What a second model thinks of the candidates, in blocks of anchors that are small where it is slow."""

    def __init__(self, candidates: Candidates, judge: Teacher) -> None:
        self.candidates, self.judge = candidates, judge
        self.size = min(READ_AT_ONCE, ROWS) if judge.kind == "cross" else ROWS
        self.count = -(-len(candidates.pool.queries) // self.size)
        self.blocks = Blocks(HITS.entry(**candidates.facts, judge=judge.stamp, size=self.size))

    def pairs(self) -> int:
        """How many pairs are still to be scored, at the most."""
        anchors = len(self.candidates.pool.queries)
        todo = sum(min(self.size, anchors - piece * self.size) for piece in self.blocks.missing(self.count))
        own = len(self.candidates.pool.own_query_P) / anchors
        return round(todo * (self.candidates.depth + own))

    def run(self) -> None:
        """Scores what is not there yet."""
        if missing := self.blocks.missing(self.count):
            score = self.judge.scorer(self.candidates.pool)
            for piece in progress(missing, label="judging"):
                number, start = divmod(piece * self.size, ROWS)
                index_BK = self.candidates.block(number).index_BK[start : start + self.size]
                own = self.candidates.own(number)
                low, high = np.searchsorted(own.query_P, [start, start + self.size])
                query, place = np.nonzero(index_BK >= 0)
                seen = np.concatenate([index_BK[query, place], own.document_P[low:high]])
                scores = score(number, Own(np.concatenate([query + start, own.query_P[low:high]]), seen))
                scores_BK = np.full(index_BK.shape, -np.inf, dtype=np.float32)
                scores_BK[query, place] = scores[: len(query)]
                self.blocks.put(piece, scores_BK=scores_BK, own_P=scores[len(query) :])

    def block(self, number: int) -> tuple[Floats, Floats]:
        """The scores of the candidates of a block of `ROWS` anchors, and of their positives."""
        pieces = range(number * ROWS // self.size, min((number + 1) * ROWS // self.size, self.count))
        found = [_present(self.blocks, piece) for piece in pieces]
        return np.concatenate([one["scores_BK"] for one in found]), np.concatenate([one["own_P"] for one in found])


def choose(candidates: Candidates, judgements: Judgements | None, rules: Rules) -> Negatives:
    """Applies the rules to what the searches have left."""
    size = len(candidates.pool.queries), rules.negatives
    index_QN, scores_QN = np.full(size, -1, dtype=np.int64), np.full(size, -np.inf, dtype=np.float32)
    own_P: list[Floats] = []
    dropped: Counter[str] = Counter()
    seen = 0
    for number in progress(range(candidates.count), label="choosing"):
        found, own = candidates.block(number), candidates.own(number)
        open_BK = allowed(rules, found.scores_BK, _least(own, found.own_P, len(found.index_BK)), dropped)
        scores_BK, scored_P = found.scores_BK, found.own_P
        if judgements is not None:
            scores_BK, scored_P = judgements.block(number)
            judged(rules, open_BK, scores_BK, _least(own, scored_P, len(scores_BK)), dropped)
        first = number * ROWS
        same = _Same(candidates.pool, found.index_BK, own, first)
        place_BN = chosen(rules, open_BK, first, same, dropped)
        rows, taken = slice(first, first + len(place_BN)), place_BN >= 0
        width = place_BN.shape[1]
        index_QN[rows, :width] = np.where(taken, np.take_along_axis(found.index_BK, place_BN, 1), -1)
        scores_QN[rows, :width] = np.where(taken, np.take_along_axis(scores_BK, place_BN, 1), -np.inf)
        own_P.append(scored_P)
        seen += int((found.index_BK[:, rules.range_min :] >= 0).sum())
    return Negatives(index_QN, scores_QN, np.concatenate(own_P), seen, +dropped)


class _Same:
    """Which candidates of a block say what their anchor, or one of its positives, says."""

    def __init__(self, pool: Pool, index_BK: Ints, own: Own, first: int) -> None:
        self.pool, self.index_BK, self.own, self.first = pool, index_BK, own, first

    def __call__(self, query_N: Ints, place_N: Ints) -> Bools:
        low, high = np.searchsorted(self.own.query_P, query_N), np.searchsorted(self.own.query_P, query_N, "right")
        count = high - low
        pair = np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())
        candidate_N = self.index_BK[query_N, place_N]
        documents, a = np.unique(np.concatenate([candidate_N, self.own.document_P[pair]]), return_inverse=True)
        queries, asked = np.unique(query_N, return_inverse=True)
        texts = [*self.pool.documents.get(documents), *self.pool.queries.get(queries + self.first)]
        who = np.arange(len(query_N))
        one = np.concatenate([np.repeat(a[: len(who)], count), a[: len(who)]])
        other = np.concatenate([a[len(who) :], asked + len(documents)])
        hit = alike(texts, one, other, SAME)
        return np.bincount(np.concatenate([np.repeat(who, count), who])[hit], minlength=len(who)) > 0


def _least(own: Own, scores_P: Floats, size: int) -> Floats:
    """The least score of each anchor's positives."""
    least = np.full(size, np.inf, dtype=np.float32)
    np.minimum.at(least, own.query_P, scores_P)
    return least


def _present(blocks: Blocks, number: int) -> dict[str, Any]:
    found = blocks.get(number)
    assert found is not None, f"{blocks.folder} was deleted while it was in use"
    return found
