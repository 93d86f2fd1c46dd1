from __future__ import annotations

import pickle
import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder
from torch.utils._python_dispatch import TorchDispatchMode

import spectra_nsa
from spectra_nsa.core.errors import UsageError
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sparse.build import has_masked_lm_head, inference_free, splade_from
from spectra_nsa.models.sparse.encoder import FALLBACK_WEIGHT, SpectraSparseEncoder
from tests.builders import WORDS, bert_folder, tiny_masked_lm

TEXTS = [" ".join(WORDS[:9]), WORDS[3], f"{WORDS[1]} unknown {WORDS[2]}", " ".join(WORDS[4:7])]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_masked_lm(tmp_path_factory.mktemp("masked-lm") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> SpectraSparseEncoder:
    return splade_from(checkpoint, max_length=32)


@pytest.fixture(scope="module")
def free(checkpoint: Path) -> SpectraSparseEncoder:
    model = splade_from(checkpoint, max_length=32)
    return inference_free(model, torch.linspace(-0.1, 2.0, model.get_embedding_dimension() or 0))


def test_the_vectors_are_those_of_the_library(model: SpectraSparseEncoder, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path / "saved"))
    library = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    wanted = library.encode(TEXTS)
    assert model.head() is not None
    torch.testing.assert_close(model.encode(TEXTS).to_dense(), wanted.to_dense())
    assert model.encode(TEXTS).is_coalesced() and model.encode(TEXTS[0]).shape == library.encode(TEXTS[0]).shape
    np.testing.assert_allclose(model.encode_csr(TEXTS).toarray(), wanted.to_dense().numpy(), rtol=1e-5)
    assert isinstance(open_model(tmp_path / "saved", accept=("sparse",)), SpectraSparseEncoder)


@pytest.mark.parametrize(
    "options",
    [{}, {"max_active_dims": 3}, {"convert_to_sparse_tensor": False}, {"convert_to_tensor": False}, {"batch_size": 1}],
)
def test_queries_and_documents_take_their_own_route(
    free: SpectraSparseEncoder, options: dict[str, Any], tmp_path: Path
) -> None:
    free.save_pretrained(str(tmp_path / "saved"))
    library = SparseEncoder(str(tmp_path / "saved"), device="cpu")
    for name in ("encode_query", "encode_document", "encode"):
        ours, wanted = (_dense(getattr(each, name)(TEXTS, **options)) for each in (free, library))
        torch.testing.assert_close(ours, wanted)
    assert not torch.equal(_dense(free.encode_query(TEXTS)), _dense(free.encode_document(TEXTS)))


def _dense(vectors: Any) -> torch.Tensor:
    vectors = torch.stack(vectors) if isinstance(vectors, list) else vectors
    return vectors.to_dense() if vectors.is_sparse else vectors


def test_static_weights_are_not_negative_and_special_tokens_have_none(free: SpectraSparseEncoder) -> None:
    static = free.static("query")
    assert static is not None and static.weight.min() == 0
    assert not static.weight[free.tokenizer.all_special_ids].any()
    assert free.static("document") is None and free.head("document") is not None


@pytest.mark.parametrize("route", ["query", "document"])
@pytest.mark.parametrize("options", [{}, {"convert_to_sparse_tensor": False}, {"max_active_dims": 2}])
def test_several_devices_give_the_vectors_of_one(
    free: SpectraSparseEncoder, route: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results: queue.Queue[Any] = queue.Queue()

    class Workers:  # what a worker does with a copy of the model, in this process
        def put(self, item: Any) -> None:
            number, texts, kwargs = item
            results.put([number, pickle.loads(pickle.dumps(free))._inference(texts, device="cpu", **kwargs)])

    pool = {"input": Workers(), "output": results, "processes": [None, None]}
    monkeypatch.setattr(SpectraSparseEncoder, "start_multi_process_pool", lambda self, devices: pool)
    monkeypatch.setattr(SpectraSparseEncoder, "stop_multi_process_pool", lambda self, pool: None)
    encode = getattr(free, f"encode_{route}")
    for several in ({"device": ["cpu", "cpu"]}, {"pool": pool}):
        found = encode(TEXTS, chunk_size=3, **several, **options)
        torch.testing.assert_close(_dense(found), _dense(encode(TEXTS, **options)))
        assert not found.is_sparse or found.is_coalesced()


def test_no_dense_vectors_of_all_texts_are_made(free: SpectraSparseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            largest.extend(value.numel() for value in torch.utils._pytree.tree_leaves(out) if _is_strided(value))
            return out

    width = free.get_embedding_dimension() or 0
    texts = [f"{WORDS[number % 20]} {WORDS[number % 7]}" for number in range(200)]
    for role in ("query", "document"):
        largest.clear()
        with Sizes():
            free.encode_csr(texts, role, batch_size=4)
            free.encode(texts, task=role, batch_size=4)
        weights = max(weight.numel() for weight in free.parameters())
        assert 4 * width <= max(largest) <= max(weights, 4 * 40 * width) < len(texts) * width


def _is_strided(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def test_training_gets_the_vectors_as_an_output(free: SpectraSparseEncoder) -> None:
    free.train()
    for task in ("query", "document"):
        features = free.preprocess(TEXTS, task=task)
        out = free(features | {"spectra_outputs": ("sparse",)})
        assert list(out) == ["sparse"] and out["sparse"].requires_grad
    free.eval()


def test_an_empty_vector_keeps_the_strongest_own_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = splade_from(tiny_masked_lm(tmp_path / "silent", bias=-100.0), max_length=32)
    rows = model.encode_csr([TEXTS[0], "", "[SEP] [CLS]"])
    own = set(model.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"])
    assert rows[0].nnz == 1 and rows[0].indices[0] in own and rows[0].data[0] == np.float32(FALLBACK_WEIGHT)
    assert rows[1].nnz == rows[2].nnz == 0
    assert "2 texts of 3 without any term" in capsys.readouterr().err


def test_what_is_no_text_or_limit_is_refused(model: SpectraSparseEncoder) -> None:
    with pytest.raises(UsageError, match="text"):
        model.encode([1])
    with pytest.raises(UsageError, match="max_active_dims"):
        model.encode_csr(TEXTS, max_active_dims=0)


def test_no_texts_give_no_rows(model: SpectraSparseEncoder) -> None:
    assert model.encode_csr([]).shape == (0, model.get_embedding_dimension())


def test_a_checkpoint_says_whether_it_has_a_head(checkpoint: Path, tmp_path: Path) -> None:
    assert has_masked_lm_head(checkpoint)
    assert not has_masked_lm_head(bert_folder(tmp_path / "bert"))


def test_decode_takes_csr_rows_and_load_opens_a_sparse_folder(tmp_path: Path) -> None:
    splade_from(tiny_masked_lm(tmp_path / "start"), max_length=32).save_pretrained(str(tmp_path / "model"))
    model = spectra_nsa.load(tmp_path / "model", device="cpu")
    assert isinstance(model, spectra_nsa.SpectraSparseEncoder)
    texts = [" ".join(WORDS[at : at + 3]) for at in range(3)]
    rows = model.encode_csr(texts, "document")
    assert model.decode(rows, top_k=2) == model.decode(model.encode_document(texts), top_k=2)
    assert model.decode(rows[0])[0][0] == model.decode(rows)[0][0]
    with pytest.raises(UsageError, match="truncate_dim"):
        spectra_nsa.load(tmp_path / "model", truncate_dim=4)
