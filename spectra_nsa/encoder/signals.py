"""What a layer reports beside its hidden states."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Signals(NamedTuple):
    """The side outputs of one layer, or of one part of it. `None` marks what a part does not report.

    Attributes:
        entropy_BHT: entropy of each head's attention, (B, H, T) in [0, 1].
    """

    entropy_BHT: Tensor | None = None

    def merged(self, other: Signals) -> Signals:
        """Returns the signals of both; no field may be reported by both."""
        return Signals(*(theirs if ours is None else ours for ours, theirs in zip(self, other, strict=True)))


NO_SIGNALS = Signals()
