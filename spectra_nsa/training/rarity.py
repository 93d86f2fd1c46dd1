"""How rare each token is in the training texts: what the entity head starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer

SAMPLE = 20_000  # rows; document frequencies settle long before


def fit_rarity(model: SpectraSentenceTransformer, rows: Dataset) -> None:
    """Sets the entity head's rarity table from the texts of the rows, where a model has none yet.

    Args:
        model: changed in place.
        rows: columns of texts.
    """
    prior = model.spectra.entity.prior
    if bool(prior.idf.any()):
        return
    counts_V = torch.zeros(len(prior.idf))
    texts = [text for values in rows[:SAMPLE].values() for text in values]
    for start in range(0, len(texts), 1_000):
        for ids in model.tokenizer(texts[start : start + 1_000], truncation=True)["input_ids"]:
            counts_V[torch.tensor(sorted(set(ids)))] += 1
    prior.fit(counts_V.to(prior.idf.device), len(texts))
