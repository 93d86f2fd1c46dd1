"""Effects, costs and verdicts from the runs of an ablation: the document in `ablation.json`."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.terms import SIDES
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import environment
from spectra_nsa.metrics.effects import Effect, holm, part_effects, pooled_variance, reach
from spectra_nsa.workflows.ablate.cells import Figures
from spectra_nsa.workflows.ablate.plan import HEADLINE, AblationCell, AblationPlan

if TYPE_CHECKING:
    import numpy as np

Runs = Mapping[tuple[str, int], Figures]  # (cell's name, seed)
LEVEL = 0.05
_COSTS = ("seconds_per_step", "ms_per_text", "gpu_memory_gb", "parameters")  # memory_gb covers all runs of the process


@dataclass(frozen=True)
class _Column:
    """A metric that parts are judged by."""

    task: str
    name: str
    metric: str

    @property
    def key(self) -> str:
        """The key of the values of each item; Spearman's correlation has two arrays instead."""
        return f"{self.task}={self.name}/{self.metric}"

    def value(self, figures: Figures) -> float:
        value = figures.value(self.task, self.name, self.metric)
        if value is None:
            raise SpectraError(
                f"{self.metric} of {figures.facts['cell']} on {self.name} is undefined: its cosines are all equal or "
                "not finite. A lower train.lr may help."
            )
        return value

    def items(self, figures: Figures) -> list[np.ndarray]:
        names = ["cosine", "gold"] if self.task == "sts" else [self.metric]
        return [figures.items[f"{self.task}={self.name}/{name}"] for name in names]

    def draws(self, figures: Figures) -> np.ndarray:
        """Returns (R,) bootstrap draws of the figure, with the same items drawn for every run."""
        from spectra_nsa.metrics.bootstrap import correlation_draws, mean_draws

        arrays = self.items(figures)
        return correlation_draws(*arrays, method=self.metric) if len(arrays) == 2 else mean_draws(arrays[0])


def ablation_document(plan: AblationPlan, runs: Runs, baselines: Mapping[str, Figures]) -> dict[str, Any]:
    """Returns all results; docs/reference/files.md explains the fields.

    Raises:
        SpectraError: a figure is undefined, or the data of a task changed between two runs.
    """
    reference = plan.cells[0].name
    columns = [_Column(task.kind, task.name, HEADLINE[task.kind]) for task in plan.tasks]
    changed = [cell for cell in plan.cells if cell.variant is not None]
    _check_items(columns, runs)
    same = {cell.name for cell in changed if _same(plan, cell, columns, runs, reference)}
    judged = [cell for cell in changed if cell.name not in same]
    effects = {column: _effects(plan, judged, column, runs, reference) for column in columns}
    adjusted = iter(holm([one.p for found in effects.values() for one in found.values()]))
    corrected = {column: {name: next(adjusted) for name in found} for column, found in effects.items()}
    parts = []
    for cell in changed:
        found = [_effect_entry(column, effects[column][cell.name], corrected[column][cell.name])
                 for column in columns if cell.name in effects[column]]  # fmt: skip
        parts.append(_part_entry(plan, cell, found, runs, reference))
    systems = {**{name: [one] for name, one in baselines.items()}, "recipe": [runs[reference, s] for s in plan.seeds]}
    return {
        "schema": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": environment(),
        "recipe": plan.recipe.model_dump(mode="json", exclude={"name", "output"}),
        "seeds": list(plan.seeds),
        "steps": plan.steps,
        "rows": plan.rows,
        "tasks": list(plan.measures.tasks),
        "limit": plan.measures.limit,
        "dim": plan.measures.dim,
        "metrics": [_metric_entry(plan, column, effects[column], runs, reference, baselines) for column in columns],
        "active": {name: active for name, one in systems.items() if (active := _active(one)) is not None},
        "parts": parts,
        "cells": [_cell_entry(one, runs[reference, seed]) for (_, seed), one in runs.items()],
        "notes": [*plan.notes, *dict.fromkeys(note for one in runs.values() for note in one.facts["notes"])],
    }


def _check_items(columns: Sequence[_Column], runs: Runs) -> None:
    import numpy as np

    first, *others = runs.values()
    for column in columns:
        for one in others:
            arrays, known = column.items(one), column.items(first)
            alike = len(arrays[0]) == len(known[0]) and all(map(np.array_equal, arrays[1:], known[1:]))
            if not alike:
                raise SpectraError(
                    f"{column.name} has different items now than when {first.facts['cell']} was measured. Restore the "
                    "data, or name another folder: --output FOLDER."
                )


def _same(plan: AblationPlan, cell: AblationCell, columns: Sequence[_Column], runs: Runs, reference: str) -> bool:
    """Returns whether a detached head left every item unchanged, so that there is no effect to estimate."""
    import numpy as np

    assert cell.variant is not None
    return cell.variant.detached and all(
        np.array_equal(column.items(runs[cell.name, seed])[0], column.items(runs[reference, seed])[0])
        for column in columns
        for seed in plan.seeds
    )


def _effects(
    plan: AblationPlan, cells: Sequence[AblationCell], column: _Column, runs: Runs, reference: str
) -> dict[str, Effect]:
    """Returns cell → effect. Detached heads are pooled separately, because their seeds hardly vary."""
    import numpy as np

    draws = {(cell, seed): column.draws(runs[cell, seed])
             for cell in (reference, *(one.name for one in cells)) for seed in plan.seeds}  # fmt: skip
    effects: dict[str, Effect] = {}
    for detached in (False, True):
        differences, mean_draws = {}, {}
        for cell in cells:
            assert cell.variant is not None
            if cell.variant.detached != detached:
                continue
            sign = 1 if cell.variant.adds else -1
            pairs = [((cell.name, seed), (reference, seed)) for seed in plan.seeds]
            differences[cell.name] = [sign * (column.value(runs[a]) - column.value(runs[b])) for a, b in pairs]
            mean_draws[cell.name] = sign * np.mean([draws[a] - draws[b] for a, b in pairs], axis=0)
        n = len(column.items(runs[reference, plan.seeds[0]])[0])
        effects |= part_effects(differences, mean_draws, n)
    return {cell.name: effects[cell.name] for cell in cells}


