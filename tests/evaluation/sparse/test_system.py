from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array
from sentence_transformers import SparseEncoder
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from typer.testing import CliRunner

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation import systems
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.sources import Sides
from spectra_nsa.evaluation.sparse.sparsity import SparsityTask
from spectra_nsa.evaluation.sparse.system import SparseSystem, nearest_sparse
from spectra_nsa.evaluation.sts import STSTask
from spectra_nsa.metrics.similarity import cosine_pairs, sparse_cosine_pairs
from spectra_nsa.text.rows import RetrievalSet

from ..test_command import app

QUERIES = ["open file", "read socket", "sort the list", "a", "model of a vector"]
DOCUMENTS = ["open the file to read text", "socket and close", "sort list", "query a document", "token vector", "b c d"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [0, 1])
def test_search_agrees_with_brute_force(seed: int, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "_BLOCK", 100)
    rng = np.random.default_rng(seed)
    queries, documents = (
        csr_matrix(random_array((n, 30), density=0.1, rng=rng, dtype=np.float64).astype(np.float32)) for n in (7, 23)
    )
    if levels:  # many exact ties
        queries.data[:], documents.data[:] = 1, 1
    got = nearest_sparse(queries, documents, 5, name="x")
    scores = queries.toarray() @ documents.toarray().T
    best = np.sort(scores, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(got.scores, np.where(best > 0, best, -np.inf), rtol=1e-6)
    for row, index in enumerate(got.index):
        hits = index[index >= 0]
        assert len(set(hits)) == len(hits) == min(5, (scores[row] > 0).sum())
        np.testing.assert_allclose(scores[row, hits], got.scores[row, : len(hits)], rtol=1e-6)


def test_texts_without_terms_are_counted() -> None:
    queries, documents = csr_matrix([[1.0, 0], [0, 0]]), csr_matrix([[0.0, 0], [0, 0], [2, 0]])
    ranking = nearest_sparse(queries, documents, 2, name="m")
    assert ranking.index.tolist() == [[2, -1], [-1, -1]]
    assert ranking.notes == (
        "m: 1 query of 2 without any term: without hits",
        "m: 2 documents of 3 without any term: never found",
    )


def test_texts_with_a_stand_in_are_counted(sparse_folder: Callable[..., Path]) -> None:
    """With a bias far below 0 no logit is positive, so our encoder takes the strongest token of each text."""
    system = open_system(sparse_folder())
    assert isinstance(system, SparseSystem)
    system.model.masked_lm().cls.predictions.bias.data.fill_(-1e3)
    ranking = system.search(QUERIES, DOCUMENTS, 2)
    assert ranking.notes == (
        "splade: 5 queries of 5 got no term from the model: the strongest token stands for the text",
        "splade: 6 documents of 6 got no term from the model: the strongest token stands for the text",
    )
    outcome = SparsityTask(Sides(name="toy", queries=QUERIES, documents=DOCUMENTS)).run(system)
    assert {row.metric: row.value for row in outcome.results}["query_empty"] == 5


@pytest.mark.parametrize("inference_free", [False, True])
@pytest.mark.parametrize("limits", [(None, None), (2, 3)])
def test_rows_equal_the_library_s_in_each_role(
    inference_free: bool, limits: tuple[int | None, int | None], sparse_folder: Callable[..., Path]
) -> None:
    folder = sparse_folder(inference_free=inference_free)
    stock = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    expected = [
        stock.encode_query(QUERIES, max_active_dims=limits[0]).to_dense().numpy(),
        stock.encode_document(DOCUMENTS, max_active_dims=limits[1]).to_dense().numpy(),
    ]
    opened = open_system(folder, query_active=limits[0], document_active=limits[1])
    assert isinstance(opened, SparseSystem)
    by_stock = SparseSystem("stock", stock, query_active=limits[0], document_active=limits[1], batch_size=2)
    for system in (opened, by_stock):
        for rows, wanted in zip(system.sparse_rows(QUERIES, DOCUMENTS), expected, strict=True):
            assert rows.dtype == np.float32 and rows.has_sorted_indices
            np.testing.assert_allclose(rows.toarray(), wanted, atol=1e-5)
    if inference_free:  # the words of the prompt and the query, and nothing else
        found = stock.tokenizer.convert_ids_to_tokens(opened.encode_queries(QUERIES[:1]).indices.tolist())
        assert set(found) <= {"read", "open", "file"} and len(found) == (limits[0] or 3)


def test_figures_are_the_library_s(sparse_folder: Callable[..., Path]) -> None:
    folder = sparse_folder(inference_free=True)
    queries, corpus = (
        {f"{side}{at}": text for at, text in enumerate(texts)} for side, texts in (("q", QUERIES), ("d", DOCUMENTS))
    )
    qrels = {query: {f"d{at}": 1} for at, query in enumerate(queries)}
    stock = SparseEncoder(str(folder), device="cpu", local_files_only=True, similarity_fn_name="dot")
    relevant = {query: set(judged) for query, judged in qrels.items()}
    evaluator = SparseInformationRetrievalEvaluator(queries, corpus, relevant, name="x", batch_size=2)
    theirs = evaluator(stock)
    outcome = RetrievalTask(RetrievalSet(name="x", corpus=corpus, queries=queries, qrels=qrels)).run(
        open_system(folder)
    )
    ours = {result.metric: result.value for result in outcome.results}
    assert ours["ndcg@10"] == pytest.approx(theirs["x_dot_ndcg@10"])
    assert ours["mrr@10"] == pytest.approx(theirs["x_dot_mrr@10"])


def test_stock_encoders_hold_a_few_batches_at_a_time(
    sparse_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock `SparseEncoder` keeps a dense row for each text of a call, so a call never gets the whole corpus."""
    stock = SparseEncoder(str(sparse_folder(inference_free=True)), device="cpu", local_files_only=True)
    calls: list[int] = []
    encode = stock.encode_document
    monkeypatch.setattr(
        stock, "encode_document", lambda texts, **options: (calls.append(len(texts)), encode(texts, **options))[1]
    )
    rows = SparseSystem("stock", stock, batch_size=2).encode_documents(DOCUMENTS * 10)
    assert calls == [16, 16, 16, 12] and rows.shape[0] == 60
    np.testing.assert_allclose(rows[6:12].toarray(), rows[:6].toarray(), atol=1e-6)
    assert SparseSystem("stock", stock).encode_documents([]).shape == (0, rows.shape[1])


def test_options_of_the_other_kind_are_refused(
    sparse_folder: Callable[..., Path], make_bert: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match="--query-active"):
        open_system(sparse_folder(), dim=8)
    with pytest.raises(UsageError, match="--dim"):
        open_system(make_bert(), query_active=8)


def test_a_masked_lm_is_measured_before_training(
    sparse_folder: Callable[..., Path], make_bert: Callable[..., Path]
) -> None:
    folder = sparse_folder()
    untrained, saved = open_system(f"splade:{folder}"), open_system(folder)
    assert isinstance(untrained, SparseSystem) and isinstance(saved, SparseSystem)
    assert untrained.name == f"splade:{folder}"
    assert (untrained.encode_documents(DOCUMENTS) != saved.encode_documents(DOCUMENTS)).nnz == 0
    with pytest.raises(SpectraError, match="no masked-LM head"):
        open_system(f"splade:{make_bert()}")


def test_weights_that_are_not_finite_give_no_figure(sparse_folder: Callable[..., Path]) -> None:
    stock = SparseEncoder(str(sparse_folder(inference_free=True)), device="cpu", local_files_only=True)
    stock[0].sub_modules["query"][0].weight.data[:] = np.inf
    with pytest.raises(SpectraError, match="hold NaN or infinity"):
        SparseSystem("broken", stock).encode_queries(["open file"])


def test_command_measures_sparse_encoders_beside_others(sparse_folder: Callable[..., Path], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"anchor": query, "positive": document} for query, document in zip(QUERIES, DOCUMENTS, strict=False)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = [str(sparse_folder(inference_free=free)) for free in (False, True)]
    arguments = [names[0], "-b", names[1], "-b", "bm25", "-t", f"pairs={pairs}", "-t", f"statistics={pairs}"]
    run = CliRunner().invoke(app, [*arguments, "--document-active", "3", "--json", "-"], catch_exceptions=False)
    document = json.loads(run.stdout)
    found = {row["system"] for row in document["results"] if row["metric"] == "ndcg@10"}
    assert found == {"splade@all,3", "free", "bm25"}
    assert any("free has no dense vectors, but statistics needs them" in note for note in document["notes"])


def test_sts_correlates_the_cosines_of_sparse_queries(sparse_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = sparse_folder(inference_free=True)
    first, second, scores = [*QUERIES, "a"], [*DOCUMENTS[:5], "sort"], [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    task = STSTask("toy", first, second, scores)
    outcome = task.run(open_system(str(folder)))
    model = SparseEncoder(str(folder), device="cpu")
    left, right = (np.asarray(model.encode_query(side).to_dense()) for side in (first, second))
    np.testing.assert_allclose(outcome.per_unit["cosine"], cosine_pairs(left, right), atol=1e-6)
    assert [result.metric for result in outcome.results] == ["spearman", "pearson"] and outcome.results[0].n == 6
    empty = csr_matrix((1, 4))
    assert sparse_cosine_pairs(empty, empty).tolist() == [0.0]


def test_an_evaluation_that_measures_nothing_fails(tmp_path: Path) -> None:
    rows = tmp_path / "sts.jsonl"
    line = {"sentence1": "open a file", "sentence2": "close it", "score": 0.5}
    rows.write_text("".join(json.dumps(line) + "\n" for _ in range(3)))
    with pytest.raises(SpectraError, match=r"nothing was measured. sts on .*bm25 has no vectors of single texts"):
        CliRunner().invoke(app, ["bm25", "-t", f"sts={rows}"], catch_exceptions=False)
