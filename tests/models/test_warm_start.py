"""A warm-started model returns the checkpoint's embeddings, before and after a reload."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

import spectra_nsa as sp

TEXTS = ["open a file", "", "sort the list of tokens and write the text to a file " * 3, "x", "def read(file): return"]
CASES = [
    {},
    {"pooling": "cls"},
    {"pooling": "max", "normalize": False},
    {"normalize": False},
    {"pooling": ("mean", "max")},
    {"dense": 16, "activation": torch.nn.Identity()},
    {"prompts": {"query": "query: ", "document": "document: "}},
    {"prompts": {"query": "open the file: ", "document": ""}, "include_prompt": False},
    {"prompts": {"query": "read: ", "document": ""}, "include_prompt": False, "pooling": "cls"},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(f"{k}" for k in case) or "plain")
def test_same_embeddings_before_and_after_a_reload(make_bert: Callable[..., Path], tmp_path: Path, case: dict) -> None:
    folder = make_bert(**case)
    theirs = SentenceTransformer(str(folder), device="cpu")
    ours = sp.warm_start(folder)
    ours.save_pretrained(str(tmp_path / "saved"))
    reloaded = sp.load(tmp_path / "saved")
    stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    for call in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, call)(TEXTS)
        actual = getattr(ours, call)(TEXTS)
        assert np.abs(actual - expected).max() <= 1e-5
        assert np.array_equal(getattr(reloaded, call)(TEXTS), actual)
        assert np.abs(getattr(stock, call)(TEXTS) - actual).max() <= 1e-6  # the library has another loop
    assert ours.max_seq_length == theirs.max_seq_length == reloaded.max_seq_length == 48
    assert stock.prompts == theirs.prompts
    assert reloaded.get_embedding_dimension() == theirs.get_embedding_dimension()


def test_hidden_states_and_embeddings_equal_minilms(minilm: Path) -> None:
    ours, theirs = sp.warm_start(minilm), SentenceTransformer(str(minilm), device="cpu")
    bert = AutoModel.from_pretrained(minilm).eval()
    features = theirs.preprocess([*TEXTS, "Ünïcode — und ein langer Satz. " * 30])
    inputs = {name: features[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        expected = bert(**inputs, output_hidden_states=True).hidden_states
        actual = ours.spectra(**inputs, output_hidden_states=True, outputs=()).hidden_states
    real = inputs["attention_mask"].bool()
    assert len(actual) == len(expected) == 7
    assert max((a - b)[real].abs().max() for a, b in zip(actual, expected, strict=True)) <= 1e-5
    assert np.abs(ours.encode(TEXTS) - theirs.encode(TEXTS)).max() <= 1e-5
    assert ours.max_seq_length == 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_embeddings_do_not_depend_on_the_batch(minilm: Path, dtype: torch.dtype) -> None:
    model = sp.warm_start(minilm)
    model.spectra.to(dtype)
    generator = np.random.default_rng(0)
    words = ["open", "file", "read", "socket", "error", "token", "the", "of", "a", "list", "sorted", "vector"]
    texts = [" ".join(generator.choice(words, size=n)) for n in (1, 3, 9, 27, 81, 200)]
    single = np.stack([model.encode(text, convert_to_tensor=True).float().numpy() for text in texts])
    for batch in range(3):
        others = [" ".join(generator.choice(words, size=generator.integers(1, 120))) for _ in range(5)]
        order = generator.permutation(len(texts) + 5)
        batched = model.encode([(texts + others)[i] for i in order], convert_to_tensor=True).float().numpy()
        for position, i in enumerate(order):
            if i < len(texts):
                cosine = (single[i] @ batched[position]) / np.linalg.norm(single[i]) / np.linalg.norm(batched[position])
                assert cosine >= 1 - (1e-6 if dtype == torch.float32 else 2e-4), batch


def test_options_override_inherited_settings(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(), pooling="cls", semantic_dims=[32, 8], max_seq_length=20, hidden_dropout_prob=0.0)
    assert model.spectra.config.pooling == "cls" and model.spectra.config.semantic_dims == [32, 8]
    assert model.max_seq_length == 20
    assert all(part.p == 0.0 for part in model.modules() if isinstance(part, torch.nn.Dropout))


def test_named_outputs_of_one_pass(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(normalize=False))
    out = model.encode(TEXTS, outputs=["semantic", "embedding"], truncate_dim=8)
    assert set(out) == {"semantic", "embedding"} and all(array.shape == (5, 8) for array in out.values())
    assert np.allclose(np.linalg.norm(out["semantic"], axis=1), 1, atol=1e-5)
    full = model.encode(TEXTS, outputs=["embedding"])["embedding"]
    assert np.allclose(full, model.encode(TEXTS), atol=1e-6)
    assert model.encode("x", outputs=["embedding"])["embedding"].shape == (32,)
    with pytest.raises(ValueError, match="semantic"):
        model.encode(TEXTS, outputs=["semantc"])


def test_a_truncated_vector_has_unit_length(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert())
    short, full = model.encode(TEXTS, truncate_dim=8), model.encode(TEXTS)
    assert short.shape == (5, 8) and short.dtype == np.float32
    assert np.allclose(short, full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True), atol=1e-6)


def test_a_saved_folder_has_no_pickle_and_only_sentence_transformers_modules(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    sp.warm_start(make_bert()).save_pretrained(str(tmp_path / "s"))
    names = {path.name for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
    modules = json.loads((tmp_path / "s" / "modules.json").read_text())
    assert [module["type"].split(".")[0] for module in modules] == ["sentence_transformers"]


def test_invalid_folders_are_refused(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert()
    with pytest.raises(ValueError, match="warm_start"):
        sp.load(folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        sp.warm_start(folder)
    weights.write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="lacks"):
        sp.warm_start(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "roberta"}))
    with pytest.raises(ValueError, match=r"roberta.*BERT-architecture"):
        sp.warm_start(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="line 1"):
        sp.warm_start(folder)
    with pytest.raises(ValueError, match="not a model folder"):
        sp.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="pooling"):
        sp.warm_start(folder, poolling="cls")


def test_unsupported_modules_are_refused(make_bert: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="Dense"):
        sp.warm_start(make_bert(dense=16, activation=torch.nn.Tanh()))


def test_a_saved_model_that_does_not_match_its_config_is_refused(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    sp.warm_start(make_bert()).save_pretrained(str(tmp_path / "s"))
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    (tmp_path / "s" / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(ValueError, match="shape"):
        sp.load(tmp_path / "s")


def test_the_error_for_an_unknown_hub_name_offline_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="name its folder"):
        sp.load("nobody/no-such-model")
