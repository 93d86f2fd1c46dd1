from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.collections.code_search_net import DistractorTask, Function
from spectra_nsa.evaluation.collections.protocols import PROTOCOLS, protocol_notes, size_notes
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.evaluation.tasks import TASK_KINDS, tasks_from

Table = Callable[[str, Any], Path]
WORDS = "apple river stone cloud train music paper glass horse light sugar wheel".split()


def function(at: int, *, hub: bool = False) -> dict[str, Any]:
    """A row of CodeSearchNet; `hub` for the columns of the Hub's table."""
    docstring, code = ["return", "the", WORDS[at]], ["def", WORDS[at], "(", ")"]
    if hub:
        return {"func_documentation_tokens": docstring, "func_code_tokens": code, "func_code_url": f"u{at}"}
    text = f'def {WORDS[at]}():\n  """return the {WORDS[at]}"""'
    return {"docstring_tokens": docstring, "code_tokens": code, "url": f"u{at}", "original_string": text}


def test_every_protocol_is_a_kind_of_task() -> None:
    assert set(PROTOCOLS) <= set(TASK_KINDS)


def test_graphcodebert_searches_the_whole_code_base(table: Table, tmp_path: Path) -> None:
    table("python/test.jsonl", [*map(function, range(3)), {**function(4), "url": "gone"}])
    table("python/codebase.jsonl", [*map(function, range(12)), function(1)])
    table("go/test.jsonl", [function(0)])
    table("go/codebase.jsonl", [function(0), function(5)])
    tasks, notes = tasks_from([f"csn-graphcodebert={tmp_path}"])
    assert [(task.kind, task.name) for task in tasks] == [("csn-graphcodebert", "go"), ("csn-graphcodebert", "python")]
    outcome = tasks[1].run(BM25System())
    assert outcome.results[0].metric == "mrr" and outcome.results[0].value == 1 and outcome.results[0].n == 3
    assert outcome.queries[1].wanted == ["def river ( )"] * 2  # the docstring is not in the code
    assert "1 query without words or without a function" in "\n".join(notes)
    assert "the published set has 14,918 and 43,827" in "\n".join(notes)


def test_graphcodebert_counts_the_first_thousand(table: Table, tmp_path: Path) -> None:
    """A function at rank 500 has 1/500: other tasks count the first 100 only."""
    rows = [{"docstring_tokens": ["x"], "code_tokens": [f"w{at}"], "url": f"u{at}"} for at in range(1200)]
    table("codebase.jsonl", rows)
    table("test.jsonl", [rows[499], rows[1100]])
    (task,), _ = tasks_from([f"csn-graphcodebert={tmp_path}"])

    class InOrder:
        name = "in order"

        def search(self, queries: list[str], documents: list[str], k: int) -> Ranking:
            index = np.tile(np.arange(k), (len(queries), 1))
            return Ranking(index=index, scores=(-index).astype(np.float32))

    outcome = task.run(InOrder())
    assert outcome.per_unit["mrr"].tolist() == [pytest.approx(1 / 500), 0]


def test_the_original_protocol_ranks_within_groups() -> None:
    pairs = [Function(query=f"q{at}", code=f"c{at}", url="") for at in range(7)]
    notes: list[str] = []
    task = DistractorTask("python", pairs, kind="csn-original-999", notes=notes, size=3)
    assert notes == ["csn-original-999 on python: the last group of 1 pair is dropped"]
    searched: list[list[str]] = []

    class Backwards:
        name = "backwards"

        def search(self, queries: list[str], documents: list[str], k: int) -> Ranking:
            searched.append(documents)
            index = np.tile(np.arange(k), (len(queries), 1))
            return Ranking(index=index, scores=(-index).astype(np.float32))

    outcome = task.run(Backwards())
    assert [len(group) for group in searched] == [3, 3]
    order = np.arange(7)
    np.random.RandomState(0).shuffle(order)  # as the original code does after np.random.seed(0)
    assert searched[0] == [f"c{at}" for at in order[:3]]
    assert outcome.per_unit["mrr"].tolist() == pytest.approx([1, 1 / 2, 1 / 3] * 2)
    assert outcome.results[0].metric == "mrr" and task.compare(outcome, outcome)["mrr"].value == 0


