"""The dev metric, which decides which checkpoint is best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from sentence_transformers.sparse_encoder.evaluation import (
    SparseEmbeddingSimilarityEvaluator,
    SparseInformationRetrievalEvaluator,
)

from spectra_nsa.core.precision import autocast
from spectra_nsa.core.strings import DistinctSpellings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers.base.model import BaseModel


class DevEvaluator(BaseEvaluator):
    """One of sentence-transformers' evaluators, run in the training's precision.

    Args:
        dev: pairs (anchor, positive) or scored pairs (sentence1, sentence2, score).
        kind: ``"pairs"`` measures nDCG@10 of each anchor's positive among all; ``"scored"`` Spearman's correlation.
        precision: see `resolve_precision`.
        prompts: those of queries and documents; ``None`` takes the model's. Scored pairs take the model's always.
        sparse: whether the model is a sparse encoder, whose similarity is the dot product.
    """

    greater_is_better = True

    def __init__(
        self,
        dev: Dataset,
        kind: str,
        precision: str,
        prompts: Mapping[Literal["query", "document"], str] | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        self.precision = precision
        own = dict(prompts or {})
        self.inner, key = _retrieval(dev, own, sparse) if kind == "pairs" else _similarity(dev, sparse)
        self.metric = "dev_ndcg@10" if kind == "pairs" else "dev_spearman"
        self._key = key

    def __call__(
        self, model: BaseModel, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        with autocast(model.device.type, self.precision):
            metrics: Any = self.inner(model, None, epoch, steps)
        value = float(metrics[self._key])
        # A model that maps all texts to one vector has no correlation: the same as no relation, and never the best.
        return {self.metric: value if math.isfinite(value) else 0.0}


def _retrieval(dev: Dataset, prompts: Mapping[Any, str], sparse: bool) -> tuple[BaseEvaluator, str]:
    anchors, positives = DistinctSpellings(dev["anchor"]), DistinctSpellings(dev["positive"])
    relevant: dict[str, set[str]] = {}
    for anchor, positive in zip(anchors.numbers, positives.numbers, strict=True):
        relevant.setdefault(f"q{anchor}", set()).add(f"d{positive}")
    kind = SparseInformationRetrievalEvaluator if sparse else InformationRetrievalEvaluator
    evaluator = kind(
        {f"q{number}": text for number, text in enumerate(anchors.texts)},
        {f"d{number}": text for number, text in enumerate(positives.texts)},
        relevant,
        ndcg_at_k=[10],
        map_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[1],
        name="dev",
        write_csv=False,
        score_functions=None,
        query_prompt=prompts.get("query"),
        corpus_prompt=prompts.get("document"),
    )
    return evaluator, f"dev_{'dot' if sparse else 'cosine'}_ndcg@10"


def _similarity(dev: Dataset, sparse: bool) -> tuple[BaseEvaluator, str]:
    kind = SparseEmbeddingSimilarityEvaluator if sparse else EmbeddingSimilarityEvaluator
    evaluator = kind(
        list(dev["sentence1"]),
        list(dev["sentence2"]),
        [float(score) for score in dev["score"]],
        main_similarity="cosine",
        similarity_fn_names=["cosine"],
        name="dev",
        write_csv=False,
    )
    return evaluator, "dev_spearman_cosine"
