"""The cascade against brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spectra_nsa.core.errors import UsageError
from spectra_nsa.index import cascade
from spectra_nsa.index.cascade import build_cascade, hamming_nearest, product_nearest, unpack_signs


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clustered unit vectors, a random projection of them to 256 numbers, and its packed signs."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 32))[rng.integers(0, 20, 2_000)] + 0.5 * rng.normal(size=(2_000, 32))
    vectors = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    logits = (vectors @ rng.normal(size=(32, 256))).astype(np.float32)
    return vectors, logits, np.packbits(logits > 0, axis=1)


def test_hamming_nearest_counts_differing_bits(corpus: tuple[np.ndarray, ...]) -> None:
    _, logits, codes = corpus
    index = hamming_nearest(logits[:7, :64], codes[:, :8].copy(), 50)
    distances = ((logits[:7, None, :64] > 0) != (logits[None, :, :64] > 0)).sum(-1)
    assert np.array_equal(np.take_along_axis(distances, index, 1), np.sort(distances, axis=1)[:, :50])


@pytest.mark.parametrize("block", [65_536, 300])
def test_product_nearest_is_exact_in_blocks(
    corpus: tuple[np.ndarray, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "BLOCK", block)
    _, logits, codes = corpus
    scores = logits[:7, :128] @ np.where(logits[:, :128] > 0, 1, -1).T
    index = product_nearest(logits[:7, :128], codes[:, :16], 50)
    assert np.allclose(np.take_along_axis(scores, index, 1), -np.sort(-scores, axis=1)[:, :50], rtol=1e-5)


@pytest.mark.parametrize("bits", [64, 256])
@pytest.mark.parametrize("scoring", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("block", [65_536, 300])
def test_proposing_every_document_gives_exact_search(
    corpus: tuple[np.ndarray, ...], bits: int, scoring: cascade.Scoring, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "BLOCK", block)
    vectors, logits, codes = corpus
    built = build_cascade(vectors, codes, bits=bits)
    scores, index = built.search(vectors[:20], logits[:20], 5, candidates=2_000, scoring=scoring)
    exact = vectors[:20] @ vectors.T
    assert np.abs(scores - np.take_along_axis(exact, index, 1)).max() < 0.02
    assert np.abs(scores - -np.sort(-exact, axis=1)[:, :5]).max() < 0.02
    assert built.bytes_per_document == bits // 8 + 32 and built.residuals.dtype == np.int8


def test_recall_grows_with_candidates(corpus: tuple[np.ndarray, ...]) -> None:
    vectors, logits, codes = corpus
    built = build_cascade(vectors, codes, bits=128)
    exact = np.argsort(-(vectors[:50] @ vectors.T), axis=1)[:, :10]

    def recall(candidates: int) -> float:
        _, index = built.search(vectors[:50], logits[:50], 10, candidates=candidates)
        return float((index[:, :, None] == exact[:, None, :]).any(1).mean())

    assert recall(10) < recall(30) < recall(400) and recall(400) > 0.95


def test_vectors_make_the_last_stage_exact(corpus: tuple[np.ndarray, ...]) -> None:
    vectors, logits, codes = corpus
    built = dataclasses.replace(build_cascade(vectors, codes), vectors=vectors)
    scores, index = built.search(vectors[:50], logits[:50], 10, candidates=2_000)
    exact = vectors[:50] @ vectors.T
    assert np.array_equal(index, np.argsort(-exact, axis=1)[:, :10])
    assert np.allclose(scores, -np.sort(-exact, axis=1)[:, :10], atol=1e-6)


def test_a_quantized_residual_is_finer_than_a_quantized_vector(corpus: tuple[np.ndarray, ...]) -> None:
    vectors, _, codes = corpus
    built = build_cascade(vectors, codes, bits=256)
    decoded = unpack_signs(built.codes) @ built.decoder + built.step * built.residuals
    vector_step = np.abs(vectors).max() / 127
    assert np.abs(decoded - vectors).max() < 0.51 * built.step < 0.51 * vector_step / 1.5


def test_few_documents_and_unsupported_bits(corpus: tuple[np.ndarray, ...]) -> None:
    vectors, logits, codes = corpus
    assert build_cascade(vectors[:3], codes[:3]).search(vectors[:2], logits[:2], 10)[1].shape == (2, 3)
    for bits in (0, 12, 512):
        with pytest.raises(UsageError, match="64, 128 or 256"):
            build_cascade(vectors, codes, bits=bits)
