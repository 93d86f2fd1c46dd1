"""The start of the entity head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

import spectra_nsa as sp
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.training.init.rarity import fit_rarity

ROWS = Dataset.from_dict(
    {"anchor": ["open the file", "close the socket"], "positive": ["the list", "the text of the model"]}
)


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> SpectraSentenceTransformer:
    return sp.warm_start(make_bert())


def test_rare_tokens_weigh_more_and_the_embedding_stays(model: SpectraSentenceTransformer) -> None:
    before = model.encode(["open the file"])
    born = model.spectra.entity.projection.weight.clone()
    fit_rarity(model, ROWS)
    the, file = model.tokenizer.convert_tokens_to_ids(["the", "file"])
    table = model.spectra.entity.prior.idf
    assert table[the] < table[file] < 1e-6
    assert not torch.equal(model.spectra.entity.projection.weight, born)
    assert np.array_equal(model.encode(["open the file"]), before)


def test_a_model_with_a_table_keeps_it(model: SpectraSentenceTransformer) -> None:
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    before = {name: value.clone() for name, value in model.spectra.state_dict().items()}
    fit_rarity(model, ROWS)
    assert all(torch.equal(value, before[name]) for name, value in model.spectra.state_dict().items())


def test_the_projection_does_not_depend_on_padding(model: SpectraSentenceTransformer) -> None:
    """A long text pads the short ones in its batch; their pooled states do not change."""
    from spectra_nsa.training.init.rarity import _pooled

    alone = _pooled(model, ["the file"])
    both = _pooled(model, ["the file", "open the file and close the socket of the model"])
    assert torch.allclose(alone[0], both[0], atol=1e-5)
