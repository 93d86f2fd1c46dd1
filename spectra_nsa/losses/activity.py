"""How active sparse vectors are during training, and the weight of their regularizers that follows a target.

Weights of regularizers are not portable: they scale with the loss that they are added to and with the number of steps.
So a recipe may state the target instead, the mean number of active dimensions, and the weight λ follows. With the error
e = log(activity) − log(goal), clipped to ±1,

    log λ = c + 5 e,    c rises by 30 e / T at each of T steps

(a proportional and an integral part, which make λ a multiple and never negative). The goal moves on a geometric path
from the activity of the first batch to the target, over the first third of the steps. λ starts where the penalty is
a five-hundredth of the other terms.

A regularizer takes effect some steps after its weight, which is much of a short run. So activity and goal are those of
a tenth of the run ahead, at most 8 steps: log(activity) plus that many times its mean change in a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectra_nsa.config.terms import SIDES, Side
from spectra_nsa.core.errors import SpectraError

PATH = 1 / 3  # the share of the steps in which the goal moves, and in which the weight of a regularizer rises
_PROPORTIONAL, _INTEGRAL = 5.0, 30.0
_FIRST_SHARE = 1 / 500  # of the penalty in the loss, at the first step
_RANGE = (-5.0, 9.0)  # of c, around its first value
_AHEAD, _MOST_AHEAD = 0.1, 8.0  # the share of the steps by which the activity is extrapolated; steps, at most
_TREND = 0.3  # the share of the last step in the mean change of the activity
_FREQUENCY_WINDOW = 100  # batches, at most


class SideActivity:
    """The activity of the vectors of one side, smoothed over batches, and λ.

    Args:
        side: ``"query"`` or ``"document"``.
        target: the mean number of active dimensions; ``None`` measures the activity only.
    """

    def __init__(self, side: Side, target: float | None) -> None:
        self.side, self.target = side, target
        self.batches = 0
        self.active = 0.0
        self.frequency: Tensor | None = None  # (V,), the share of the texts in which each term is active
        self._first_active = 0.0
        self._step = -1  # at which λ was updated last
        self._error = 0.0
        self._latest: float | None = None  # log(activity) at the last update; None before it
        self._trend = 0.0  # the mean change of log(activity) in a step
        self._first: float | None = None  # c at the start; None before it
        self._integral = 0.0  # c

    @property
    def started(self) -> bool:
        """Whether λ is known, if there is one."""
        return self.target is None or self._first is not None

    @property
    def weight(self) -> float:
        """λ."""
        return math.exp(self._integral + _PROPORTIONAL * self._error)

    def observe(self, vectors_NV: Tensor, step: int, steps: int) -> None:
        """Takes the vectors of a batch into account; at the first batch of a step, λ changes.

        Raises:
            SpectraError: the vectors have no active dimensions.
        """
        active_NV = vectors_NV.detach() > 0
        active, frequency = float(active_NV.sum(1).float().mean()), active_NV.float().mean(0)
        self.batches += 1
        if self.frequency is None:
            self.active, self.frequency, self._first_active = active, frequency, active
        else:
            self.active += (active - self.active) / min(self.batches, _window(steps, 50, 20))
            window = min(self.batches, _window(steps, 5, _FREQUENCY_WINDOW))
            self.frequency = self.frequency.to(frequency.device).lerp(frequency, 1 / window)
        if self.active < 1:
            raise _silent(self.side, self.active, step, self.target)
        if self.target is not None and step != self._step:
            self._update(step, steps)

    def start(self, loss: float, penalty: float) -> None:
        """Sets the first λ.

        Args:
            loss: the sum of the other terms.
            penalty: the regularizers with λ = 1; 0 leaves λ unknown until the next batch.
        """
        if penalty > 0:
            self._first = self._integral = math.log(_FIRST_SHARE * max(loss, 1e-3) / penalty)

    def _update(self, step: int, steps: int) -> None:
        assert self.target is not None
        ahead = min(_MOST_AHEAD, _AHEAD * steps)
        done = min(1.0, (step + ahead) / max(1.0, PATH * steps))
        goal = (1 - done) * math.log(self._first_active) + done * math.log(self.target)
        active = math.log(self.active)
        if self._latest is not None:
            self._trend += _TREND * ((active - self._latest) / max(1, step - self._step) - self._trend)
        self._step, self._latest = step, active
        self._error = max(-1.0, min(1.0, active + ahead * self._trend - goal))
        if self._first is not None:
            low, high = (self._first + bound for bound in _RANGE)
            self._integral = max(low, min(high, self._integral + _INTEGRAL * self._error / steps))

    def state(self) -> dict[str, Any]:
        """Returns numbers and tensors from which `restore` continues bit for bit."""
        state = {name: value for name, value in vars(self).items() if name not in ("side", "target")}
        return state | {"frequency": None if self.frequency is None else self.frequency.cpu()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""
        vars(self).update(state)


class Activity:
    """The activity of both sides of sparse vectors.

    Args:
        targets: the mean number of active dimensions of each side; ``None`` for a side whose weights the recipe sets.
    """

    def __init__(self, targets: Mapping[Side, float | None]) -> None:
        self.sides: dict[Side, SideActivity] = {side: SideActivity(side, targets[side]) for side in SIDES}

    def controls(self, side: Side) -> bool:
        """Returns whether the weight of a side's regularizers follows a target."""
        return self.sides[side].target is not None

    def observe(self, columns: Sequence[Tensor], step: int, steps: int) -> None:
        """Takes the vectors of a batch of all processes into account.

        Args:
            columns: queries, then the columns of documents.
            step: from 0.
            steps: of the run.

        Raises:
            SpectraError: a side has no active dimensions.
        """
        self.sides["query"].observe(columns[0], step, steps)
        if len(columns) > 1:
            self.sides["document"].observe(torch.cat(list(columns[1:])), step, steps)

    def frequencies(self) -> dict[Side, Tensor]:
        """Returns the share of the texts of each side in which each term is active, (V,), as far as it is known."""
        return {side: each.frequency for side, each in self.sides.items() if each.frequency is not None}

    def figures(self) -> dict[str, float]:
        """Returns what is worth logging: the active dimensions, and the share of the texts that have the most used."""
        figures = {}
        for side, each in self.sides.items():
            if each.frequency is not None:
                figures[f"{side}_active"] = each.active
                figures[f"{side}_max_frequency"] = float(each.frequency.max())
        return figures

    def state(self) -> dict[str, Any]:
        """Returns numbers and tensors from which `restore` continues bit for bit."""
        return {side: each.state() for side, each in self.sides.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state; an empty one, of a checkpoint without it, begins anew."""
        for side, each in self.sides.items():
            each.restore(state.get(side, {}))


def _window(steps: int, share: int, limit: int) -> int:
    return max(1, min(limit, steps // share))


def _silent(side: Side, active: float, step: int, target: float | None) -> SpectraError:
    found = f"the {side} vectors are silent: {active:.2f} active dimensions on average at step {step + 1}."
    if step == 0:
        return SpectraError(
            f"{found} Set sparse.calibrate=256, which shifts the head before the first step, or "
            "sparse.head=closed_form."
        )
    if target is None:
        return SpectraError(
            f"{found} Their regularizers are too strong: lower loss.terms.{side}_flops.weight, or leave the weight to "
            f"a target, such as sparse.{side}_active={40 if side == 'query' else 150}."
        )
    return SpectraError(f"{found} Training has diverged: lower train.lr, or set a higher sparse.{side}_active.")
