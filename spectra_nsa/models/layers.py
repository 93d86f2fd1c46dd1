"""A student with some of its teacher's layers: what remains is copied exactly (Sanh et al. 2019, DistilBERT)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError, UsageError

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


def spaced_layers(layers: int, of: int) -> list[int]:
    """So many of `of` layers, evenly spaced from the lowest on: 3 of 6 are 0, 2 and 4.

    Raises:
        UsageError: there are not so many.
    """
    if not 1 <= layers <= of:
        raise UsageError(f"--layers {layers}: the teacher has {of} layers, and the student takes 1 to {of} of them.")
    return [place * of // layers for place in range(layers)]


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
    if before.config.depth_mix:
        raise SpectraError("model.layers: depth mixing has weights for all layers of a model. Take another start.")
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
