"""Binary codes and spectral anchors of a trained model, fitted again when training ends (docs/model.md, section 5)."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.strings import is_blank
from spectra_nsa.heads.fit_anchors import fit_anchors
from spectra_nsa.heads.fit_codes import MIN_TEXTS, fit_codes, hashed_pair
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.encoding.roles import encode_role

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.heads.fit_codes import Pair
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


def fit_heads_to_rows(
    model: SpectraSentenceTransformer, rows: Dataset, texts: int, *, bridge: bool, anchors: bool, seed: int,
    precision: str, quiet: bool = False,
) -> bool:  # fmt: skip
    """Fits binary codes and spectral anchors to a sample of training texts, in place.

    The same model and rows give the same heads.
    In training they follow an encoder that changes, and see only the neighbors within a batch. This fit sees the final
    encoder and the whole sample. For the codes, anchors are queries and their matches documents; the spectral anchors
    are fitted if there are such pairs.

    Args:
        model: the trained model.
        rows: columns of texts, with or without a score.
        texts: approximate number, all columns together.
        bridge: whether to fit the binary codes.
        anchors: whether to fit the spectral anchors.
        seed: of the sample and of the fit.
        precision: of the encoding.
        quiet: whether too few texts go without a line, because an earlier run printed it.

    Returns:
        whether anything was fitted. A line on stderr says if there were too few distinct documents.
    """
    columns = [name for name in rows.column_names if name != SCORE_COLUMN]
    anchors = anchors and {"anchor", "positive"} <= set(columns)
    if not (bridge or anchors):
        return False
    count = min(len(rows), max(1, texts // len(columns)))
    sample = rows.select(sorted(random.Random(seed).sample(range(len(rows)), count)))
    matches = [name for name in columns if name != "anchor"]
    documents = _distinct([text for name in matches for text in sample[name]])
    if len(documents) < MIN_TEXTS:
        if quiet:
            return False
        print(
            "spectra: note: the binary codes and spectral anchors are not fitted at the end of training: that takes "
            f"{MIN_TEXTS} different texts in {' and '.join(matches)}, and there are {len(documents)}. The embeddings "
            "are not affected. Fit the codes to a corpus later (spectra codes fit), or set train.fit_heads=0 to leave "
            "this out.",
            file=sys.stderr,
            flush=True,
        )
        return False
    anchor_texts = _distinct(list(sample["anchor"])) if "anchor" in columns else []
    scored = SCORE_COLUMN in rows.column_names  # then neither side is a document
    targets = hash_inputs(model, documents, "query" if scored else "document", precision)
    queries = hash_inputs(model, anchor_texts, "query", precision) if anchor_texts else None
    if bridge:
        fit_codes(model.spectra.bridge, targets, queries, seed=seed)
    if anchors and queries is not None:
        left, right = ({text: index for index, text in enumerate(side)} for side in (anchor_texts, documents))
        pairs = [(a, b) for a, b in zip(sample["anchor"], sample["positive"], strict=True) if a in left and b in right]
        D = model.spectra.anchors.anchors.in_features  # without the entity part of the codes' input
        fit_anchors(
            model.spectra.anchors,
            queries[0][[left[a] for a, _ in pairs], :D],
            targets[0][[right[b] for _, b in pairs], :D],
        )
    return True


def _distinct(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if not is_blank(text)))


def hash_inputs(
    model: SpectraSentenceTransformer, texts: list[str], role: str, precision: str, *, name: str = "the trained model"
) -> Pair:
    """Returns what the codes of texts are computed from, and the vectors whose cosine counts; see `hashed_pair`.

    Raises:
        SpectraError: a vector holds NaN or infinity; the message calls the model `name`.
    """
    entity = model.spectra.config.entity
    names = ["semantic", "embedding", *(["entity"] if entity else [])]
    vectors = encode_role(model, texts, role, precision=precision, outputs=names)
    for values in vectors.values():
        check_finite(values, name)
    return hashed_pair(vectors, entity=entity)
