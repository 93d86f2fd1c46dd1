"""Exports of sparse encoders: the same terms and weights, on every architecture, and without torch."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.export.sparse_graph import SparseGraph
from spectra_nsa.models.checks import model_checksum
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.runtime import Runtime, SparseRuntime
from spectra_nsa.workflows.export.run import export_model
from spectra_nsa.workflows.export.subject import Wanted
from tests.builders import WORDS, tiny_masked_lm
from tests.models.sparse.backbones import masked_lm_folder

pytest.importorskip("onnxscript")
TEXTS = [" ".join(WORDS), WORDS[3], f"{WORDS[1]} {WORDS[1]} [SEP] zebra", "", "[CLS]", " ".join(WORDS * 9)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator = random.Random(0)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 20))) for _ in range(20)]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"anchor": text, "positive": f"{text} to"}) for text in texts))
    return str(path)


def saved(folder: Path, *, free: bool = False, limit: int | None = None) -> SpectraSparseEncoder:
    model = splade_from(tiny_masked_lm(folder / "start"), max_length=24)
    model.max_active_dims = limit
    if free:
        model = inference_free(model, torch.linspace(-1, 2, model.get_embedding_dimension() or 0).roll(3))
        model.prompts.update({"query": "open ", "document": "close "})
    model.save_pretrained(str(folder / "model"))
    return model


def same_terms(rows: Any, expected: Any) -> bool:
    expected = [expected[number] for number in range(expected.shape[0])]
    for (ids, weights), row in zip(rows, expected, strict=True):
        if ids.tolist() != row.indices.tolist() or not np.allclose(weights, row.data, atol=1e-5):
            return False
    return True


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("distilbert", "modernbert", "mpnet")]


@pytest.mark.parametrize("name", ["spectra", *OTHERS])
def test_every_architecture(name: str, tmp_path: Path, pairs: str) -> None:
    model = splade_from(masked_lm_folder(name, tmp_path))
    model.save_pretrained(str(tmp_path / "sparse"))
    before = model_checksum(tmp_path / "sparse")
    document = export_model(str(tmp_path / "sparse"), ["onnx"], texts=pairs)
    assert model_checksum(tmp_path / "sparse") == before
    checks = document["formats"]["onnx"]["checks"]
    assert checks["outputs"]["sparse"]["cosine_min"] > 1 - 1e-5 and checks["terms"]["model"] > 1
    texts = [text for text in TEXTS if text]
    assert same_terms(SparseRuntime(tmp_path / "sparse").encode(texts), model.encode_csr(texts))


def test_queries_without_inference_and_documents_in_a_graph(tmp_path: Path, pairs: str) -> None:
    model = saved(tmp_path, free=True)
    with pytest.raises(UsageError, match="name the folder of the export with --output"):
        export_model(str(tmp_path / "model"), ["onnx"], texts=pairs)  # its root has no tokenizer
    document = export_model(
        str(tmp_path / "model"), ["onnx", "onnx-int8"], output=tmp_path / "o", texts=pairs, wanted=Wanted(strongest=8)
    )
    assert document["formats"]["onnx"]["outputs"] == {"sparse": 76, "sparse_ids": 8, "sparse_values": 8}
    assert document["formats"]["onnx-int8"]["checks"]["ndcg@10"]["pairs"] == 20
    script = (
        "import sys; from spectra_nsa.runtime import SparseRuntime\n"
        "runtime = SparseRuntime(sys.argv[1])\n"
        "ids, weights = runtime.encode_query('open file'); runtime.encode_document(['open file'])\n"
        "assert not {'torch', 'transformers', 'sentence_transformers', 'scipy'} & set(sys.modules)\n"
        "print(runtime.decode((ids, weights)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "o")], check=True, capture_output=True, text=True
    ).stdout
    assert "file" in printed
    with pytest.raises(SpectraError, match="open it with SparseRuntime"):
        Runtime(tmp_path / "o")
    runtime = SparseRuntime(tmp_path / "o")
    assert same_terms(runtime.encode_query(TEXTS), model.encode_csr(TEXTS, "query"))
    assert same_terms(runtime.encode_document(TEXTS), model.encode_csr(TEXTS, "document"))
    short = model.encode_csr(TEXTS, "document", max_active_dims=5)
    assert same_terms(runtime.encode_document(TEXTS, max_active_dims=5), short), "from the list of strongest terms"
    streamed = [terms for part in runtime.stream(TEXTS, chunk=4) for terms in part]
    assert same_terms(streamed, model.encode_csr(TEXTS))
    (tmp_path / "o/query_side/query_weights.npy").write_bytes(b"")
    with pytest.raises(SpectraError, match=r"query_weights.npy has 0 bytes instead of"):
        SparseRuntime(tmp_path / "o")


def test_a_text_without_terms_keeps_one_and_the_limit_of_the_model_holds(tmp_path: Path) -> None:
    model = saved(tmp_path, limit=3)
    vectors = graph_vectors(model)
    assert np.allclose(vectors, model.encode_csr(TEXTS).toarray(), atol=1e-5) and (vectors > 0).sum(1).max() == 3
    torch.nn.init.constant_(model.head("document").bias, -100.0)
    vectors = graph_vectors(model)
    assert (vectors > 0).sum(1).tolist() == [1, 1, 1, 0, 0, 1]
    assert np.array_equal(vectors, model.encode_csr(TEXTS).toarray())


def graph_vectors(model: SpectraSparseEncoder) -> Any:
    features = model.preprocess(TEXTS)
    with torch.no_grad():
        weights, ids, values = SparseGraph(model.eval(), 8).eval()(features["input_ids"], features["attention_mask"])
    assert torch.equal(weights.gather(1, ids), values)
    return weights.numpy()


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (["onnx"], {"dim": 8}, "a sparse encoder has no --dim"),
        (["onnx"], {"outputs": ["sparse"]}, "always gives sparse, sparse_ids, sparse_values"),
        (["sentence-transformers"], {}, "SparseEncoder opens as it is"),
        (["onnx"], {"length": 100}, "--seq-len must be from 3 to the model's 24 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, pairs: str, formats: list[str], options: dict[str, Any], message: str
) -> None:
    saved(tmp_path)
    with pytest.raises(UsageError, match=message):
        export_model(str(tmp_path / "model"), formats, texts=pairs, wanted=Wanted(**options))
