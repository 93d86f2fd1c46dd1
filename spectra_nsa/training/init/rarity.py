"""The start of the entity head: the rarity of each token in the training texts, and the spread of their states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from spectra_nsa.models.encoding.loop import batches, shortest_first
from spectra_nsa.models.prompts import column_prompts

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer

SAMPLE = 20_000  # rows; document frequencies converge much earlier
SPREAD_SAMPLE = 2_048  # texts that go through the encoder
SHORT = 64  # tokens of each that are read


def fit_rarity(model: SpectraSentenceTransformer, rows: Dataset) -> None:
    """Sets the entity head's rarity table and projection from the texts of the rows, unless the model has them already.

    Args:
        model: changed in place.
        rows: columns of texts, which are read with the prompts that the model is trained with.
    """
    prior = model.spectra.entity.prior
    if bool(prior.idf.any()):
        return
    counts_V = torch.zeros(len(prior.idf))
    prompts = column_prompts(model.prompts, rows.column_names)
    columns = [[prompts.get(name, "") + text for text in column] for name, column in rows[:SAMPLE].items()]
    texts = [text for row in zip(*columns, strict=True) for text in row]
    for start in range(0, len(texts), 1_000):
        for ids in model.tokenizer(texts[start : start + 1_000], truncation=True)["input_ids"]:
            counts_V[torch.tensor(sorted(set(ids)))] += 1
    prior.fit(counts_V.to(prior.idf.device), len(texts))
    model.spectra.entity.fit(_pooled(model, texts[:SPREAD_SAMPLE]))


@torch.no_grad()
def _pooled(model: SpectraSentenceTransformer, texts: list[str]) -> torch.Tensor:
    pool = model.spectra.entity.pool
    return torch.cat([pool(states, mask, ids) for states, mask, ids in short_states(model, texts)])


@torch.no_grad()
def short_states(
    model: SpectraSentenceTransformer, texts: list[str]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yields float32 states, mask and ids of the texts' first tokens in batches, shortest texts first."""
    spectra, training = model.spectra, model.training
    model.eval()
    for _, batch in batches(texts, 64, shortest_first(texts)):
        features = model.tokenizer(batch, truncation=True, max_length=SHORT, padding=True, return_tensors="pt")
        features = features.to(spectra.device)
        ids_BT, mask_BT = features["input_ids"], features["attention_mask"]
        yield spectra(ids_BT, mask_BT, outputs=()).last_hidden_state.float(), mask_BT, ids_BT
    model.train(training)
