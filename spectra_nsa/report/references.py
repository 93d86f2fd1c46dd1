"""Published or measured figures of known models, for comparison with a dev metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One known figure.

    Attributes:
        data: the dataset and split.
        model: the model's name.
        value: the figure.
        source: "published: …" if others measured it, "measured here: …" if this project did.
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
CAUTION = "on the data named, not on your dev set; comparable only if they are the same"


def references_for(metric: str | None) -> Sequence[Reference]:
    """Returns the known figures of a dev metric, best first within a dataset; empty for other metrics."""
    return REFERENCES.get(metric or "", ())
