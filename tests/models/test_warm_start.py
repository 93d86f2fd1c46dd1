"""A warm-started model returns the checkpoint's embeddings, before and after a save and reload."""

from __future__ import annotations

import json
import subprocess
import sys
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
    again = sp.load(tmp_path / "saved")
    stock = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    for call in ("encode", "encode_query", "encode_document"):
        wanted = getattr(theirs, call)(TEXTS)
        mine = getattr(ours, call)(TEXTS)
        assert np.abs(mine - wanted).max() <= 1e-5
        assert np.array_equal(getattr(again, call)(TEXTS), mine)
        assert np.array_equal(getattr(stock, call)(TEXTS), mine)
    assert ours.max_seq_length == theirs.max_seq_length == again.max_seq_length == 48
    assert stock.prompts == theirs.prompts
    assert again.get_embedding_dimension() == theirs.get_embedding_dimension()


def test_minilm_hidden_states_and_embeddings(minilm: Path) -> None:
    ours, theirs = sp.warm_start(minilm), SentenceTransformer(str(minilm), device="cpu")
    bert = AutoModel.from_pretrained(minilm).eval()
    features = theirs.preprocess([*TEXTS, "Ünïcode — und ein langer Satz. " * 30])
    inputs = {name: features[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        wanted = bert(**inputs, output_hidden_states=True).hidden_states
        mine = ours.spectra(**inputs, output_hidden_states=True, outputs=()).hidden_states
    real = inputs["attention_mask"].bool()
    assert len(mine) == len(wanted) == 7
    assert max((a - b)[real].abs().max() for a, b in zip(mine, wanted, strict=True)) <= 1e-5
    assert np.abs(ours.encode(TEXTS) - theirs.encode(TEXTS)).max() <= 1e-5
    assert ours.max_seq_length == 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_invariance_over_random_neighbours(minilm: Path, dtype: torch.dtype) -> None:
    model = sp.warm_start(minilm)
    model.spectra.to(dtype)
    generator = np.random.default_rng(0)
    words = ["open", "file", "read", "socket", "error", "token", "the", "of", "a", "list", "sorted", "vector"]
    texts = [" ".join(generator.choice(words, size=n)) for n in (1, 3, 9, 27, 81, 200)]
    alone = np.stack([model.encode(text, convert_to_tensor=True).float().numpy() for text in texts])
    for batch in range(3):
        neighbours = [" ".join(generator.choice(words, size=generator.integers(1, 120))) for _ in range(5)]
        mixed = generator.permutation(len(texts) + 5)
        together = model.encode([(texts + neighbours)[i] for i in mixed], convert_to_tensor=True).float().numpy()
        for place, i in enumerate(mixed):
            if i < len(texts):
                cosine = (alone[i] @ together[place]) / np.linalg.norm(alone[i]) / np.linalg.norm(together[place])
                assert cosine >= 1 - (1e-6 if dtype == torch.float32 else 2e-4), batch


def test_options_override_what_is_inherited(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(), pooling="cls", semantic_dims=[32, 8], max_seq_length=20, hidden_dropout_prob=0.0)
    assert model.spectra.config.pooling == "cls" and model.spectra.config.semantic_dims == [32, 8]
    assert model.max_seq_length == 20
    assert all(part.p == 0.0 for part in model.modules() if isinstance(part, torch.nn.Dropout))


def test_named_outputs_of_one_pass(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert(normalize=False))
    out = model.encode(TEXTS, outputs=["semantic", "embedding"], truncate_dim=8)
    assert set(out) == {"semantic", "embedding"} and all(array.shape == (5, 8) for array in out.values())
    assert np.allclose(np.linalg.norm(out["semantic"], axis=1), 1, atol=1e-5)
    whole = model.encode(TEXTS, outputs=["embedding"])["embedding"]
    assert np.allclose(whole, model.encode(TEXTS), atol=1e-6)
    assert model.encode("x", outputs=["embedding"])["embedding"].shape == (32,)
    with pytest.raises(ValueError, match="semantic"):
        model.encode(TEXTS, outputs=["semantc"])


def test_a_truncated_vector_has_unit_length(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert())
    short, whole = model.encode(TEXTS, truncate_dim=8), model.encode(TEXTS)
    assert short.shape == (5, 8) and short.dtype == np.float32
    assert np.allclose(short, whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True), atol=1e-6)


def test_a_saved_folder_holds_no_pickle_and_only_their_module(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    sp.warm_start(make_bert()).save_pretrained(str(tmp_path / "s"))
    names = {path.name for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in names)
    modules = json.loads((tmp_path / "s" / "modules.json").read_text())
    assert [module["type"].split(".")[0] for module in modules] == ["sentence_transformers"]


PLAIN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "spectra_nsa":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
np.save(sys.argv[2], model.encode_query({texts!r}))
"""


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[1], CASES[4], CASES[5], CASES[7]], ids=lambda c: "-".join(c) or "plain"
)
def test_plain_bert_export_opens_without_our_package(
    make_bert: Callable[..., Path], tmp_path: Path, case: dict
) -> None:
    model = sp.warm_start(make_bert(**case))
    sp.export_bert(model, tmp_path / "plain")
    script = PLAIN.format(texts=TEXTS)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "plain"), str(tmp_path / "v.npy")], check=True)
    assert np.abs(np.load(tmp_path / "v.npy") - model.encode_query(TEXTS)).max() <= 1e-6


def test_other_shapes_are_not_exported_as_bert(tmp_path: Path, minilm: Path) -> None:
    from spectra_nsa.models.fresh import fresh_model

    model = fresh_model("small", tokenizer=str(minilm), position="rope")
    with pytest.raises(ValueError, match="position: rope"):
        sp.export_bert(model, tmp_path / "plain")


def test_bad_folders_are_refused_with_a_reason(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert()
    with pytest.raises(ValueError, match="warm_start"):
        sp.load(folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        sp.warm_start(folder)
    weights.write_bytes(whole)
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


def test_what_cannot_be_carried_over_is_refused(make_bert: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="Dense"):
        sp.warm_start(make_bert(dense=16, activation=torch.nn.Tanh()))


def test_a_saved_model_with_another_shape_in_its_config_is_refused(
    make_bert: Callable[..., Path], tmp_path: Path
) -> None:
    sp.warm_start(make_bert()).save_pretrained(str(tmp_path / "s"))
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    (tmp_path / "s" / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(ValueError, match="shape"):
        sp.load(tmp_path / "s")


def test_an_unknown_hub_name_offline_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="give its folder"):
        sp.load("nobody/no-such-model")
