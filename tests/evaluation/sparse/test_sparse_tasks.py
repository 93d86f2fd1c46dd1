from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from typer.testing import CliRunner

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.outcome import UnsuitableSystem
from spectra_nsa.evaluation.performance import PerformanceTask
from spectra_nsa.evaluation.sources import Sides, Sources
from spectra_nsa.evaluation.sparse.attribution import attribute
from spectra_nsa.evaluation.sparse.sparsity import SparsityTask
from spectra_nsa.evaluation.sparse.system import SparseSystem
from spectra_nsa.evaluation.sparse.token_importance import TokenImportanceTask
from spectra_nsa.evaluation.systems import DenseSystem

from ..test_command import app
from .test_system import DOCUMENTS, QUERIES

SIDES = Sides(name="toy", queries=QUERIES, documents=DOCUMENTS)


def test_sparsity_describes_both_sides(sparse_folder: Callable[..., Path]) -> None:
    system = open_system(sparse_folder(inference_free=True))
    assert isinstance(system, SparseSystem)
    outcome = SparsityTask(SIDES).run(system)
    figures = {result.metric: result.value for result in outcome.results}
    queries, documents = (rows.toarray() != 0 for rows in system.sparse_rows(QUERIES, DOCUMENTS))
    assert figures["query_active"] == pytest.approx(queries.sum(1).mean())
    assert figures["document_sparsity"] == pytest.approx(1 - documents.mean())
    assert figures["flops"] == pytest.approx((queries.astype(int) @ documents.T.astype(int)).mean())
    shares = documents.mean(0)
    assert figures["max_document_frequency"] == pytest.approx(shares.max())
    assert figures["terms_in_half"] == (shares > 0.5).sum()
    top = outcome.details["top_terms"]
    assert top[0]["document_frequency"] == pytest.approx(shares.max())
    assert top[0]["term"] == system.model.tokenizer.convert_ids_to_tokens(int(np.argmax(shares)))
    assert outcome.details["quantiles"]["document_active"]["p100"] == documents.sum(1).max()


def test_sparsity_of_bm25_and_of_dense_models(dense: DenseSystem) -> None:
    outcome = SparsityTask(SIDES).run(BM25System())
    figures = {result.metric: result.value for result in outcome.results}
    assert figures["document_active"] == pytest.approx(np.mean([len(set(text.split())) for text in DOCUMENTS]))
    assert "list" in {row["term"] for row in outcome.details["top_terms"]}
    with pytest.raises(UnsuitableSystem, match="no sparse vectors"):
        SparsityTask(SIDES).run(dense)


