"""A model from scratch that starts from another model's vector for each piece of the vocabulary.

Legend: V vocabulary, W pieces with a text, E the other model's width, D hidden size, K principal components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.static import UNUSED, principal_axes, sif_weights, token_counts
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.models.vocabulary import pieces_of
from spectra_nsa.training.checks import check_pooling
from spectra_nsa.training.init.rarity import short_states
from spectra_nsa.training.teacher.vectors import teacher_vectors

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.model import SpectraModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

SAMPLE = 20_000  # rows whose tokens are counted
SCALE = 8.0  # length of a row relative to a random one, so that random positions matter little beside it
COMMON = 8  # frequency, relative to the mean piece, at which a piece counts half
SMALLEST_SPREAD = 1e-6  # distance of a unit vector from the mean below which all vectors count as equal
CENTERED_ROWS = 512  # rows whose mean state is subtracted
_COLUMN = "text"


def begin_with_words(model: SpectraSentenceTransformer, source: str, rows: Dataset) -> int:
    """Sets token embedding and semantic projection so that the model approximates weighted means of word vectors.

    A static student of `source` computes the same means (`models.static`). Here they pass through untrained layers,
    which add little, so the student starts from them instead of from random vectors (docs/model.md, section 9).

    Args:
        model: from scratch; changed in place.
        source: any model that `open_teacher` takes. Its vectors of the pieces are cached.
        rows: columns of texts of the kind that the model is for; the frequency of a piece in them sets its weight.

    Returns:
        the number of pieces that start from a vector.

    Raises:
        UsageError: the model's pooling is not a mean over tokens.
        SpectraError: the source cannot be opened, or gives the same vector for all pieces.
    """
    spectra = model.spectra
    check_pooling(spectra.config.pooling, projected=not isinstance(spectra.semantic.projection, nn.Identity))
    pieces = pieces_with_text(model)
    texts = list(pieces.values())
    if not texts:
        raise SpectraError("model.token_vectors: the vocabulary has no piece with a text.")
    try:
        teacher = open_teacher(source)
    except SpectraError as error:
        raise SpectraError(f"model.token_vectors: {error}") from error
    with processes.first_before_others():
        known = teacher_vectors(teacher, pieces_table(texts), [_COLUMN])
    ids_W = np.fromiter(pieces, dtype=np.int64)
    weights_W = sif_weights(_counts(model, rows)[ids_W], COMMON / len(ids_W))
    _set_embedding(spectra, source, ids_W, known.of(texts, _COLUMN).astype(np.float64), weights_W)
    _center(model, rows)
    return len(pieces)


def pieces_with_text(model: SpectraSentenceTransformer) -> dict[int, str]:
    """Returns id → text of the pieces that are not special tokens, parts of characters, blanks or controls."""
    pieces = enumerate(pieces_of(model.tokenizer))
    return {
        number: piece.text
        for number, piece in pieces
        if piece and piece.text.strip() and piece.text.isprintable() and not UNUSED.fullmatch(piece.text)
    }


def pieces_table(texts: list[str]) -> Dataset:
    """Returns the pieces as rows for `teacher_vectors` and `plan_vectors`."""
    from datasets import Dataset

    return Dataset.from_dict({_COLUMN: texts})


def _counts(model: SpectraSentenceTransformer, rows: Dataset) -> NDArray[np.int64]:
    """Counts each token of the vocabulary in the rows, (V,)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return token_counts(tokenizer, rows[:SAMPLE].values(), model.spectra.config.vocab_size)


@torch.no_grad()
def _set_embedding(
    spectra: SpectraModel,
    source: str,
    ids_W: NDArray[np.int64],
    vectors_WE: NDArray[np.float64],
    weights_W: NDArray[np.float64],
) -> None:
    """Sets each row to w·v plus an orthogonal filler that makes all rows equally long, so a norm keeps the weight w.

    All rows are also orthogonal to (1, …, 1), which a norm removes. Special tokens and parts of characters get only the
    filler, which carries no meaning.
    """
    embedding = spectra.encoder.embeddings.tokens
    D, E = embedding.weight.shape[1], vectors_WE.shape[1]
    axes_EK = principal_axes(vectors_WE, min(E, D - 2))
    meaning_WK = (vectors_WE - vectors_WE.mean(0)) @ axes_EK * weights_W[:, None]
    longest = np.linalg.norm(meaning_WK, axis=1).max()
    if longest < SMALLEST_SPREAD:
        raise SpectraError(
            f"model.token_vectors: {source} gives the same vector for all {len(ids_W):,} pieces of the vocabulary."
        )
    meaning_WK /= longest
    filler_W = np.sqrt(np.maximum(1 - (meaning_WK**2).sum(1), 0))
    head = spectra.semantic.projection
    basis_DK, filler_D = (
        _identity_basis(spectra, axes_EK) if isinstance(head, nn.Identity) else _random_basis(D, axes_EK.shape[1])
    )
    if isinstance(head, nn.Linear):
        size = head.out_features
        back_KS = axes_EK.T if size == E else np.eye(axes_EK.shape[1], size)
        head.weight.zero_()
        head.weight[:, :D] = torch.from_numpy((basis_DK @ back_KS).T)
        if head.bias is not None:
            head.bias.zero_()
    length = SCALE * spectra.config.initializer_range * D**0.5
    embedding.weight[:] = torch.from_numpy(length * filler_D)
    embedding.weight[torch.from_numpy(ids_W)] = torch.from_numpy(
        length * (meaning_WK @ basis_DK.T + filler_W[:, None] * filler_D)
    ).to(embedding.weight)
    if embedding.padding_idx is not None:
        embedding.weight[embedding.padding_idx] = 0


def _random_basis(size: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a random orthonormal basis, (D, K), and filler, (D,), orthogonal to (1, …, 1)."""
    columns = torch.cat((torch.ones(size, 1), torch.randn(size, count + 1)), dim=1)
    basis = np.linalg.qr(columns.double().numpy())[0]
    return basis[:, 1:-1], basis[:, -1]


def _identity_basis(
    spectra: SpectraModel, axes_EK: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns a basis and filler for a model whose pooled states are the embedding itself.

    The basis is as near as possible to the other model's axes if both are equally wide; otherwise the leading
    components come first. The filler is the last coordinate, whose weight in the last norm is set to 0.
    """
    D = spectra.config.hidden_size
    _last_norm(spectra).weight[-1] = 0
    removed_D2 = np.linalg.qr(np.stack([np.eye(D)[-1], np.ones(D)], axis=1))[0]
    target_DK = axes_EK if len(axes_EK) == D else np.eye(D, axes_EK.shape[1])
    left, _, right = np.linalg.svd(target_DK - removed_D2 @ (removed_D2.T @ target_DK), full_matrices=False)
    return left @ right, np.eye(D)[-1]


def _last_norm(spectra: SpectraModel) -> nn.LayerNorm:
    encoder: Any = spectra.encoder
    last: nn.LayerNorm = encoder.layers[-1].ffn_norm if spectra.config.norm == "post" else encoder.final_norm
    return last


@torch.no_grad()
def _center(model: SpectraSentenceTransformer, rows: Dataset) -> None:
    """Subtracts the mean state of some texts through the last norm's bias.

    Random layers add nearly the same to every text, which would make all texts similar.
    """
    texts = [text for texts in zip(*rows[:CENTERED_ROWS].values(), strict=True) for text in texts]
    means_ND = torch.cat(
        [
            (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for states, mask, _ in short_states(model, texts)
        ]
    )
    _last_norm(model.spectra).bias.sub_(means_ND.mean(0))
