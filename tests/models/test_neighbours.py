"""The model in the field's own tools, as it is: sentence-transformers' trainer and evaluators, mteb."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

import spectra_nsa as sp
from spectra_nsa.models.sentence import SpectraSentenceTransformer

TEXTS = ["open a file", "sort the list", "close the socket", "write a token", "read the path", "a number of words"]


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> SpectraSentenceTransformer:
    return sp.warm_start(make_bert(), spectral=True, entity=True)


def test_the_stock_trainer_trains_it(model: SpectraSentenceTransformer, tmp_path: Path) -> None:
    before = model.encode(TEXTS)
    rows = Dataset.from_dict({"anchor": TEXTS * 4, "positive": TEXTS[::-1] * 4})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=3, per_device_train_batch_size=4, learning_rate=1e-3,
        use_cpu=True, report_to="none", disable_tqdm=True,
    )  # fmt: skip
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [32, 16])
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    after = model.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-4
    model.save_pretrained(str(tmp_path / "saved"))
    assert np.abs(sp.load(tmp_path / "saved").encode(TEXTS) - after).max() <= 1e-6


def test_the_stock_evaluators_measure_it(model: SpectraSentenceTransformer) -> None:
    sts = EmbeddingSimilarityEvaluator(TEXTS, TEXTS[1:] + TEXTS[:1], [0.1, 0.9, 0.4, 0.3, 0.2, 0.8])
    assert -1 <= sts(model)["spearman_cosine"] <= 1
    texts = {str(i): text for i, text in enumerate(TEXTS)}
    found = InformationRetrievalEvaluator(texts, texts, {key: {key} for key in texts}, show_progress_bar=False)(model)
    assert found["cosine_accuracy@1"] == 1.0


def test_mteb_runs_on_it(model: SpectraSentenceTransformer) -> None:
    import mteb
    from mteb.mocks import MockClassificationTask, MockRetrievalTask, MockSTSTask

    tasks = [MockRetrievalTask(), MockSTSTask(), MockClassificationTask()]
    found = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
    assert [result.task_name for result in found.task_results] == [task.metadata.name for task in tasks]
    assert all(0 <= result.get_score() <= 1 for result in found.task_results if "STS" not in result.task_name)
