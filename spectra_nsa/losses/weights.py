"""The weights of terms over the steps, and those of sparse regularizers that follow a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.terms import SIDES, TERM_FACTS, Side
from spectra_nsa.losses.activity import PATH, Activity


class TermWeights:
    """The weights of terms.

    Args:
        section: weights, start steps and ramps.
        active: the terms that may take part.
        activity: of sparse vectors; ``None`` for dense ones.
    """

    def __init__(self, section: LossSection, active: Sequence[str], activity: Activity | None) -> None:
        self.section, self.active, self.activity = section, active, activity

    def at(self, name: str, step: int, steps: int) -> float:
        """Returns a term's weight: 0 before its start, then rising over its ramp.

        The weight of a regularizer rises with the square of the step. If its side has a target, its weight is its share
        of the λ that follows the target.
        """
        term, side = self.section.terms[name], TERM_FACTS[name].side
        if step < term.start:
            return 0.0
        if side is not None and self.activity is not None and self.activity.controls(side):
            control = self.activity.sides[side]
            return self.share(name) * (control.weight if control.started else 1.0)
        ramp = term.ramp if term.ramp is not None else math.ceil(PATH * steps)
        risen = min(1.0, (step - term.start + 1) / (ramp + 1))
        return term.weight * (risen if side is None else risen**2)

    def share(self, name: str) -> float:
        """Returns a regularizer's share of the weight of its side."""
        together = self._of_side(TERM_FACTS[name].side)
        return self.section.terms[name].weight / sum(self.section.terms[other].weight for other in together)

    def start(self, loss: float, penalties: Mapping[Side, Mapping[str, Tensor]]) -> None:
        """Sets the first λ of sides that have none.

        Args:
            loss: the sum of the other terms.
            penalties: for each side its regularizers with weight 1.
        """
        assert self.activity is not None
        for side, values in penalties.items():
            penalty = sum(self.share(name) * float(value) for name, value in values.items())
            self.activity.sides[side].start(loss, penalty)

    def figures(self, step: int, steps: int) -> dict[str, float]:
        """Returns the activity of sparse vectors in the batches so far, and the weight of their regularizers."""
        if self.activity is None:
            return {}
        figures = self.activity.figures()
        for side in SIDES:
            if self._of_side(side) and f"{side}_active" in figures:
                figures[f"{side}_lambda"] = sum(self.at(name, step, steps) for name in self._of_side(side))
        return figures

    def _of_side(self, side: Side | None) -> list[str]:
        return [name for name in self.active if TERM_FACTS[name].side == side]