@pytest.mark.parametrize("pooling", ["max", "sum", "static"])
def test_attribution_explains_every_weight(pooling: str, sparse_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Compares with the activations of all tokens, computed from the logits of transformers' model."""
    import torch
    from transformers import AutoModelForMaskedLM

    folder = sparse_folder(inference_free=pooling == "static")
    role = "query" if pooling == "static" else "document"
    model = SparseEncoder(str(folder), device="cpu", local_files_only=True)
    if pooling == "sum":
        transformer = Transformer(str(folder), transformer_task="fill-mask")
        model = SparseEncoder(modules=[transformer, SpladePooling("sum")], device="cpu")
    text = "open the file, then sort it"
    row = getattr(model, f"encode_{role}")([text]).to_dense().numpy()[0]
    found = attribute(model, text, role, row)
    assert found is not None and found.heat.sum() == pytest.approx(row.sum(), rel=1e-5)
    np.testing.assert_allclose(found.weights, np.sort(row[row > 0])[::-1])
    assert [found.text[slice(*span)] for span in found.spans if span != (0, 0)][-2:] == ["i", "t"]
    if pooling == "static":
        assert found.own.all() and found.text.startswith("read ")
        assert all(
            found.tokens[at] == model.tokenizer.convert_ids_to_tokens(int(term))
            for at, term in zip(found.sources, found.terms, strict=True)
        )
        return
    masked_lm = AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = masked_lm(**model.tokenizer([text], return_tensors="pt")).logits[0].numpy()
    activations = np.log1p(np.maximum(logits, 0))
    pooled = activations.max(0) if pooling == "max" else activations.sum(0)
    np.testing.assert_allclose(pooled, row, atol=1e-5)
    assert found.sources.tolist() == activations.argmax(0)[found.terms].tolist()


def test_token_importance_names_expansions(sparse_folder: Callable[..., Path], dense: DenseSystem) -> None:
    system = open_system(sparse_folder(), document_active=5)
    outcome = TokenImportanceTask(SIDES).run(system)
    texts = outcome.details["texts"]
    assert [row["role"] for row in texts] == ["query"] * 5 + ["document"] * 6
    assert max(len(row["terms"]) for row in texts[5:]) == 5
    for row in texts:
        words = set(row["input"].split())
        assert all(
            term["expansion"] == (term["term"] not in words)
            for term in row["terms"]
            if term["term"].isalpha() and len(term["term"]) > 1
        )
        assert row["input"] == ("read " if row["role"] == "query" else "") + row["text"]
    assert len(outcome.panels) == 11
    for panel in outcome.panels:
        pieces = panel.pieces  # type: ignore[attr-defined]
        text = "".join(piece for piece, _, _ in pieces if not piece.startswith("["))
        assert text in {row["input"] for row in texts}
    json.dumps(outcome.details, allow_nan=False)
    with pytest.raises(UnsuitableSystem, match="no sparse encoder"):
        TokenImportanceTask(SIDES).run(dense)


def test_performance_times_both_sides(sparse_folder: Callable[..., Path], dense: DenseSystem) -> None:
    for system in (dense, open_system(sparse_folder(inference_free=True))):
        outcome = PerformanceTask(SIDES, repeats=2).run(system)
        figures = {result.metric: result.value for result in outcome.results}
        for side in ("query", "document"):
            timing = outcome.details[side]
            assert len(timing["seconds"]) == 2 and timing["texts"] == len(QUERIES if side == "query" else DOCUMENTS)
            assert figures[f"{side}_texts_per_second"] == pytest.approx(timing["texts"] / np.median(timing["seconds"]))
            assert 0 < figures[f"{side}_latency_p50_ms"] <= figures[f"{side}_latency_p95_ms"]
            assert timing["memory_mb"] is None or timing["memory_mb"] >= 0
        json.dumps(outcome.details, allow_nan=False)
    with pytest.raises(UnsuitableSystem, match="encodes no texts"):
        PerformanceTask(SIDES).run(BM25System())


def test_performance_does_not_time_a_cache(sparse_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    system = open_system(sparse_folder())
    assert isinstance(system, SparseSystem)
    system.search(QUERIES, DOCUMENTS, 2)
    calls: list[int] = []
    encode = system._encode
    monkeypatch.setattr(system, "_encode", lambda role, texts: (calls.append(len(texts)), encode(role, texts))[1])
    system.search(QUERIES, DOCUMENTS, 2)
    assert calls == []  # the rows of the same texts are kept between tasks
    PerformanceTask(SIDES, repeats=2).run(system)
    assert calls.count(len(DOCUMENTS)) >= 3


def test_sides_of_each_kind_of_source(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("open file\nread text\nopen file\n")
    (tmp_path / "pairs.jsonl").write_text(
        '{"anchor": "a b", "positive": "c d"}\n{"anchor": "a b", "positive": "e f"}\n'
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "text": "apple"}\n{"_id": "e", "text": ""}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "fruit"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("q\td\t1\n")
    sources = Sources()
    found = [sources.sides(str(tmp_path / name), "sparsity") for name in ("texts.txt", "pairs.jsonl", "")]
    assert [(side.queries, side.documents) for side in found] == [
        (["open file", "read text"], ["open file", "read text"]),
        (["a b"], ["c d", "e f"]),
        (["fruit"], ["apple"]),
    ]
    assert Sources(limit=1).sides(str(tmp_path), "sparsity").documents == ["apple"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SpectraError):
        sources.sides(str(tmp_path / "empty.txt"), "sparsity")


def test_reports_hold_the_panels(sparse_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("open the file\nsort a list <b>\n")
    names = {kind: tmp_path / f"r.{kind}" for kind in ("html", "json", "markdown")}
    tasks = [f"{kind}={tmp_path / 'texts.txt'}" for kind in ("sparsity", "token-importance")]
    options = [part for kind, path in names.items() for part in (f"--{kind}", str(path))]
    arguments = [str(sparse_folder()), *(part for task in tasks for part in ("-t", task)), *options]
    run = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "document: open the file: " in run.stdout
    page, markdown = names["html"].read_text(), names["markdown"].read_text()
    assert page.count("<h2>Token importance</h2>") == 1 and '<p class="heat">' in page and 'class="bar s1"' in page
    assert "<b>" not in page.partition('<p class="heat">')[2].partition("</section>")[0]  # the text is escaped
    assert "**Token importance · " in markdown and "| term | weight | token |" in markdown
    details = json.loads(names["json"].read_text())["details"]
    assert [(row["task"], row["system"]) for row in details] == [("sparsity", "splade"), ("token-importance", "splade")]
