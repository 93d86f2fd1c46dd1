"""The hash of a trained model, fitted once more when training ends (docs/model.md, section 5)."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

import torch

from spectra_nsa.heads.bridge import BITS
from spectra_nsa.models.fit_codes import SMALLEST, fit_codes, hashed_pair
from spectra_nsa.training.data import SCORE
from spectra_nsa.training.precision import autocast

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.fit_codes import Pair
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


def fit_codes_to_rows(
    model: SpectraSentenceTransformer, rows: Dataset, texts: int, *, seed: int, precision: str
) -> bool:
    """Fits the hash to a sample of training texts, in place; the same model and rows give the same codes.

    What the bridge learned beside the encoder followed an encoder that moved, from one batch's neighbours at a time;
    this sees the final one, and candidates from all over the sample.

    Args:
        model: as training left it.
        rows: columns of texts, perhaps a score beside them.
        texts: about how many of them, all columns together.
        seed: of the sample and of the fit.
        precision: of the encoding.

    Returns:
        whether there were enough distinct texts; a line on stderr says so where there were not.
    """
    columns = [name for name in rows.column_names if name != SCORE]
    count = min(len(rows), max(1, texts // len(columns)))
    sample = rows.select(sorted(random.Random(seed).sample(range(len(rows)), count)))
    distinct: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name in columns:
        distinct[name] = [text for text in dict.fromkeys(sample[name]) if text.strip() and text not in seen]
        seen.update(distinct[name])
    if len(seen) < SMALLEST:
        few = f"spectra: codes stay as trained: {len(seen)} training texts are too few to fit {BITS} bits to"
        print(f"{few} ({SMALLEST} at least).", file=sys.stderr, flush=True)
        return False
    pairs = [_hashed(model, name, found, precision) for name, found in distinct.items() if found]
    fit_codes(model.spectra.bridge, (torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])), seed=seed)
    return True


def _hashed(model: SpectraSentenceTransformer, column: str, texts: list[str], precision: str) -> Pair:
    entity = model.spectra.config.entity
    encode = model.encode_document if column.startswith(("positive", "negative")) else model.encode_query
    with autocast(model.device.type, precision):
        found = encode(texts, outputs=["semantic", "embedding", *(["entity"] if entity else [])])
    return hashed_pair(found, entity=entity)
