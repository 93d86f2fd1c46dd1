"""What a trainer is built from, beside transformers' arguments: the plan of a run, and the model that learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn
from transformers import TrainerCallback

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.training.loop.interrupt import StopOnInterrupt
from spectra_nsa.training.monitor.observers import Observers, build_observers
from spectra_nsa.training.monitor.throughput import Throughput
from spectra_nsa.training.runs.backup import Backup


class Learner(Protocol):
    """What a trainer asks of the Hugging Face model that learns."""

    def weight_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Returns the weights that may learn at rates of their own, by kind."""


class DevMetric(Protocol):
    """A figure of the held-out rows that decides which checkpoint is best."""

    metric: str
    greater_is_better: bool

    def __call__(self, model: Any) -> dict[str, float]:
        """Returns the figure under the name `metric`."""


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What the driver hands to a job that builds its trainer.

    Attributes:
        folder: `runs/NAME`.
        interrupt: what Ctrl-C does.
        backup: what copies the checkpoints; ``None`` for no copies.
        deadline: a `time.monotonic()` at which the run stops; ``None`` for none.
    """

    folder: Path
    interrupt: StopOnInterrupt | None = None
    backup: Backup | None = None
    deadline: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerPlan:
    """What `RunTrainer` needs to know of a run.

    Attributes:
        facts: what decides which rows a step reads; kept in the manifest of each checkpoint.
        lr_factors: the learning rates of kinds of weights, as multiples of the others'.
        precision: see `resolve_precision`.
        observers: what watches the run.
        evaluator: the dev metric; ``None`` for no dev set.
        backup: what copies the checkpoints; ``None`` for no copies.
        deadline: a `time.monotonic()` at which the run stops, its learning rate at 0; ``None`` for none.
        interrupt: what Ctrl-C does; ``None`` leaves it as it is.
        callbacks: those of one kind of run; they see the log before all others.
    """

    facts: Mapping[str, Any]
    lr_factors: Mapping[str, float]
    precision: str
    observers: Observers
    evaluator: DevMetric | None = None
    backup: Backup | None = None
    deadline: float | None = None
    interrupt: StopOnInterrupt | None = None
    callbacks: Sequence[TrainerCallback] = ()


def plan_run(
    recipe: Recipe,
    setup: RunSetup,
    throughput: Throughput,
    *,
    facts: Mapping[str, Any],
    evaluator: DevMetric | None,
    terms: Sequence[str] = (),
    measure: Callable[[], dict[str, float]] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainerPlan:
    """Plans a run; `setup` and the recipe say what all kinds of runs have in common.

    Args:
        recipe: the run.
        setup: its folder, deadline, backup and interrupt.
        throughput: counts the work.
        facts: what decides which rows a step reads.
        evaluator: the dev metric; ``None`` for no dev set.
        terms: the loss terms that take part in training.
        measure: returns the health figures; ``None`` for no measurements.
        callbacks: those of one kind of run.
    """
    return TrainerPlan(
        facts=facts,
        lr_factors={
            "gates": recipe.train.gate_lr_factor,
            "routers": recipe.train.router_lr_factor,
            "experts": recipe.train.expert_lr_factor,
        },
        precision=throughput.precision,
        observers=build_observers(
            recipe, setup.folder, throughput, terms=terms, measure=measure, deadline=setup.deadline
        ),
        evaluator=evaluator,
        backup=setup.backup,
        deadline=setup.deadline,
        interrupt=setup.interrupt,
        callbacks=callbacks,
    )