def _effect_entry(column: _Column, one: Effect, adjusted: float) -> dict[str, Any]:
    return {
        "task": column.task,
        "name": column.name,
        "metric": column.metric,
        "value": one.value,
        "ci": list(one.ci),
        "p": one.p,
        "p_holm": adjusted,
        "seeds": list(one.seeds),
        "sd": one.sd,
        "se_items": one.items_variance**0.5,
        "se_seeds": one.seeds_variance**0.5,
        "df": one.df,
        "n": one.n,
    }


def _part_entry(
    plan: AblationPlan, cell: AblationCell, effects: list[dict[str, Any]], runs: Runs, reference: str
) -> dict[str, Any]:
    assert cell.variant is not None
    return {
        "part": cell.variant.part,
        "says": cell.variant.about,
        "cell": cell.name,
        "changes": dict(cell.variant.values),
        "apart": cell.variant.detached,
        "same": not effects,
        "active": _active_effect(plan, cell, runs, reference),
        "cost": {key: _ratio(plan, cell, key, runs, reference) for key in _COSTS},
        "effects": effects,
        "verdict": verdict(effects, detached=cell.variant.detached),
    }


def verdict(effects: Sequence[Mapping[str, Any]], *, detached: bool) -> str:
    """Returns what the effects of a part amount to, in words; a detached head that changed no item has no effects."""
    if not effects:
        return "head alone: no gradient into the encoder, the same vectors by construction"
    findings = []
    for word, sign in (("helps", 1), ("hurts", -1)):
        found = [one["name"] for one in effects if one["p_holm"] < LEVEL and one["value"] * sign > 0]
        if found:
            findings.append(word + (f" on {', '.join(found)}" if len(effects) > 1 else ""))
    for one in effects:
        if one["p_holm"] >= LEVEL:
            on = f" on {one['name']}" if len(effects) > 1 else ""
            largest = max(map(abs, one["ci"]))
            findings.append(
                f"no difference seen larger than {largest:.4f}{on}"
                if largest
                else f"the same in every item{on}: too few steps or items to tell"
            )
    if detached:
        findings.append("head alone: only through train.max_grad_norm, which cuts all gradients by their common norm")
    return "; ".join(findings)


def _active(runs: Sequence[Figures]) -> dict[str, float] | None:
    """Returns the mean active terms of each side over runs; ``None`` for dense vectors."""
    keys = {side: f"{side}_active" for side in SIDES}
    if not all(key in one.facts for one in runs for key in keys.values()):
        return None
    return {side: round(statistics.fmean(one.facts[key] for one in runs), 2) for side, key in keys.items()}


def _active_effect(plan: AblationPlan, cell: AblationCell, runs: Runs, reference: str) -> dict[str, float] | None:
    """Returns the mean active terms with a part minus those without it; ``None`` for dense vectors."""
    assert cell.variant is not None
    own, other = (_active([runs[name, seed] for seed in plan.seeds]) for name in (cell.name, reference))
    if own is None or other is None:
        return None
    return {side: round((own[side] - other[side]) * (1 if cell.variant.adds else -1), 2) for side in SIDES}


def _ratio(plan: AblationPlan, cell: AblationCell, key: str, runs: Runs, reference: str) -> float | None:
    """Returns the ratio of with to without the part, median over the seeds; ``None`` if it is unknown."""
    assert cell.variant is not None
    pairs = [(runs[cell.name, seed].facts.get(key), runs[reference, seed].facts.get(key)) for seed in plan.seeds]
    ratios = [(own / other) ** (1 if cell.variant.adds else -1) for own, other in pairs if own and other]
    return round(statistics.median(ratios), 4) if ratios else None


def _metric_entry(
    plan: AblationPlan,
    column: _Column,
    effects: Mapping[str, Effect],
    runs: Runs,
    reference: str,
    baselines: Mapping[str, Figures],
) -> dict[str, Any]:
    values = [column.value(runs[reference, seed]) for seed in plan.seeds]
    detached = {cell.name for cell in plan.cells if cell.variant and cell.variant.detached}
    kept = {name: effect for name, effect in effects.items() if name not in detached} or dict(effects)
    pooled = pooled_variance({name: one.seeds for name, one in kept.items()})
    found = reach(list(kept.values())) if kept else None
    if found and not found.smallest:  # if nothing changed, the smallest visible effect is unknown
        found = None
    return {
        "task": column.task,
        "name": column.name,
        "metric": column.metric,
        "n": len(column.items(runs[reference, plan.seeds[0]])[0]),
        "recipe": {"value": statistics.fmean(values), "seeds": values},
        "baselines": {name: one.value(column.task, column.name, column.metric) for name, one in baselines.items()},
        "pooled_sd": None if pooled is None else pooled**0.5,
        "smallest": found and found.smallest,
        "target": found and found.target,
        "target_seeds": found and found.seeds,
        "target_items": found and found.items,
    }


def _cell_entry(one: Figures, reference: Figures) -> dict[str, Any]:
    facts = {key: value for key, value in one.facts.items() if key not in ("schema", "fingerprint", "notes")}
    own, other = facts.get("seconds_per_step"), reference.facts.get("seconds_per_step")
    return facts | {"time_of_reference": round(own / other, 4) if own and other else None}
