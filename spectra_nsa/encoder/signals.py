"""What a layer reports beside its hidden states."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Routing(NamedTuple):
    """What the router of a layer with experts has decided.

    S is T if each token has a choice, with zeros (and −1 in `chosen_BSK`) at padding, or 1 if each text has one.

    Attributes:
        logits_BSE: the gate before its softmax, fp32.
        probs_BSE: the gate; sums to 1 over the experts.
        chosen_BSK: the numbers of the experts.
        groups: into which the experts are cut, with one chosen in each; 1 for no groups.
    """

    logits_BSE: Tensor
    probs_BSE: Tensor
    chosen_BSK: Tensor
    groups: int = 1


class Signals(NamedTuple):
    """The side outputs of one layer, or of one part of it. `None` marks what a part does not report.

    Attributes:
        entropy_BHT: entropy of each head's attention, (B, H, T) in [0, 1].
        routing: the choice of experts.
    """

    entropy_BHT: Tensor | None = None
    routing: Routing | None = None

    def merged(self, other: Signals) -> Signals:
        """Returns the signals of both; no field may be reported by both."""
        return Signals(
            entropy_BHT=other.entropy_BHT if self.entropy_BHT is None else self.entropy_BHT,
            routing=other.routing if self.routing is None else self.routing,
        )


NO_SIGNALS = Signals()
