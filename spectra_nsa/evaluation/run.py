"""`evaluate`: measures every system on every task, with paired differences to each baseline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spectra_nsa.core.console import console
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.results import Result, results_document
from spectra_nsa.evaluation.collections.protocols import protocol_notes
from spectra_nsa.evaluation.outcome import Task, TaskOutcome, UnsuitableSystem
from spectra_nsa.evaluation.systems import System

OutcomeKey = tuple[str, str, str]  # task kind, dataset, system


@dataclass(frozen=True, kw_only=True)
class SystemDifference:
    """The difference `system` − `baseline` in one metric on one task.

    Attributes:
        task: the kind of task.
        name: the dataset's name.
        system: the name of the compared system.
        baseline: the name of the system it is compared with.
        metric: the metric's name.
        value: the difference.
        ci: its 95 % interval, by paired bootstrap.
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
    """The result of `evaluate`.

    Attributes:
        results: all figures, by task and then by system.
        differences: by task, those of the model to each baseline, then those of the other baselines to the first one.
        outcomes: (task kind, dataset, system) → the outcome, with values per unit, queries and distributions.
        notes: what was skipped, and why.
        seconds: the duration of the evaluation.
    """

    results: list[Result]
    differences: list[SystemDifference]
    outcomes: Mapping[OutcomeKey, TaskOutcome]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def document(self, model: str | None, **extra: Any) -> dict[str, Any]:
        """Returns the JSON document: `results_document` with `differences`, `details` and `notes`."""
        differences = [{**asdict(entry), "ci": list(entry.ci)} for entry in self.differences]
        details = [
            {"task": kind, "name": name, "system": system, **outcome.details}
            for (kind, name, system), outcome in self.outcomes.items()
            if outcome.details
        ]
        return results_document(
            self.results,
            model=model,
            seconds=self.seconds,
            differences=differences,
            details=details,
            notes=self.notes,
            **extra,
        )


def evaluate(
    systems: Sequence[System], tasks: Sequence[Task], *, progress: bool = True, notes: Sequence[str] = ()
) -> Evaluation:
    """Measures every system on every task.

    Args:
        systems: the model, then its baselines. On each task, the model is compared with every baseline that supports
            the task, and the baselines with the first of them.
        tasks: the tasks, from `tasks_from` or from the task classes.
        progress: whether to print to standard error what is being measured.
        notes: remarks to include, such as those of `tasks_from`.

    Raises:
        UsageError: two systems, or two tasks of the same kind, share a name.
    """
    _check_unique("system", [system.name for system in systems])
    _check_unique("task", [f"{task.kind}={task.name}" for task in tasks])
    start = time.perf_counter()
    outcomes: dict[OutcomeKey, TaskOutcome] = {}
    remarks = [*notes, *protocol_notes(task.kind for task in tasks)]
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
    """Merges evaluations of different systems on the same tasks.

    Args:
        evaluations: in the order that their systems will have: the model first, then its baselines.
        tasks: the tasks of the evaluations.
    """
    outcomes = {key: outcome for evaluation in evaluations for key, outcome in evaluation.outcomes.items()}
    names = list(dict.fromkeys(system for _, _, system in outcomes))
    remarks = [note for evaluation in evaluations for note in evaluation.notes]
    return _assemble(tasks, names, outcomes, remarks, sum(evaluation.seconds for evaluation in evaluations))


def _assemble(
    tasks: Sequence[Task],
    systems: Sequence[str],
    outcomes: Mapping[OutcomeKey, TaskOutcome],
    notes: list[str],
    seconds: float,
) -> Evaluation:
    ordered = [outcomes[key] for key in _keys(tasks, systems) if key in outcomes]
    return Evaluation(
        results=[result for outcome in ordered for result in outcome.results],
        differences=[difference for task in tasks for difference in _differences(task, systems, outcomes)],
        outcomes=outcomes,
        notes=notes,
        seconds=seconds,
    )


def _keys(tasks: Sequence[Task], systems: Sequence[str]) -> list[OutcomeKey]:
    return [(task.kind, task.name, system) for task in tasks for system in systems]


def _check_unique(kind: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f"the {kind} {repeated[0]!r} is given twice. Rename one of them, or drop one.")


def _differences(
    task: Task, systems: Sequence[str], outcomes: Mapping[OutcomeKey, TaskOutcome]
) -> list[SystemDifference]:
    """Returns the model's differences to each baseline that did the task, and those of the baselines to the first."""
    done = {name: outcomes[key] for name in systems if (key := (task.kind, task.name, name)) in outcomes}
    baselines = [name for name in systems[1:] if name in done]
    comparisons = [(systems[0], baseline) for baseline in baselines if systems[0] in done]
    comparisons += [(other, baselines[0]) for other in baselines[1:]]
    return [
        SystemDifference(
            task=task.kind, name=task.name, system=system, baseline=baseline, metric=metric, **vars(difference)
        )
        for system, baseline in comparisons
        for metric, difference in task.compare(done[system], done[baseline]).items()
    ]
