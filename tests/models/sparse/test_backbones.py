"""Sparse encoders on every architecture: the library's vectors, also after calibration and with a new head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

import spectra_nsa.hf  # noqa: F401  registers our architecture for the library
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.calibrate import calibrate
from spectra_nsa.models.sparse.closed_form import fit_closed_form_head
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from tests.builders import WORDS
from tests.models.sparse.backbones import NAMES, masked_lm_folder

TEXTS = [" ".join(WORDS[:9]), WORDS[3], f"{WORDS[1]} zebra {WORDS[2]}"]
_DRAWS = np.random.default_rng(0)
SAMPLE = [" ".join(_DRAWS.choice(WORDS, 7)) for _ in range(400)]


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked_lm_folder(request.param, tmp_path_factory.mktemp("backbone"))


def _check_library_agrees(model: SpectraSparseEncoder, folder: Path) -> None:
    """Checks that a stock `SparseEncoder` opens the saved model to the same vectors."""
    model.save_pretrained(str(folder))
    library = SparseEncoder(str(folder), device="cpu")
    for role in ("query", "document"):
        wanted = getattr(library, f"encode_{role}")(TEXTS).to_dense().numpy()
        found = model.encode_csr(TEXTS, role).toarray()
        full = wanted.any(1)  # the library leaves a text without active terms empty
        np.testing.assert_allclose(found[full], wanted[full], rtol=1e-4, atol=1e-6)
    assert full.any()


def test_vectors_are_the_librarys_after_each_step(folder: Path, tmp_path: Path) -> None:
    model = splade_from(folder, max_length=32)
    head = model.head()
    assert head is not None and head.bias is not None
    _check_library_agrees(model, tmp_path / "start")
    use = calibrate(model, SAMPLE, 6).after
    assert 3 < use.active < 9
    assert head.weight is model.masked_lm().get_input_embeddings().weight, "calibration doubles no weights"
    _check_library_agrees(model, tmp_path / "calibrated")
    _check_library_agrees(inference_free(model, torch.rand(len(head.weight))), tmp_path / "routed")


def test_a_model_that_was_just_opened_encodes_in_bf16(folder: Path) -> None:
    model = splade_from(folder)
    found, wanted = (model.encode_csr(TEXTS, precision=each).toarray() for each in ("bf16", "fp32"))
    np.testing.assert_allclose(found, wanted, atol=0.2 * wanted.max())


def test_a_closed_form_head_recovers_tokens_or_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    model = splade_from(folder, max_length=32)
    if "modernbert" in model.masked_lm().config.model_type:  # its norms have no bias
        with pytest.raises(SpectraError, match="head as BERT has it"):
            fit_closed_form_head(model, SAMPLE)
        return
    with torch.no_grad():  # a trained encoder's last states tell the token; random layers hide it
        for name, weight in model.masked_lm().named_parameters():
            if weight.ndim == 2 and ("layer" in name or "position" in name):
                weight.mul_(0.1)
    assert fit_closed_form_head(model, SAMPLE).recovered > 0.9
    ids = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS]
    words = [row for row, own in enumerate(ids) if len(own) == 1]
    among = model.encode_csr(WORDS).toarray()[np.ix_(words, [ids[row][0] for row in words])]
    assert np.mean(among.argmax(1) == np.arange(len(words))) > 0.7  # terms that no text has are not among them
    calibrate(model, SAMPLE, 6)
    assert not model.masked_lm().config.tie_word_embeddings
    _check_library_agrees(model, tmp_path / "closed-form")


def test_rows_without_a_token_get_placeholders(tmp_path: Path) -> None:
    model = splade_from(masked_lm_folder("distilbert", tmp_path))
    terms = len(model.tokenizer.get_vocab())
    model.masked_lm().resize_token_embeddings(terms + 3)  # padded, as many vocabularies are
    routed = inference_free(model, torch.ones(terms + 3))
    _check_library_agrees(routed, tmp_path / "padded")
    model.masked_lm().resize_token_embeddings(terms)
    with pytest.raises(SpectraError, match=r"sparse\.kind=splade"):
        inference_free(model, torch.ones(terms))
