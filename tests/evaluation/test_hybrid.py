from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.hybrid import HybridSystem, fit_on, read_judged
from spectra_nsa.evaluation.open import open_hybrid
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.index.hybrid import Fusion
from spectra_nsa.text.shared_columns import SharedColumns

from .test_command import app

WORDS = "apple river stone cloud train music paper glass horse light sugar wheel".split()
QUERIES = [f"find {word}" for word in WORDS]
DOCUMENTS = [f"{word} {word} and {WORDS[at - 1]}" for at, word in enumerate(WORDS)]


def test_reciprocal_ranks_by_hand(dense: DenseSystem) -> None:
    hybrid = HybridSystem([dense, BM25System()])
    got = hybrid.search(QUERIES, DOCUMENTS, 3)
    lists = [system.search(QUERIES, DOCUMENTS, 12) for system in (dense, BM25System())]
    for row in range(len(QUERIES)):
        expected = np.zeros(len(DOCUMENTS))
        for ranking in lists:
            for rank, document in enumerate(ranking.index[row], 1):
                if document >= 0:
                    expected[document] += 1 / (60 + rank)
        np.testing.assert_allclose(got.scores[row], np.sort(expected)[::-1][:3], rtol=1e-5)
        np.testing.assert_allclose(expected[got.index[row]], got.scores[row], rtol=1e-5)
    assert hybrid.note == "hybrid:words+bm25: reciprocal rank fusion"


def test_weighted_scores_by_hand(dense: DenseSystem) -> None:
    hybrid = HybridSystem([dense, BM25System()], Fusion(method="weighted", weights={"words": 0.75, "bm25": 0.25}))
    got = hybrid.search(QUERIES, DOCUMENTS, 12)
    cosine = dense.encode_queries(QUERIES) @ dense.encode_documents(DOCUMENTS).T
    left, right = BM25System().sparse_rows(QUERIES, DOCUMENTS)
    parts = [cosine, (left @ right.T).toarray()]
    standard = [(part - part.mean(1, keepdims=True)) / part.std(1, keepdims=True) for part in parts]
    expected = 0.75 * standard[0] + 0.25 * standard[1]
    np.testing.assert_allclose(got.scores, np.sort(expected, axis=1)[:, ::-1], atol=1e-4)
    assert "weighted sum of standardized scores (words 0.75, bm25 0.25)" in hybrid.note


def test_weights_are_fitted_on_pairs_and_collections(tmp_path: Path, dense: DenseSystem, noisy: DenseSystem) -> None:
    many = [f"{a} {b}" for a in WORDS for b in WORDS[:4] if a != b]
    pairs = tmp_path / "dev.jsonl"
    pairs.write_text(
        "".join(json.dumps({"anchor": f"find {text}", "positive": f"{text} here"}) + "\n" for text in many)
    )
    hybrid = HybridSystem([dense, noisy])
    (note,) = fit_on([hybrid], read_judged(str(pairs)))
    assert hybrid.fusion.fit["queries"] == len(many) and "chosen by held-out nDCG@10" in note
    assert "only if they are better than rrf and the best single one by more than one standard error" in note
    first = dict(hybrid.fusion.fit)
    (tmp_path / "qrels").mkdir()
    for name, texts in (("corpus", [f"{text} here" for text in many]), ("queries", [f"find {text}" for text in many])):
        lines = [json.dumps({"_id": f"{name[0]}{at}", "text": text}) for at, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "qrels" / "test.tsv").write_text("".join(f"q{at}\tc{at}\t1\n" for at in range(len(many))))
    fit_on([hybrid], read_judged(f"{tmp_path}:test"))
    assert hybrid.fusion.fit == first
    pairs.write_text(pairs.read_text().split("\n")[0] + "\n")
    with pytest.raises(SpectraError, match="needs 25"):
        fit_on([hybrid], read_judged(str(pairs)))


def test_edge_cases(dense: DenseSystem, noisy: DenseSystem) -> None:
    hybrid = HybridSystem([dense, noisy])
    assert hybrid.search([], DOCUMENTS, 3).index.shape == (0, 3)
    assert hybrid.search(QUERIES, [], 3).index.shape == (12, 0)
    assert hybrid.search(QUERIES, DOCUMENTS[:2], 100).index.shape == (12, 2)
    assert PairsTask("p", QUERIES, DOCUMENTS).run(hybrid).results[0].n == 12
    with pytest.raises(UsageError, match="two or more"):
        HybridSystem([dense, dense])
    with pytest.raises(SpectraError, match="no vectors"):
        HybridSystem([dense, HybridSystem([dense, noisy])])


@pytest.mark.parametrize("bad", ["hybrid:bm25", "hybrid:bm25+", "hybrid:x*bm25+bm25", "hybrid:0*bm25+bm25", "hybrid:"])
def test_names_of_another_form_are_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        open_hybrid(bad, {})


def test_the_command_opens_each_part_once(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(make_bert())
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"anchor": query, "positive": document} for query, document in zip(QUERIES, DOCUMENTS, strict=True)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = f"hybrid:0.5*{folder}+0.5*bm25"
    arguments = [name, "-b", folder, "-b", "bm25", "-t", f"pairs={pairs}"]
    run = CliRunner().invoke(app, [*arguments, "--json", "-"], catch_exceptions=False)
    document = json.loads(run.stdout)
    systems = list(dict.fromkeys(row["system"] for row in document["results"]))
    assert len(systems) == 3 and systems[0].startswith("hybrid:") and systems[2] == "bm25"
    assert run.stderr.count("spectra: loading") <= 1
    assert any("weighted sum of standardized scores" in note for note in document["notes"])
    with pytest.raises(UsageError, match="none is given"):
        CliRunner().invoke(app, ["bm25", *arguments[5:], "--fusion-dev", str(pairs)], catch_exceptions=False)
    with pytest.raises(UsageError, match="not for hybrid"):
        CliRunner().invoke(app, [*arguments, "--dim", "8"], catch_exceptions=False)


def test_columns_are_those_of_the_development_pairs_too(tmp_path: Path) -> None:
    many = [f"{a} {b}" for a in WORDS for b in WORDS[:4] if a != b]
    names = {"renamed": ("question", "answer"), "plain": ("anchor", "positive")}
    for name, (left, right) in names.items():
        rows = [{left: f"find {text}", right: f"{text} here", "positive_kind": "x"} for text in many]
        (tmp_path / f"{name}.csv").write_text(
            "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
        )
    columns = ["--columns", "anchor=question,positive=answer"]
    with pytest.raises(SpectraError, match="fits no source"):
        run = [f"pairs={tmp_path}/plain.csv", "--fusion-dev", f"{tmp_path}/plain.csv", *columns]
        CliRunner().invoke(app, ["hybrid:bm25+splade:gone", "-t", *run], catch_exceptions=False)
    for task in names:  # a mapping that fits only the development pairs is one that is used
        run = [f"pairs={tmp_path}/{task}.csv", "--fusion-dev", f"{tmp_path}/renamed.csv", *columns]
        with pytest.raises(SpectraError, match="gone"):  # read before any model is opened
            CliRunner().invoke(app, ["hybrid:bm25+splade:gone", "-t", *run], catch_exceptions=False)
    judged = read_judged(f"{tmp_path}/renamed.csv", SharedColumns({"anchor": "question", "positive": "answer"}))
    assert judged.queries[0] == f"find {many[0]}" and judged.relevant[0] == {0: 1.0}
