"""How often a choice of experts depends on the other texts of a batch, by rounding alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectra_nsa.core.precision import autocast

TEXTS = 100  # each is also run alone
_BATCH = 32


@torch.inference_mode()
def flip_rate(model: Any, texts: Sequence[str], precision: str) -> float:
    """Returns the share of choices that differ between a text alone and the same text among others.

    A choice is that of a token, or of a text, in one layer. In fp32 rounding moves a gate by about 10⁻⁶, in bf16 by
    much more.

    Args:
        model: a sentence model with experts.
        texts: of which the first 100 are used.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """
    texts = list(texts[:TEXTS])
    alone = [_choices(model, [text], precision)[0] for text in texts]
    together = [
        row for at in range(0, len(texts), _BATCH) for row in _choices(model, texts[at : at + _BATCH], precision)
    ]
    differ = sum(int((a != b).sum()) for a, b in zip(alone, together, strict=True))
    return differ / max(1, sum(a.numel() for a in alone))


def _choices(model: Any, texts: list[str], precision: str) -> list[Tensor]:
    """Returns for each text its experts in all layers, sorted: (layers, choices, K)."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: value.to(model.device) for name, value in model.preprocess(texts).items() if name in names}
    with autocast(model.device.type, precision):
        signals = model.spectra(**inputs, outputs=(), output_hidden_states=True).signals
    chosen = torch.stack([signal.routing.chosen_BSK for signal in signals if signal.routing is not None], dim=1).cpu()
    made_BS = chosen[:, 0, :, 0] >= 0
    return [chosen[row][:, made_BS[row]].sort(-1).values for row in range(len(texts))]