def test_the_original_protocol_reads_both_public_formats(table: Table, tmp_path: Path) -> None:
    folder = tmp_path / "jsonl" / "python" / "final" / "jsonl"
    (folder / "test").mkdir(parents=True)
    (folder / "train").mkdir()
    for name, rows in (("test/python_test_0", range(5)), ("train/python_train_0", range(5, 12))):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(function(at)) + "\n" for at in rows)
    table("hub/python/test-00000-of-00001.parquet", [function(at, hub=True) for at in range(5)])
    values = []
    for source in ("jsonl", "hub"):
        (task,), notes = tasks_from([f"csn-original-999={tmp_path / source}"])
        assert (task.name, notes) == ("python", ["csn-original-999 on python: 5 pairs give only 4 distractors"])
        values.append(task.run(BM25System()).per_unit["mrr"].tolist())
    assert values[0] == values[1] == [1] * 5
    with pytest.raises(SpectraError, match="test files"):
        tasks_from([f"csn-original-999={folder / 'train'}"])


def test_mteb_reads_one_set_for_each_language(table: Table, tmp_path: Path) -> None:
    for language in ("python", "go"):
        table(
            f"{language}-corpus/test-00000-of-00001.parquet", [{"id": "c0", "text": "a b"}, {"id": "c1", "text": "c"}]
        )
        table(f"{language}-queries/test-00000-of-00001.parquet", [{"id": "q0", "text": "b"}])
        table(f"{language}-qrels/test-00000-of-00001.parquet", [{"query-id": "q0", "corpus-id": "c0", "score": 1}])
    tasks, notes = tasks_from([f"csn-mteb={tmp_path}"])
    assert [(task.kind, task.name) for task in tasks] == [("csn-mteb", "go"), ("csn-mteb", "python")]
    assert tasks[0].run(BM25System()).results[0].metric == "ndcg@10" and "published set has 1,000 and 1,000" in notes[0]


def test_cosqa_keeps_copies_or_merges_them(table: Table, tmp_path: Path) -> None:
    """The same files, two protocols: with copies, a copy of the answer is wrong."""
    corpus = [
        {"_id": f"d{at}", "title": "", "text": text} for at, text in enumerate(["sort list", "sort list", "open"])
    ]
    table("corpus/corpus-00000-of-00001.parquet", corpus)
    table("queries/queries-00000-of-00001.parquet", [{"_id": "q0", "text": "sort a list"}])
    table("default/test-00000-of-00001.parquet", [{"query-id": "q0", "corpus-id": "d1", "score": 1}])
    table("default/train-00000-of-00001.parquet", [{"query-id": "q0", "corpus-id": "d2", "score": 1}])
    tasks, notes = tasks_from([f"cosqa-coir={tmp_path}", f"cosqa-distinct={tmp_path}"])
    evaluation = evaluate([BM25System()], tasks, notes=notes, progress=False)
    mrr = {row.task: row.value for row in evaluation.results if row.metric == "mrr"}
    assert mrr == {"cosqa-coir": 0.75, "cosqa-distinct": 1}  # of two equal texts the answer is first or second
    assert "cosqa-coir: 1 candidate of 3 repeat another one" in evaluation.notes
    note = "cosqa-coir and cosqa-distinct are different protocols of CoSQA: do not compare their figures"
    assert note in evaluation.notes
    (train,), _ = tasks_from([f"cosqa-coir={tmp_path}:train"])
    assert train.run(BM25System()).queries[0].wanted == ["open"]


def test_cosqa_reads_the_files_of_its_authors(tmp_path: Path) -> None:
    (tmp_path / "code_idx_map.txt").write_text(json.dumps({"sort list": 0, "open file": 1}))
    rows = [{"idx": "x", "doc": "sort a list", "code": "sort list", "label": 1, "retrieval_idx": 0}]
    (tmp_path / "cosqa-retrieval-dev-500.json").write_text(json.dumps(rows))
    (task,), notes = tasks_from([f"cosqa-distinct={tmp_path}"])
    assert task.run(BM25System()).per_unit["mrr"].tolist() == [1]
    assert "published set has 500 and 6,267" in notes[0]
    for bad in ([{"doc": "x"}], {"a": 1}, [{"doc": "x", "retrieval_idx": 7}]):
        (tmp_path / "cosqa-retrieval-dev-500.json").write_text(json.dumps(bad))
        with pytest.raises(SpectraError, match=r"CoCLR's format|lacks"):
            tasks_from([f"cosqa-distinct={tmp_path}"])
    with pytest.raises(SpectraError, match="cosqa-retrieval-train"):
        tasks_from([f"cosqa-distinct={tmp_path}:train"])


def test_notes_on_protocols_and_sizes() -> None:
    assert protocol_notes(["csn-mteb", "retrieval", "cosqa-coir", "csn-mteb"]) == []
    (note,) = protocol_notes(["csn-mteb", "csn-original-999", "csn-graphcodebert"])
    assert note.startswith("csn-mteb, csn-original-999 and csn-graphcodebert are different protocols of CodeSearchNet")
    assert size_notes("csn-mteb", "go", 1000, 1000) == [] == size_notes("csn-original-999", "go", 5, 5)
