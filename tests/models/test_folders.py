"""Model folders as they are found: the vectors are those of sentence-transformers, or the folder is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.open import DENSE, open_encoder, open_model
from spectra_nsa.models.saved import SavedModel
from tests.builders import bert_folder

TEXTS = ["Open THE file", "sort the list of text", "x y z " * 60, ""]


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def sharded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(sorted(weights))}
    for file in set(files.values()):
        part = {name: weights[name] for name in weights if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def half(folder: Path) -> None:
    rewrite(folder, lambda weights: {name: value.half() for name, value in weights.items()})
    edit(folder / "config.json", dtype="float16")


def padded_vocabulary(folder: Path) -> None:
    def pad(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rows = weights["embeddings.word_embeddings.weight"]
        more = torch.randn(-len(rows) % 64, rows.shape[1])
        return weights | {"embeddings.word_embeddings.weight": torch.cat([rows, more])}

    rewrite(folder, pad)
    edit(folder / "config.json", vocab_size=128)


def legacy_names(folder: Path) -> None:
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for new, old in names.items():
            weights = {f"{name.replace(new, old)}": value for name, value in weights.items()}
        return {f"bert.{name}": value for name, value in weights.items()}

    rewrite(folder, rename)


def baked_truncation(folder: Path) -> None:
    truncation = {"direction": "Right", "max_length": 6, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    edit(folder / "tokenizer.json", truncation=truncation, padding=padding)


def lower_case(folder: Path) -> None:
    """A cased tokenizer in a folder that asks for lower case."""
    normalizer = json.loads((folder / "tokenizer.json").read_text())["normalizer"]
    edit(folder / "tokenizer.json", normalizer=normalizer | {"lowercase": False})
    edit(folder / "tokenizer_config.json", do_lower_case=False)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)


@pytest.mark.parametrize(
    "change", [sharded, half, padded_vocabulary, legacy_names, baked_truncation, lower_case], ids=lambda f: f.__name__
)
def test_vectors_are_those_of_the_library(tmp_path: Path, change: Callable[[Path], None]) -> None:
    folder = bert_folder(tmp_path / "start")
    plain = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    change(folder)
    expected = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}).encode(TEXTS)
    assert np.abs(expected - plain).max() < (1e-2 if change is half else 1e-6), "the folder means the same model"
    warm = sp.warm_start(folder)
    warm.save_pretrained(str(tmp_path / "saved"))
    sp.export_bert(warm, tmp_path / "exported")
    sp.load(tmp_path / "saved").save_pretrained(str(tmp_path / "again"))
    fast = open_encoder(tmp_path / "saved")
    assert isinstance(fast, SavedModel)
    stock = [SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("saved", "exported")]
    for model in (warm, sp.load(tmp_path / "saved"), fast, sp.load(tmp_path / "again"), *stock):
        assert np.abs(model.encode(TEXTS) - expected).max() < 1e-5
        assert model.max_seq_length == 48


def test_a_length_limit_beyond_the_positions_is_capped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bert_folder(tmp_path / "start")
    expected = sp.warm_start(folder, max_seq_length=64).encode(TEXTS)
    assert "warning" not in capsys.readouterr().err
    edit(folder / "sentence_bert_config.json", max_seq_length=1024)
    message = "sets max_seq_length to 1,024, but has 64 positions. Texts are truncated at 64 tokens."
    sp.warm_start(folder).save_pretrained(str(tmp_path / "saved"))
    edit(tmp_path / "saved" / "sentence_bert_config.json", max_seq_length=1024)
    opened: list[Callable[[], Any]] = [
        lambda: sp.warm_start(folder),
        lambda: open_encoder(folder),
        lambda: open_model(folder, accept=DENSE, convert=False),
        lambda: sp.load(tmp_path / "saved"),
        lambda: open_encoder(tmp_path / "saved"),
    ]
    capsys.readouterr()
    for open_it in opened:
        model = open_it()
        assert message in capsys.readouterr().err
        assert model.max_seq_length == 64 and np.abs(model.encode(TEXTS) - expected).max() < 1e-5
    with pytest.raises(SpectraError, match="more than the 64 positions"):  # asked for here
        sp.warm_start(folder, max_seq_length=1024)


def test_a_token_without_a_vector_is_refused_at_once(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "start")
    sp.warm_start(folder).save_pretrained(str(tmp_path / "saved"))
    for path in (folder, tmp_path / "saved"):
        facts = json.loads((path / "tokenizer.json").read_text())
        facts["model"]["vocab"] |= {"zebra": 90, "yak": 91}
        (path / "tokenizer.json").write_text(json.dumps(facts))
    opened: list[Callable[[], Any]] = [
        lambda: sp.warm_start(folder),
        lambda: open_model(folder, accept=DENSE, convert=False),
        lambda: sp.load(tmp_path / "saved"),
        lambda: open_encoder(tmp_path / "saved"),
    ]
    for open_it in opened:
        with pytest.raises(SpectraError, match=r"2 tokens without a vector: the model has 82, .* first such id is 90"):
            open_it()


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_named_with_its_base(tmp_path: Path, whole: bool) -> None:
    folder = bert_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "org/base", "peft_type": "LORA"})
    )
    if not whole:  # sentence-transformers leaves out the config
        (folder / "config.json").unlink()
    opened: list[Callable[[], Any]] = [
        lambda: sp.warm_start(folder),
        lambda: sp.load(folder),
        lambda: open_model(folder, accept=DENSE, convert=False),
    ]
    for open_it in opened:
        with pytest.raises(SpectraError, match=r"is an adapter \(LORA\) of org/base .*merge_and_unload"):
            open_it()


def test_pickled_shards_are_refused(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(SpectraError, match="pickled weights in several files"):
        sp.warm_start(folder)
