"""A student with some of its teacher's layers, copied exactly (Sanh et al. 2019, DistilBERT)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.metrics.finite import check_finite

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


MAX_TOKENS = 64  # of a text that layers are chosen by


def best_layers(model: SpectraSentenceTransformer, layers: int, texts: Sequence[str]) -> tuple[list[int], float]:
    """Chooses the layers that, untrained, best preserve a model's vectors.

    Layers are dropped one by one, each time the one without which the vectors of `texts` stay nearest to the full
    model's. The choice is measured because no rule by position holds: of MiniLM's six layers, 0, 4 and 5 preserve much
    more than 0, 2 and 4 (cf. Sajjad et al. 2023, who drop by position).

    Args:
        model: unchanged when this returns.
        layers: the number of layers to keep.
        texts: a few hundred of the kind that the student is for; their first 64 tokens are read.

    Returns:
        the layers, counted from 0, lowest first, and the mean cosine of their vectors with the full model's.

    Raises:
        UsageError: the model has fewer layers.
        SpectraError: the model mixes depths.
    """
    import numpy as np
    from torch import nn

    check_layers(layers, model.spectra.config.num_hidden_layers)
    _check_depths(model.spectra.config)
    encoder, all_layers, length = model.spectra.encoder, model.spectra.encoder.layers, model.max_seq_length
    kept, cosine = list(range(len(all_layers))), 1.0
    attempts = [(size, index) for size in range(len(all_layers), layers, -1) for index in range(size)]
    cosines: list[float] = []
    try:
        model.max_seq_length = min(length or MAX_TOKENS, MAX_TOKENS)
        full_ND = model.encode_document(list(texts), normalize_embeddings=True, show_progress_bar=False)
        check_finite(full_ND, "the teacher")
        for size, index in progress(attempts, label=f"which {layers} of {len(all_layers)} layers"):
            encoder.layers = nn.ModuleList(all_layers[number] for number in kept if number != kept[index])
            reduced_ND = model.encode_document(list(texts), normalize_embeddings=True, show_progress_bar=False)
            cosines.append(float(np.mean(np.sum(full_ND * reduced_ND, axis=1))))
            if len(cosines) == size:
                cosine = max(cosines)
                del kept[cosines.index(cosine)]
                cosines = []
    finally:
        encoder.layers, model.max_seq_length = all_layers, length
    return kept, cosine


def check_layers(layers: int, total: int) -> None:
    """Checks that a teacher of `total` layers has that many to give.

    Raises:
        UsageError: it has fewer.
    """
    if not 1 <= layers <= total:
        raise UsageError(f"--layers {layers}: the teacher has {total} layers; the student takes 1 to {total} of them.")


def _check_depths(config: SpectraConfig) -> None:
    if config.ffn == "moe":
        raise SpectraError(
            "model.keep_layers: which layers have experts depends on their number, so none can be dropped. Take a "
            "start without experts, or recover a dense model first (spectra moe dense)."
        )
    if config.depth_mix or config.layer_routing:
        raise SpectraError(
            "model.keep_layers: depth mixing has weights for every layer, so none can be dropped. Take another start."
        )


def keep_layers(model: SpectraSentenceTransformer, layers: Sequence[int]) -> None:
    """Drops all other layers of a model's encoder; embeddings, norms and heads do not change.

    Args:
        model: changed in place.
        layers: distinct numbers from 0, lowest first.

    Raises:
        UsageError: a layer that does not exist, or a different order.
        SpectraError: the model mixes depths, whose weights belong to the number of layers.
    """
    from spectra_nsa.models.model import SpectraModel

    before = model.spectra
    count = before.config.num_hidden_layers
    if list(layers) != sorted(set(layers)) or not layers or not 0 <= layers[0] <= layers[-1] < count:
        raise UsageError(
            f"model.keep_layers is {list(layers)}: the start has {count} layers, numbered 0 to {count - 1}. Name each "
            "layer to keep once, lowest first."
        )
    _check_depths(before.config)
    config = copy.deepcopy(before.config)
    config.num_hidden_layers = len(layers)
    new_numbers = {old: new for new, old in enumerate(layers)}
    weights = {}
    for name, value in before.state_dict().items():
        if name.startswith("encoder.layers."):
            number, rest = name.removeprefix("encoder.layers.").split(".", 1)
            if int(number) not in new_numbers:
                continue
            name = f"encoder.layers.{new_numbers[int(number)]}.{rest}"
        weights[name] = value
    after = SpectraModel(config)
    after.load_state_dict(weights)
    model[0].model = after.train(before.training).to(before.device)
