"""What a model from scratch can begin with: another model's vector for each piece of the vocabulary.

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
LOUD = 8.0  # times as long as a random row: positions, which are random, say little beside it
COMMON = 8  # times as frequent as the mean piece: what counts half
TELLING = 1e-6  # a unit vector's distance from the mean below which it says nothing
CENTRED = 512  # rows whose mean state is taken away
_COLUMN = "text"


def begin_with_words(model: SpectraSentenceTransformer, source: str, rows: Dataset) -> int:
    """Sets token embedding and semantic projection so that the model gives, about, weighted means of word vectors.

    That is what a static student of `source` gives (`models.static`), seen through layers that have learnt nothing and
    add little: the student begins there instead of at random (docs/model.md, section 9).

    Args:
        model: from scratch; changed in place.
        source: any model that `open_teacher` takes. What it gives for each piece alone is kept on the disk.
        rows: columns of texts such as the model is for; how often a piece occurs in them decides its weight.

    Returns:
        how many pieces begin with a vector.

    Raises:
        UsageError: the model's pooling is no mean over tokens.
        SpectraError: the source cannot be opened, or gives one vector for all pieces.
    """
    spectra = model.spectra
    check_pooling(spectra.config.pooling, projected=not isinstance(spectra.semantic.projection, nn.Identity))
    pieces = pieces_with_text(model)
    texts = list(pieces.values())
    if not texts:
        raise SpectraError("model.words: the vocabulary has no piece with a text.")
    try:
        teacher = open_teacher(source)
    except SpectraError as error:
        raise SpectraError(f"model.words: {error}") from error
    with processes.first_before_others():
        known = teacher_vectors(teacher, pieces_table(texts), [_COLUMN])
    ids_W = np.fromiter(pieces, dtype=np.int64)
    weights_W = sif_weights(_counts(model, rows)[ids_W], COMMON / len(ids_W))
    _set(spectra, source, ids_W, known.of(texts, _COLUMN).astype(np.float64), weights_W)
    _centre(model, rows)
    return len(pieces)


def pieces_with_text(model: SpectraSentenceTransformer) -> dict[int, str]:
    """Id → text of what the vocabulary holds beside special tokens, parts of characters, blanks and controls."""
    found = enumerate(pieces_of(model.tokenizer))
    return {
        number: piece.text
        for number, piece in found
        if piece and piece.text.strip() and piece.text.isprintable() and not UNUSED.fullmatch(piece.text)
    }


def pieces_table(texts: list[str]) -> Dataset:
    """The pieces as `teacher_vectors` and `planned` take them."""
    from datasets import Dataset

    return Dataset.from_dict({_COLUMN: texts})


def _counts(model: SpectraSentenceTransformer, rows: Dataset) -> NDArray[np.int64]:
    """(V,): how often each token occurs in the rows."""
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    return token_counts(own, rows[:SAMPLE].values(), model.spectra.config.vocab_size)


@torch.no_grad()
def _set(
    spectra: SpectraModel,
    source: str,
    ids_W: NDArray[np.int64],
    vectors_WE: NDArray[np.float64],
    weights_W: NDArray[np.float64],
) -> None:
    """A row is w·v, and at right angles to it what makes all rows equally long: a norm leaves the weight w there.

    All rows are at right angles to (1, …, 1) too, which a norm takes away. Special tokens and parts of characters have
    the rest alone, which says nothing.
    """
    embedding = spectra.encoder.embeddings.tokens
    D, E = embedding.weight.shape[1], vectors_WE.shape[1]
    axes_EK = principal_axes(vectors_WE, min(E, D - 2))
    said_WK = (vectors_WE - vectors_WE.mean(0)) @ axes_EK * weights_W[:, None]
    longest = np.linalg.norm(said_WK, axis=1).max()
    if longest < TELLING:
        raise SpectraError(f"model.words: {source} gives one vector for all {len(ids_W):,} pieces of the vocabulary.")
    said_WK /= longest
    rest_W = np.sqrt(np.maximum(1 - (said_WK**2).sum(1), 0))
    head = spectra.semantic.projection
    basis_DK, rest_D = _seen(spectra, axes_EK) if isinstance(head, nn.Identity) else _any_basis(D, axes_EK.shape[1])
    if isinstance(head, nn.Linear):
        size = head.out_features
        back_KS = axes_EK.T if size == E else np.eye(axes_EK.shape[1], size)
        head.weight.zero_()
        head.weight[:, :D] = torch.from_numpy((basis_DK @ back_KS).T)
        if head.bias is not None:
            head.bias.zero_()
    length = LOUD * spectra.config.initializer_range * D**0.5
    embedding.weight[:] = torch.from_numpy(length * rest_D)
    embedding.weight[torch.from_numpy(ids_W)] = torch.from_numpy(
        length * (said_WK @ basis_DK.T + rest_W[:, None] * rest_D)
    ).to(embedding.weight)
    if embedding.padding_idx is not None:
        embedding.weight[embedding.padding_idx] = 0


def _any_basis(size: int, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(D, K) and (D,): orthonormal, at right angles to (1, …, 1), at random by torch's seed."""
    columns = torch.cat((torch.ones(size, 1), torch.randn(size, count + 1)), dim=1)
    basis = np.linalg.qr(columns.double().numpy())[0]
    return basis[:, 1:-1], basis[:, -1]


def _seen(spectra: SpectraModel, axes_EK: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same where the pooled states are the embedding itself: as near as can be to the other model's axes if it is
    as wide, else leading components first; the rest is the last number, which the last norm is told to leave out."""
    D = spectra.config.hidden_size
    _last_norm(spectra).weight[-1] = 0
    taken_D2 = np.linalg.qr(np.stack([np.eye(D)[-1], np.ones(D)], axis=1))[0]
    aim_DK = axes_EK if len(axes_EK) == D else np.eye(D, axes_EK.shape[1])
    left, _, right = np.linalg.svd(aim_DK - taken_D2 @ (taken_D2.T @ aim_DK), full_matrices=False)
    return left @ right, np.eye(D)[-1]


def _last_norm(spectra: SpectraModel) -> nn.LayerNorm:
    encoder: Any = spectra.encoder
    last: nn.LayerNorm = encoder.layers[-1].ffn_norm if spectra.config.norm == "post" else encoder.final_norm
    return last


@torch.no_grad()
def _centre(model: SpectraSentenceTransformer, rows: Dataset) -> None:
    """Takes the mean state of some texts away, by the last norm's bias: what random layers add is nearly the same for
    all texts, and would make all of them alike."""
    texts = [text for texts in zip(*rows[:CENTRED].values(), strict=True) for text in texts]
    means_ND = torch.cat(
        [
            (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            for states, mask, _ in short_states(model, texts)
        ]
    )
    _last_norm(model.spectra).bias.sub_(means_ND.mean(0))
