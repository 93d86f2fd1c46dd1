"""`evaluate`: every system on every task, and the paired differences to the baseline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spectra_nsa.core.console import console
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.results import Result, results_document
from spectra_nsa.evaluation.outcome import Task, TaskOutcome, UnsuitableSystem
from spectra_nsa.evaluation.systems import System

Key = tuple[str, str, str]  # task kind, data set, system


@dataclass(frozen=True, kw_only=True)
class SystemDifference:
    """`system` − `baseline` in one metric on one task.

    Attributes:
        task: the kind of task.
        name: the data set's name.
        system: the one that is compared.
        baseline: what it is compared with.
        metric: the metric's name.
        value: the difference.
        ci: its 95 % interval by paired bootstrap.
        share_not_above: the share of resamples in which the system is not above the baseline.
        n: the number of units.
    """

    task: str
    name: str
    system: str
    baseline: str
    metric: str
    value: float
    ci: tuple[float, float]
    share_not_above: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        results: every figure, task by task, systems in the given order.
        differences: each other system against the baseline of its task.
        outcomes: (task kind, data set, system) → everything else: values per unit, hits, distributions.
        notes: what was left out, and why.
        seconds: how long it took.
    """

    results: list[Result]
    differences: list[SystemDifference]
    outcomes: Mapping[Key, TaskOutcome]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def document(self, model: str | None, **extra: Any) -> dict[str, Any]:
        """The JSON document: `results_document` with `differences` and `notes`."""
        differences = [{**asdict(one), "ci": list(one.ci)} for one in self.differences]
        return results_document(
            self.results, model=model, seconds=self.seconds, differences=differences, notes=self.notes, **extra
        )


def evaluate(
    systems: Sequence[System], tasks: Sequence[Task], *, progress: bool = True, notes: Sequence[str] = ()
) -> Evaluation:
    """Measures every system on every task.

    Args:
        systems: the model first, then its baselines. On each task the first baseline that can do the task is what the
            others are compared with.
        tasks: as `tasks_from` or the task classes make them.
        progress: say on standard error what is being measured.
        notes: remarks to pass on, such as those of `tasks_from`.

    Raises:
        UsageError: two systems or two tasks of a kind share a name, so that their figures could not be told apart.
    """
    _unique("system", [system.name for system in systems])
    _unique("task", [f"{task.kind}={task.name}" for task in tasks])
    start = time.perf_counter()
    outcomes: dict[Key, TaskOutcome] = {}
    remarks = list(notes)
    for system in systems:
        for task in tasks:
            if progress:
                console(stderr=True).print(f"{system.name}: {task.kind} on {task.name}", markup=False, style="dim")
            try:
                outcome = task.run(system)
            except UnsuitableSystem as reason:
                remarks.append(f"{task.kind} on {task.name}: {reason}")
                continue
            outcomes[task.kind, task.name, system.name] = outcome
            remarks.extend(outcome.notes)
    names = [system.name for system in systems]
    return _assemble(tasks, names, outcomes, remarks, time.perf_counter() - start)


def combine(evaluations: Sequence[Evaluation], tasks: Sequence[Task]) -> Evaluation:
    """One evaluation of systems that were measured at different times on the same tasks.

    Args:
        evaluations: in the order their systems shall have; the first system is compared with the next ones.
        tasks: the tasks they were measured on.
    """
    outcomes = {key: outcome for one in evaluations for key, outcome in one.outcomes.items()}
    names = list(dict.fromkeys(system for _, _, system in outcomes))
    remarks = [note for one in evaluations for note in one.notes]
    return _assemble(tasks, names, outcomes, remarks, sum(one.seconds for one in evaluations))


def _assemble(
    tasks: Sequence[Task], systems: Sequence[str], outcomes: Mapping[Key, TaskOutcome], notes: list[str], seconds: float
) -> Evaluation:
    ordered = [outcomes[key] for key in _keys(tasks, systems) if key in outcomes]
    return Evaluation(
        results=[result for outcome in ordered for result in outcome.results],
        differences=[one for task in tasks for one in _differences(task, systems, outcomes)],
        outcomes=outcomes,
        notes=notes,
        seconds=seconds,
    )


def _keys(tasks: Sequence[Task], systems: Sequence[str]) -> list[Key]:
    return [(task.kind, task.name, system) for task in tasks for system in systems]


def _unique(what: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"the {what} {twice[0]!r} is given twice. Rename one, or leave it out.")


def _differences(task: Task, systems: Sequence[str], outcomes: Mapping[Key, TaskOutcome]) -> list[SystemDifference]:
    """Each system's distance to the first baseline that did the task; none when there is no baseline."""
    done = {name: outcomes[key] for name in systems if (key := (task.kind, task.name, name)) in outcomes}
    baseline = next((name for name in systems[1:] if name in done), None)
    if baseline is None:
        return []
    return [
        SystemDifference(
            task=task.kind, name=task.name, system=system, baseline=baseline, metric=metric, **vars(difference)
        )
        for system, outcome in done.items()
        if system != baseline
        for metric, difference in task.compare(outcome, done[baseline]).items()
    ]
