from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.collections.mean import MeanTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import check_tasks, tasks_from

from ..test_command import app
from .conftest import CORPUS, QRELS, SMALL_QUERIES

Table = Callable[[str, Any], Path]


def nano(table: Table, *names: str) -> None:
    for name in names:
        for part, rows in (("corpus", CORPUS), ("queries", SMALL_QUERIES), ("qrels", QRELS)):
            table(f"nano/{part}/{name}-00000-of-00001.parquet", rows)


def test_nanobeir_of_a_local_folder_has_every_set_and_the_mean(
    table: Table, tmp_path: Path, dense: DenseSystem, noisy: DenseSystem
) -> None:
    nano(table, "NanoMSMARCO", "NanoSciFact")
    tasks, notes = tasks_from([f"nanobeir={tmp_path / 'nano'}"])
    assert [task.name for task in tasks] == ["NanoMSMARCO", "NanoSciFact", "mean of 2"] and notes == []
    evaluation = evaluate([dense, noisy], tasks, progress=False)
    assert len(dense.model.encoded) == 5  # the sets have the same texts, and the mean encodes nothing
    rows = {(row.name, row.metric): row.value for row in evaluation.results if row.system == "words"}
    assert rows["mean of 2", "ndcg@10"] == pytest.approx(
        (rows["NanoMSMARCO", "ndcg@10"] + rows["NanoSciFact", "ndcg@10"]) / 2
    )
    assert {row.task for row in evaluation.results} == {"nanobeir"}
    differences = {(row.name, row.metric) for row in evaluation.differences}
    assert ("mean of 2", "ndcg@10") in differences and ("NanoSciFact", "ndcg@10") in differences
    chosen, _ = tasks_from([f"nanobeir={tmp_path / 'nano'}:scifact"])
    assert [task.name for task in chosen] == ["NanoSciFact"]


def test_the_interval_of_a_mean_covers_the_spread_of_its_queries() -> None:
    """With independent sets of equal size the variance of the mean is that of a set, divided by their number."""
    rng = np.random.default_rng(0)

    class Fixed(RetrievalTask):
        def __init__(self, values: np.ndarray) -> None:
            self.values = values

        def outcome(self, system: Any) -> Any:
            return SimpleNamespace(per_unit={"mrr": self.values})

    sets = [Fixed(rng.random(400)) for _ in range(4)]
    (result,) = MeanTask("beir", sets).run(SimpleNamespace(name="x")).results  # type: ignore[arg-type]
    assert result.ci is not None and result.n == 1600
    expected = 2 * 1.96 * np.sqrt(sum(one.values.var() / 400 for one in sets)) / 4
    assert result.ci[1] - result.ci[0] == pytest.approx(expected, rel=0.1)


def test_beir_takes_one_set_or_a_folder_of_sets(table: Table, tmp_path: Path) -> None:
    for name in ("one", "two"):
        table(f"{name}/corpus.jsonl", CORPUS)
        table(f"{name}/queries.jsonl", SMALL_QUERIES)
        table(f"{name}/qrels/test.tsv", [])
        (tmp_path / name / "qrels" / "test.tsv").write_text("q0\td0\t1\n")
    assert [task.name for task in tasks_from([f"beir={tmp_path}"])[0]] == ["one", "two", "mean of 2"]
    (task,), _ = tasks_from([f"beir={tmp_path / 'one'}:test"])
    assert (task.kind, task.name) == ("beir", "one")


def test_retrieval_reads_these_layouts_too(table: Table, tmp_path: Path) -> None:
    nano(table, "NanoX")
    (task,), _ = tasks_from([f"retrieval={tmp_path / 'nano'}"])
    assert (task.kind, task.name) == ("retrieval", "NanoX")
    table("half/corpus.jsonl", CORPUS)
    with pytest.raises(SpectraError, match=r"no queries.jsonl|qrels/test.tsv"):
        tasks_from([f"retrieval={tmp_path / 'half'}"])


def test_custom_ranks_pairs_and_folders(table: Table, tmp_path: Path) -> None:
    pairs = table("pairs.jsonl", [{"anchor": f"find {at}", "positive": f"{at} is here"} for at in range(5)])
    nano(table, "NanoX")
    for source, name in ((pairs, f"{tmp_path.name}/pairs"), (tmp_path / "nano", "NanoX")):
        (task,), _ = tasks_from([f"custom={source}"])
        results = task.run(BM25System()).results
        assert (task.kind, task.name) == ("custom", name)
        assert {row.task for row in results} == {"custom"} and results[0].metric == "ndcg@10"


def test_nanobeir_of_the_hub_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, config: str, split: str) -> datasets.Dataset:
        asked.append((name, config, split))
        return datasets.Dataset.from_list({"corpus": CORPUS, "queries": SMALL_QUERIES, "qrels": QRELS}[config])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    tasks, _ = tasks_from(["nanobeir=msmarco,scifact"])
    assert [task.name for task in tasks] == ["NanoMSMARCO", "NanoSciFact", "mean of 2"]
    assert ("sentence-transformers/NanoBEIR-en", "qrels", "NanoSciFact") in asked
    (task,), _ = tasks_from(["nanobeir=lightonai/NanoBEIR-de:nq"])
    assert asked[-1] == ("lightonai/NanoBEIR-de", "qrels", "NanoNQ")
    assert task.run(BM25System()).results[0].value == 1
    with pytest.raises(SpectraError, match="not valid NanoBEIR"):
        tasks_from(["nanobeir=mmarco"])


def test_beir_of_the_hub_through_mteb(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": row["_id"], "title": "T", "text": row["text"]} for row in CORPUS]
    queries = [{"id": row["_id"], "text": row["text"]} for row in SMALL_QUERIES]
    split = {"corpus": rows, "queries": queries, "relevant_docs": {"q0": {"d0": 1}, "gone": {"d1": 1}}}
    stub = SimpleNamespace(load_data=lambda: None, dataset={"default": {"test": split}})
    monkeypatch.setitem(sys.modules, "mteb", SimpleNamespace(get_task=lambda name: stub))  # its import takes seconds
    (task,), _ = tasks_from(["beir=SciFact"])
    outcome = task.run(BM25System())
    assert (task.kind, task.name) == ("beir", "SciFact") and outcome.results[0].n == 1
    assert outcome.queries[0].wanted == ["T apple pie"]


def test_sources_that_do_not_exist_are_refused_early(tmp_path: Path) -> None:
    for kind in ("csn-mteb", "csn-original-999", "cosqa-coir", "nanobeir", "beir"):
        with pytest.raises(SpectraError, match="is not a folder"):
            check_tasks([f"{kind}={tmp_path / 'gone'}"])
    with pytest.raises(UsageError, match="a name is empty"):
        check_tasks(["nanobeir=nq,,scifact"])
    assert check_tasks(["nanobeir=all", "beir=SciFact"]) == [("nanobeir", "all"), ("beir", "SciFact")]


def test_the_command_measures_a_collection(table: Table, tmp_path: Path) -> None:
    nano(table, "NanoMSMARCO")
    run = CliRunner().invoke(
        app, ["bm25", "-t", f"nanobeir={tmp_path / 'nano'}", "--json", "-"], catch_exceptions=False
    )
    document = json.loads(run.stdout)
    assert {(row["task"], row["name"]) for row in document["results"]} == {("nanobeir", "NanoMSMARCO")}
