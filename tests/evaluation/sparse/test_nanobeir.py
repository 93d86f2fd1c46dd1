from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.evaluation import SparseNanoBEIREvaluator

from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.tasks import tasks_from

from .test_system import DOCUMENTS, QUERIES


def test_figures_are_those_of_the_library_s_evaluator(
    sparse_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sets with the same texts and different answers, in the place of the Hub's."""
    import datasets

    corpus = [{"_id": f"d{at}", "text": text} for at, text in enumerate(DOCUMENTS)]
    queries = [{"_id": f"q{at}", "text": text} for at, text in enumerate(QUERIES)]

    def load_dataset(name: str, config: str, split: str) -> datasets.Dataset:
        shift = 1 if split == "NanoNQ" else 0
        qrels = [{"query-id": f"q{at}", "corpus-id": f"d{at + shift}"} for at in range(len(QUERIES))]
        return datasets.Dataset.from_list({"corpus": corpus, "queries": queries, "qrels": qrels}[config])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    folder = sparse_folder(inference_free=True)
    stock = SparseEncoder(str(folder), device="cpu", local_files_only=True, similarity_fn_name="dot")
    theirs = SparseNanoBEIREvaluator(dataset_names=["nq", "scifact"], write_csv=False)(stock)
    tasks, _ = tasks_from(["nanobeir=nq,scifact"])
    ours = {
        (row.name, row.metric): row.value
        for row in evaluate([open_system(folder)], tasks, progress=False).results
        if row.metric in ("ndcg@10", "mrr@10")
    }
    for name, theirs_name in (("NanoNQ", "NanoNQ"), ("NanoSciFact", "NanoSciFact"), ("mean of 2", "NanoBEIR_mean")):
        for metric in ("ndcg@10", "mrr@10"):
            assert ours[name, metric] == pytest.approx(theirs[f"{theirs_name}_dot_{metric}"], abs=1e-6)
