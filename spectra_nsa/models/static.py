"""A student without layers: a vector a token, a text the mean of its own (model2vec, Tulkens and van Dongen 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from spectra_nsa.models.teacher import Teacher

SMOOTH = 1e-4  # a: the frequency at which a token counts half
_BATCH = 512
UNUSED = re.compile(r"\[unused\d+\]")


def static_model(teacher: Teacher, texts: Iterable[Sequence[str]], width: int) -> SentenceTransformer:
    """A text is the normalised Σ_w a / (a + p(w)) · v_w over its tokens w, a = 10⁻⁴ (Arora et al. 2017, SIF).

    v_w are the leading `width` principal components of what the teacher gives for [CLS] w [SEP], p(w) the frequency of
    w in the texts, each token counted once more than it occurs. Unlike SIF, no common component is taken away from
    sentences; unlike model2vec, frequencies are the corpus's own, not Zipf's law of the vocabulary's order.

    Args:
        teacher: any model with a fast tokenizer.
        texts: parts of a corpus such as the student is for.
        width: of the student.

    Raises:
        UsageError: the teacher is narrower, or has no fast tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.normalize import Normalize
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    check_width(teacher, width)
    own, words = student_vocabulary(teacher)
    size = max(own.get_vocab().values()) + 1
    vectors_WD = project_to_principal_axes(token_vectors(teacher, words), width)
    table_VD = np.zeros((size, width), dtype=np.float32)
    table_VD[words] = vectors_WD * sif_weights(token_counts(own, texts, size)[words])[:, None]
    return SentenceTransformer(
        modules=[StaticEmbedding(own, embedding_weights=table_VD), Normalize()],
        similarity_fn_name="cosine",
        device="cpu",
    )


def check_width(teacher: Teacher, width: int) -> None:
    """That a static student may be so wide.

    Raises:
        UsageError: its teacher is narrower.
    """
    if not 1 <= width <= teacher.width:
        raise UsageError(f"--dim {width}: a static student has 1 to {teacher.width} numbers, {teacher.name}'s width.")


def student_vocabulary(teacher: Teacher) -> tuple[Tokenizer, list[int]]:
    """The student's tokenizer, which neither cuts nor pads, and the ids that get a vector.

    Raises:
        UsageError: the teacher has no fast tokenizer.
    """
    from tokenizers import Tokenizer

    tokenizer: Any = teacher.model.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{teacher.name} has no fast tokenizer, which a static student needs.")
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    special = set(tokenizer.all_special_ids)
    pieces = sorted(own.get_vocab().items(), key=lambda item: item[1])
    return own, [number for piece, number in pieces if number not in special and not UNUSED.fullmatch(piece)]


@torch.inference_mode()
def token_vectors(teacher: Teacher, words: Sequence[int]) -> NDArray[np.float64]:
    """(W, E): what the teacher gives for each token alone between its special tokens."""
    model: Any = teacher.model
    pattern = model.tokenizer("a", return_special_tokens_mask=True)
    real = [place for place, special in enumerate(pattern["special_tokens_mask"]) if not special]
    before, after = pattern["input_ids"][: real[0]], pattern["input_ids"][real[-1] + 1 :]
    found = []
    for start in progress(range(0, len(words), _BATCH), label=f"{teacher.name}: {len(words):,} tokens"):
        ids_BT = torch.tensor([[*before, word, *after] for word in words[start : start + _BATCH]])
        features = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
        features = {name: value.to(model.device) for name, value in features.items()}
        found.append(model(features)["sentence_embedding"].float().cpu().numpy())
    return np.concatenate(found).astype(np.float64)


def project_to_principal_axes(vectors_WE: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The leading principal components: (W, E) → (W, width)."""
    return (vectors_WE - vectors_WE.mean(0)) @ principal_axes(vectors_WE, width)


def principal_axes(vectors_WE: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(E, width): their directions, the leading first."""
    centred_WE = vectors_WE - vectors_WE.mean(0)
    return np.linalg.eigh(centred_WE.T @ centred_WE)[1][:, ::-1][:, :width]


def token_counts(tokenizer: Any, texts: Iterable[Sequence[str]], size: int) -> NDArray[np.int64]:
    """How often each token occurs in the texts."""
    counts_V = np.zeros(size, dtype=np.int64)
    for part in texts:
        for encoding in tokenizer.encode_batch(list(part), add_special_tokens=False):
            np.add.at(counts_V, encoding.ids, 1)
    return counts_V


def sif_weights(counts_W: NDArray[np.int64], smooth: float = SMOOTH) -> NDArray[np.float64]:
    """a / (a + p), p of counts that are raised by one; a is `smooth`."""
    share_W = (counts_W + 1) / (counts_W + 1).sum()
    return smooth / (smooth + share_W)
