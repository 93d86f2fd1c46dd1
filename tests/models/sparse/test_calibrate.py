from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.calibrate import calibrate, check_vocabulary_use, measure_use, vocabulary_use
from spectra_nsa.models.sparse.closed_form import fit_closed_form_head
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.models.sparse.head import VocabularyHead
from tests.builders import WORDS, tiny_masked_lm

_DRAWS = np.random.default_rng(0)
TEXTS = [" ".join(_DRAWS.choice(WORDS, 7)) for _ in range(64)]


@pytest.fixture
def model(tmp_path: Path) -> SpectraSparseEncoder:
    return splade_from(tiny_masked_lm(tmp_path / "model"), max_length=32)


@torch.no_grad()
def _set_logits(model: SpectraSparseEncoder, *, factor: float, bias: float) -> None:
    """Scales what differs between logits, and sets their mean."""
    head = model.head()
    assert head is not None and head.bias is not None
    head.weight.mul_(factor)
    head.bias.fill_(bias)


def test_use_counts_terms_overlap_and_common_terms() -> None:
    vectors = torch.tensor([[1.0, 2, 0, 0], [3, 0, 0, 0], [1, 0, 5, 0]])
    use = vocabulary_use(vectors)
    assert (use.active, use.common, use.strongest) == (pytest.approx(5 / 3), 1, 3)
    assert use.overlap == 0.5  # 1 of 2 terms, and 1 of 2


def test_a_uniformly_active_vocabulary_is_refused_and_calibration_mends_it(model: SpectraSparseEncoder) -> None:
    _set_logits(model, factor=0.06 / 3, bias=3.7)  # logits of mean 3.7 and spread 0.06, as of collapsed checkpoints
    with pytest.raises(SpectraError, match=r"active throughout.*sparse\.calibrate=256"):
        check_vocabulary_use(measure_use(model, TEXTS), model.get_embedding_dimension() or 0)
    use = calibrate(model, TEXTS, 10).after
    assert 7 < use.active < 13 and use.overlap < 0.5 and use.strongest == pytest.approx(2, abs=0.1)
    measured = measure_use(model, TEXTS)  # the model is as it was said to be
    assert measured.active == pytest.approx(use.active, abs=2) and measured.common == use.common == 0


def test_a_silent_vocabulary_is_refused_and_calibration_mends_it(model: SpectraSparseEncoder) -> None:
    _set_logits(model, factor=1, bias=-50)
    silent = vocabulary_use(torch.zeros(4, 9))
    with pytest.raises(SpectraError, match=r"silent.*sparse\.calibrate=256.*closed_form"):
        check_vocabulary_use(silent, 9)
    assert 7 < calibrate(model, TEXTS, 10).after.active < 13


def test_a_head_that_says_the_same_of_all_texts_is_refused(model: SpectraSparseEncoder) -> None:
    _set_logits(model, factor=0, bias=-1)
    head = model.head()
    assert head is not None and head.bias is not None
    with torch.no_grad():
        head.bias[10:30] = 1.0
    with pytest.raises(SpectraError, match=r"same terms.*100%"):
        check_vocabulary_use(measure_use(model, TEXTS), model.get_embedding_dimension() or 0)
    with pytest.raises(SpectraError, match=r"Calibration does not help.*closed_form"):
        calibrate(model, TEXTS, 10)


def test_calibration_of_a_tied_head_gives_the_vectors_of_an_untied_one(
    model: SpectraSparseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied, untied = model, copy.deepcopy(model)
    assert calibrate(tied, TEXTS, 10).changed
    monkeypatch.setattr(VocabularyHead, "scale_states", lambda head, factor: False)
    calibrate(untied, TEXTS, 10)
    vectors = [each.encode_csr(TEXTS).toarray() for each in (tied, untied)]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-5)
    sizes = [sum(weight.numel() for weight in each.parameters()) for each in (tied, untied)]
    head = tied.head()
    assert head is not None and sizes[1] - sizes[0] == head.weight.numel() + len(head.weight)
    assert tied.masked_lm().config.tie_word_embeddings and not untied.masked_lm().config.tie_word_embeddings


def test_states_are_not_scaled_where_something_follows_the_norm(model: SpectraSparseEncoder) -> None:
    transform = model.masked_lm().cls.predictions.transform
    transform.register_forward_hook(lambda module, inputs, output: output + 1)
    head, before = model.head(), transform.LayerNorm.weight.clone()
    assert head is not None and not head.scale_states(0.5)
    assert torch.equal(transform.LayerNorm.weight, before)


def test_a_head_that_has_about_the_target_stays_as_it_is(model: SpectraSparseEncoder) -> None:
    calibrate(model, TEXTS, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, TEXTS, 8)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_without_a_masked_lm_is_not_calibrated(model: SpectraSparseEncoder) -> None:
    static = inference_free(model, torch.ones(model.get_embedding_dimension() or 0)).static("query")
    assert static is not None
    with pytest.raises(SpectraError, match=r"sparse\.calibrate=0"):
        calibrate(SpectraSparseEncoder(modules=[static]), TEXTS, 10)


def test_vectors_that_are_not_finite_are_refused(model: SpectraSparseEncoder) -> None:
    with torch.no_grad():
        model.masked_lm().base_model.embeddings.LayerNorm.weight[0] = float("nan")
    for use in (
        lambda: calibrate(model, TEXTS, 10),
        lambda: measure_use(model, TEXTS),
        lambda: fit_closed_form_head(model, TEXTS * 8),
    ):
        with pytest.raises(SpectraError, match="NaN"):
            use()


def test_weights_that_are_not_finite_are_refused(model: SpectraSparseEncoder, tmp_path: Path) -> None:
    with torch.no_grad():  # CPU attention hides these: the vectors are finite
        model.masked_lm().base_model.encoder.layer[0].attention.self.query.weight.fill_(float("nan"))
    model.save_pretrained(str(tmp_path / "saved"))
    for opener in (splade_from, lambda folder: open_model(folder, accept=("sparse",))):
        with pytest.raises(SpectraError, match=r"saved: the weight .*query\.weight has NaN"):
            opener(tmp_path / "saved")
