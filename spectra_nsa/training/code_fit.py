"""The hash of a trained model, fitted once more when training ends (docs/model.md, section 5)."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import numpy as np

from spectra_nsa.heads.bridge import BITS
from spectra_nsa.models.fit_codes import SMALLEST, fit_codes, hashed_pair
from spectra_nsa.models.precision import autocast
from spectra_nsa.training.data import SCORE

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.fit_codes import Pair
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


def fit_codes_to_rows(
    model: SpectraSentenceTransformer, rows: Dataset, texts: int, *, seed: int, precision: str
) -> bool:
    """Fits the hash to a sample of training texts, in place; the same model and rows give the same codes.

    What the bridge learned beside the encoder followed an encoder that moved, from one batch's neighbours at a time;
    this sees the final one, and candidates from all over the sample: the texts that anchors are matched with, which the
    anchors stand before as queries.

    Args:
        model: as training left it.
        rows: columns of texts, perhaps a score beside them.
        texts: about how many, all columns together.
        seed: of the sample and of the fit.
        precision: of the encoding.

    Returns:
        whether there were enough distinct documents; a line on stderr says so where there were not.
    """
    columns = [name for name in rows.column_names if name != SCORE]
    count = min(len(rows), max(1, texts // len(columns)))
    sample = rows.select(sorted(random.Random(seed).sample(range(len(rows)), count)))
    matches = [name for name in columns if name != "anchor"]
    documents = _distinct([text for name in matches for text in sample[name]])
    if len(documents) < SMALLEST:
        few = f"spectra: codes stay as trained: {len(documents)} training texts are too few to fit {BITS} bits to"
        remedy = "Train on more, fit them to a corpus (spectra codes fit), or set train.fit_codes=0 to be spared this"
        print(f"{few} ({SMALLEST} at least). {remedy}.", file=sys.stderr, flush=True)
        return False
    asked = _distinct(list(sample["anchor"])) if "anchor" in columns else []
    scored = SCORE in rows.column_names  # then neither side is a document
    found = _hashed(model, documents, precision, query=scored)
    queries = _hashed(model, asked, precision, query=True) if asked else None
    fit_codes(model.spectra.bridge, found, queries, seed=seed)
    return True


def _distinct(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _hashed(model: SpectraSentenceTransformer, texts: list[str], precision: str, *, query: bool) -> Pair:
    entity = model.spectra.config.entity
    names = ["semantic", "embedding", *(["entity"] if entity else [])]
    encode = model.encode_query if query else model.encode_document
    with autocast(model.device.type, precision):
        found: dict[str, np.ndarray] = encode(texts, outputs=names)  # type: ignore[assignment]
    return hashed_pair(found, entity=entity)
