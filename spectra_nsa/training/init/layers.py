"""A student with some of its teacher's layers: what remains is copied exactly (Sanh et al. 2019, DistilBERT)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


SEEN = 64  # tokens of a text that layers are chosen by


def best_layers(model: SpectraSentenceTransformer, layers: int, texts: Sequence[str]) -> tuple[list[int], float]:
    """So many of a model's layers as, untrained, give nearly its vectors.

    One layer goes after the other: always the one without which the vectors of `texts` stay nearest to the whole
    model's. The rule is measured because none that counts holds: of MiniLM's six layers 0, 4 and 5 are worth much more
    than 0, 2 and 4 (cf. Sajjad et al. 2023, who drop by position).

    Args:
        model: as it was when this returns.
        layers: how many stay.
        texts: such as the student is for; some hundreds, of which the first 64 tokens are read.

    Returns:
        The numbers from 0, the lowest first, and the mean cosine of the vectors that they give with the model's own.

    Raises:
        UsageError: it has not so many.
        SpectraError: the model mixes depths.
    """
    import numpy as np
    from torch import nn

    check_layers(layers, model.spectra.config.num_hidden_layers)
    _check_depths(model.spectra.config)
    encoder, whole, length = model.spectra.encoder, model.spectra.encoder.layers, model.max_seq_length
    kept, near = list(range(len(whole))), 1.0
    tries = [(size, place) for size in range(len(whole), layers, -1) for place in range(size)]
    nearest: list[float] = []
    try:
        model.max_seq_length = min(length or SEEN, SEEN)
        wanted_ND = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        for size, place in progress(tries, label=f"which {layers} of {len(whole)} layers"):
            encoder.layers = nn.ModuleList(whole[number] for number in kept if number != kept[place])
            found_ND = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
            nearest.append(float(np.mean(np.sum(wanted_ND * found_ND, axis=1))))
            if len(nearest) == size:
                near = max(nearest)
                del kept[nearest.index(near)]
                nearest = []
    finally:
        encoder.layers, model.max_seq_length = whole, length
    return kept, near


def check_layers(layers: int, of: int) -> None:
    """That a teacher has so many.

    Raises:
        UsageError: it has not.
    """
    if not 1 <= layers <= of:
        raise UsageError(f"--layers {layers}: the teacher has {of} layers, and the student takes 1 to {of} of them.")


def _check_depths(config: SpectraConfig) -> None:
    if config.depth_mix:
        raise SpectraError("model.layers: depth mixing has weights for all layers of a model. Take another start.")


def keep_layers(model: SpectraSentenceTransformer, layers: Sequence[int]) -> None:
    """Leaves a model these layers of its encoder, in this order; embeddings, norms and heads stay as they are.

    Args:
        model: changed in place.
        layers: numbers from 0, the lowest; none twice, lowest first.

    Raises:
        UsageError: a layer that does not exist, or another order.
        SpectraError: the model mixes depths, whose weights belong to the number of layers.
    """
    from spectra_nsa.models.model import SpectraModel

    before = model.spectra
    count = before.config.num_hidden_layers
    if list(layers) != sorted(set(layers)) or not layers or not 0 <= layers[0] <= layers[-1] < count:
        raise UsageError(
            f"model.layers is {list(layers)}: the start has {count} layers, numbered 0 to {count - 1}. Name each that "
            "stays once, the lowest first."
        )
    _check_depths(before.config)
    config = copy.deepcopy(before.config)
    config.num_hidden_layers = len(layers)
    places = {old: new for new, old in enumerate(layers)}
    weights = {}
    for name, value in before.state_dict().items():
        if name.startswith("encoder.layers."):
            number, rest = name.removeprefix("encoder.layers.").split(".", 1)
            if int(number) not in places:
                continue
            name = f"encoder.layers.{places[int(number)]}.{rest}"
        weights[name] = value
    after = SpectraModel(config)
    after.load_state_dict(weights)
    model[0].model = after.train(before.training).to(before.device)
