"""Model folders: the checks before a model is opened, the light and the full way to open it, and its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json_file

Change = tuple[str, bytes]
SETTINGS = ("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
            "tokenizer_config.json", "tokenizer.json")  # fmt: skip


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Spectra model of a few kilobytes."""
    from spectra_nsa.models.warm_start import warm_start
    from tests.builders import bert_folder

    folder = tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    bert = bert_folder(folder, **shape, max_position_embeddings=16)
    warm_start(bert, spectral=True, depth_mix=True).save_pretrained(str(folder / "spectra"))
    return folder / "spectra"


@pytest.fixture(scope="module")
def bert(spectra: Path) -> Path:
    return spectra.with_name("model")


@pytest.fixture(scope="module")
def query_side(spectra: Path) -> Path:
    """The query side of an inference-free model."""
    from transformers import AutoTokenizer

    from spectra_nsa.models.sparse.query_side import QueryWeights, static_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(spectra))
    folder = spectra.with_name("query-side")
    QueryWeights(
        tokenizer=static_tokenizer(tokenizer, "bert"),
        weights_V=np.linspace(0, 1, max(tokenizer.get_vocab().values()) + 1, dtype=np.float32),
        special_ids=frozenset(tokenizer.all_special_ids),
        prompt="find ",
        max_active_dims=3,
    ).save(folder)
    return folder


def _files(folder: Path, names: tuple[str, ...]) -> st.SearchStrategy[Change]:
    """One of the files of a folder, with changes."""
    choices = []
    for name in names:
        data = (folder / name).read_bytes()
        change = changed_json_file(json.loads(data)) if name.endswith(".json") else changed_bytes(data)
        choices.append(st.tuples(st.just(name), change))
    return st.one_of(choices)


def _with(folder: Path, change: Change) -> Path:
    """Returns a copy of a folder with one file changed."""
    copy = folder.with_name(f"{folder.name}-copy")
    if not copy.is_dir():
        shutil.copytree(folder, copy)
    for path in folder.rglob("*"):  # undo what earlier cases changed
        if path.is_file() and path.suffix in (".json", ".safetensors", ".npy"):
            target = copy / path.relative_to(folder)
            if target.read_bytes() != path.read_bytes():
                target.write_bytes(path.read_bytes())
    (copy / change[0]).write_bytes(change[1])
    return copy


def _encode(model: Any) -> Any:
    return obeys(lambda: model.encode(["open a file", "x"]))


@cases(40, share=0.3)
@given(data=st.data())
def test_a_saved_model_is_opened_without_transformers(spectra: Path, data: st.DataObject) -> None:
    from spectra_nsa.models.checks import check_folder, model_checksum
    from spectra_nsa.models.open import find_model
    from spectra_nsa.models.saved import open_saved
    from spectra_nsa.models.size import inspect_model, spec_of

    folder = _with(spectra, data.draw(_files(spectra, (*SETTINGS, "model.safetensors"))))
    obeys(lambda: inspect_model(spec_of(str(folder))))
    obeys(lambda: model_checksum(folder))
    if obeys(lambda: find_model(folder)) is not None and obeys(lambda: check_folder(folder)) == "spectra_nsa":
        model = obeys(lambda: open_saved(folder))
        if model is not None:
            _encode(model)


@cases(5, share=0.02)
@given(data=st.data())
def test_a_saved_model_is_opened_by_the_library(spectra: Path, data: st.DataObject) -> None:
    from spectra_nsa.models.sentence import load

    folder = _with(spectra, data.draw(_files(spectra, (*SETTINGS, "model.safetensors"))))
    model = obeys(lambda: load(folder))
    if model is not None:
        _encode(model)


@cases(5, share=0.02)
@given(data=st.data())
def test_a_checkpoint_is_opened_or_converted(bert: Path, data: st.DataObject) -> None:
    from spectra_nsa.models.open import DENSE, open_model

    names = ("config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "tokenizer.json",
             "tokenizer_config.json", "config_sentence_transformers.json", "model.safetensors")  # fmt: skip
    folder = _with(bert, data.draw(_files(bert, names)))
    for convert in (True, False):
        model = obeys(lambda convert=convert: open_model(folder, accept=DENSE, convert=convert))
        if model is not None and convert:  # the library's own models raise what they like
            _encode(model)


@cases(60, share=0.3)
@given(data=st.data())
def test_the_query_side_of_a_sparse_encoder_is_opened(query_side: Path, data: st.DataObject) -> None:
    from spectra_nsa.models.sparse.query_side import SETTINGS, TOKENIZER, WEIGHTS, QueryWeights

    folder = _with(query_side, data.draw(_files(query_side, (SETTINGS, TOKENIZER, WEIGHTS))))
    side = obeys(lambda: QueryWeights.load(folder))
    if side is not None:
        _encode(side)


def test_the_unchanged_folders_open(spectra: Path, bert: Path, query_side: Path) -> None:
    """The changes above start from what is valid."""
    from spectra_nsa.models.open import DENSE, open_model
    from spectra_nsa.models.saved import open_saved
    from spectra_nsa.models.sparse.query_side import QueryWeights

    saved = open_saved(spectra)
    assert saved is not None and _encode(saved).shape == (2, 8)
    assert _encode(open_model(bert, accept=DENSE, convert=True)).shape == (2, 8)
    assert _encode(QueryWeights.load(query_side)).nnz


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction", "modality_config": {}}),
        ("config.json", {"model_type": "spectra_nsa", "num_hidden_layers": 2**31}),
        ("config.json", {"model_type": "spectra_nsa", "semantic_dims": [[8]]}),
        ("config.json", None),
        ("modules.json", None),
        ("tokenizer.json", {}),
    ],
)
def test_what_earlier_cases_found(spectra: Path, name: str, value: Any) -> None:
    from spectra_nsa.core.errors import SpectraError
    from spectra_nsa.models.sentence import load

    folder = _with(spectra, (name, json.dumps(value).encode()))
    with pytest.raises(SpectraError):
        load(folder)


@pytest.mark.parametrize("change", [{"max_active_dims": "3"}, {"max_active_dims": 0.5}, {"prompt": "\ud800"}])
def test_what_earlier_cases_found_in_a_query_side(query_side: Path, change: dict[str, Any]) -> None:
    from spectra_nsa.core.errors import SpectraError
    from spectra_nsa.models.sparse.query_side import SETTINGS, QueryWeights

    settings = json.loads((query_side / SETTINGS).read_text())
    folder = _with(query_side, (SETTINGS, json.dumps(settings | change).encode()))
    with pytest.raises(SpectraError):
        QueryWeights.load(folder)
