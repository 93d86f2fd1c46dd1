"""Static students: one vector per token, averaged over a text (model2vec, Tulkens and van Dongen 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra_nsa.core.console import progress
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.metrics.finite import check_finite

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from spectra_nsa.models.teacher import Teacher

SMOOTH = 1e-4  # a: the frequency at which a token's weight is one half
_BATCH = 512
UNUSED = re.compile(r"\[unused\d+\]")


def static_model(teacher: Teacher, texts: Iterable[Sequence[str]], width: int) -> SentenceTransformer:
    """Builds a static student whose text vector is the normalized Σ_w a / (a + p(w)) · v_w over the tokens w.

    The weights are those of SIF (Arora et al. 2017), a = 10⁻⁴. v_w are the leading `width` principal components of the
    teacher's vectors for [CLS] w [SEP]. p(w) is the frequency of w in the texts, with one added to each count. Unlike
    SIF, no common component is subtracted; unlike model2vec, frequencies are counted in the corpus instead of assumed
    by Zipf's law.

    Args:
        teacher: any model with a fast tokenizer.
        texts: parts of a corpus of the student's domain.
        width: dimensions of the student's vectors.

    Raises:
        UsageError: the teacher has fewer dimensions, or no fast tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    check_width(teacher, width)
    tokenizer, words = student_vocabulary(teacher)
    size = max(tokenizer.get_vocab().values()) + 1
    vectors_WD = project_to_principal_axes(token_vectors(teacher, words), width)
    table_VD = np.zeros((size, width), dtype=np.float32)
    table_VD[words] = vectors_WD * sif_weights(token_counts(tokenizer, texts, size)[words])[:, None]
    return SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=table_VD), Normalize()],
        similarity_fn_name="cosine",
        device="cpu",
    )


def check_width(teacher: Teacher, width: int) -> None:
    """Checks the width of a static student.

    Raises:
        UsageError: its teacher has fewer dimensions.
    """
    if not 1 <= width <= teacher.width:
        raise UsageError(f"--dim {width}: choose 1 to {teacher.width}, the dimensions of {teacher.name}.")


def student_vocabulary(teacher: Teacher) -> tuple[Tokenizer, list[int]]:
    """Returns the student's tokenizer, which neither truncates nor pads, and the ids that get a vector.

    Raises:
        UsageError: the teacher has no fast tokenizer.
    """
    from tokenizers import Tokenizer

    tokenizer: Any = teacher.model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{teacher.name} has no fast tokenizer, which a static student needs. Choose another teacher.")
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    special = set(tokenizer.all_special_ids)
    pieces = sorted(copy.get_vocab().items(), key=lambda item: item[1])
    return copy, [number for piece, number in pieces if number not in special and not UNUSED.fullmatch(piece)]


@torch.inference_mode()
def token_vectors(teacher: Teacher, words: Sequence[int]) -> NDArray[np.float64]:
    """Returns (W, E): the teacher's vector for each token alone between the special tokens."""
    model: Any = teacher.model
    pattern = model.tokenizer("a", return_special_tokens_mask=True)
    real = [position for position, special in enumerate(pattern["special_tokens_mask"]) if not special]
    before, after = pattern["input_ids"][: real[0]], pattern["input_ids"][real[-1] + 1 :]
    vectors = []
    for start in progress(range(0, len(words), _BATCH), label=f"{teacher.name}: {counted(len(words), 'token')}"):
        ids_BT = torch.tensor([[*before, word, *after] for word in words[start : start + _BATCH]])
        features = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
        features = {name: value.to(model.device) for name, value in features.items()}
        vectors.append(model(features)["sentence_embedding"].float().cpu().numpy())
    check_finite(np.concatenate(vectors), teacher.name, "vectors of tokens")
    return np.concatenate(vectors).astype(np.float64)


def project_to_principal_axes(vectors_WE: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Projects vectors to their leading principal axes: (W, E) → (W, width)."""
    return (vectors_WE - vectors_WE.mean(0)) @ principal_axes(vectors_WE, width)


def principal_axes(vectors_WE: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Returns (E, width): the principal axes of vectors, the leading one first."""
    centered_WE = vectors_WE - vectors_WE.mean(0)
    return np.linalg.eigh(centered_WE.T @ centered_WE)[1][:, ::-1][:, :width]


def token_counts(tokenizer: Any, texts: Iterable[Sequence[str]], size: int) -> NDArray[np.int64]:
    """Returns how often each token occurs in the texts."""
    counts_V = np.zeros(size, dtype=np.int64)
    for part in texts:
        for encoding in tokenizer.encode_batch(list(part), add_special_tokens=False):
            np.add.at(counts_V, encoding.ids, 1)
    return counts_V


def sif_weights(counts_W: NDArray[np.int64], smooth: float = SMOOTH) -> NDArray[np.float64]:
    """Returns a / (a + p), with p from counts to which one is added; a is `smooth`."""
    share_W = (counts_W + 1) / (counts_W + 1).sum()
    return smooth / (smooth + share_W)
