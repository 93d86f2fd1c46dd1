"""Figures of known models to hold a dev metric against, each with where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One known figure.

    Attributes:
        data: the data set and split.
        model: whose figure.
        value: the figure.
        source: who says so; "published" where others measured it, "measured here" where this project did.
    """

    data: str
    model: str
    value: float
    source: str


_MTEB = "published: MTEB, STSBenchmark"
_STS = "STS-B test"
REFERENCES: Mapping[str, Sequence[Reference]] = {
    "dev_spearman": (
        Reference(_STS, "bge-large-en-v1.5", 0.875, _MTEB),
        Reference(_STS, "bge-base-en-v1.5", 0.864, _MTEB),
        Reference(_STS, "bge-small-en-v1.5", 0.859, _MTEB),
        Reference(_STS, "SimCSE sup. BERT-base", 0.8425, "published: Gao et al. 2021"),
        Reference(_STS, "all-mpnet-base-v2", 0.834, _MTEB),
        Reference(_STS, "all-MiniLM-L6-v2", 0.820, "measured here: docs/explanation/measuring.md"),
        Reference("STS-B dev", "all-MiniLM-L6-v2", 0.867, "measured here: docs/explanation/measuring.md"),
    ),
    "dev_ndcg@10": (
        Reference("CoSQA dev", "all-MiniLM-L6-v2", 0.603, "measured here: docs/explanation/measuring.md"),
        Reference("CoSQA dev", "bm25", 0.393, "measured here: docs/explanation/measuring.md"),
        Reference("python:stdlib", "all-MiniLM-L6-v2", 0.544, "measured here: README.md"),
        Reference("python:stdlib", "bm25", 0.410, "measured here: README.md"),
    ),
}
CAUTION = "on the data named, not on your dev set: comparable only where that is the same"


def references_for(metric: str | None) -> Sequence[Reference]:
    """The known figures of a dev metric, best first within a data set; none for a metric that has none."""
    return REFERENCES.get(metric or "", ())
