"""One cell of an ablation from one seed: trained, reopened, measured, recorded.

A cell is done when its `result.json` exists; the values of each item are beside it in `items.npz`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.terms import SIDES
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_write, read_json_object, write_json
from spectra_nsa.workflows.ablate.plan import REFERENCE, RESULT, AblationCell, AblationPlan

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System

TRAINED, ITEMS = "trained.json", "items.npz"
BASELINES = ("start", "bm25")
_BATCH = 32
_FIGURE = {"task", "name", "metric", "value"}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A system's figures.

    Attributes:
        facts: `result.json`.
        items: ``KIND=NAME/metric`` → (n,) values, one an item.
    """

    facts: Mapping[str, Any]
    items: Mapping[str, np.ndarray]

    def value(self, task: str, name: str, metric: str) -> float | None:
        """Returns a figure; ``None`` if it is undefined."""
        for result in self.facts["results"]:
            if (result["task"], result["name"], result["metric"]) == (task, name, metric):
                value: float = result["value"]
                return value
        return None


def read_figures(folder: Path, fingerprint: str) -> Figures | None:
    """Reads what was measured in a folder; ``None`` if nothing was.

    Raises:
        SpectraError: its files are damaged.
        UsageError: it belongs to a different recipe or to different tasks.
    """
    from spectra_nsa.index.blocks import read_arrays

    if not (folder / RESULT).is_file():
        return None
    facts = read_json_object(folder / RESULT)
    if facts.get("fingerprint") != fingerprint:
        raise UsageError(
            f"{folder} was measured for another recipe or other tasks. Delete it, rename the part, or name another "
            "folder: --output FOLDER."
        )
    damaged = SpectraError(f"{folder} is damaged. Delete it; the same command measures it again.")
    results = facts.get("results")
    if not isinstance(results, list) or not all(isinstance(row, dict) and row.keys() >= _FIGURE for row in results):
        raise damaged
    items = read_arrays(folder / ITEMS)
    if items is None:
        raise damaged
    return Figures(facts=facts, items=items)


def run_cell(plan: AblationPlan, cell: AblationCell, seed: int, *, keep_models: bool) -> None:
    """Trains and measures a cell; resumes one that was stopped.

    Raises:
        KeyboardInterrupt: the training was interrupted; its checkpoint is kept.
        UsageError: the run's folder holds a different recipe.
    """
    from spectra_nsa.evaluation.open import open_system

    run, recipe = plan.run_of(cell, seed), plan.recipe_of(cell, seed)
    if not (run / TRAINED).is_file():
        _train(plan, cell, seed)
    began = time.monotonic()
    system = open_system(run / "model", dim=plan.measures.dim)
    facts = read_json_object(run / TRAINED) | {"cell": cell.name, "seed": seed, "fingerprint": plan.fingerprint(recipe)}
    _measure(plan, run, system, facts | _cost(run, system, plan.texts), began)
    clear_run(plan, cell, seed, keep_models=keep_models)


def clear_run(plan: AblationPlan, cell: AblationCell, seed: int, *, keep_models: bool) -> None:
    """Deletes the checkpoints of a measured run, and its model unless it is kept or the reference's."""
    run = plan.run_of(cell, seed)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    if not keep_models and cell.name != REFERENCE:
        shutil.rmtree(run / "model", ignore_errors=True)


def run_baselines(plan: AblationPlan) -> dict[str, Figures]:
    """Measures the untouched start, if there is one, and BM25, if a task ranks."""
    from spectra_nsa.core.seeds import set_seed
    from spectra_nsa.evaluation.bm25 import BM25System
    from spectra_nsa.workflows.ablate.facts import has_start, start_system

    fingerprint = plan.fingerprint(plan.recipe)
    wanted = [has_start(plan.recipe), any(task.kind in ("retrieval", "pairs") for task in plan.tasks)]
    figures = {}
    for name, is_wanted in zip(BASELINES, wanted, strict=True):
        folder = plan.folder / "baselines" / name
        if is_wanted and read_figures(folder, fingerprint) is None:
            set_seed(plan.recipe.train.seed)
            system = start_system(plan.recipe, plan.measures.dim) if name == "start" else BM25System()
            facts = {
                "cell": name,
                "fingerprint": fingerprint,
                **(_encode(system, plan.texts) if name == "start" else {}),
            }
            _measure(plan, folder, system, facts)
        if is_wanted and (measured := read_figures(folder, fingerprint)) is not None:
            figures[name] = measured
    return figures


def _train(plan: AblationPlan, cell: AblationCell, seed: int) -> None:
    from spectra_nsa.config.recipe import load_recipe
    from spectra_nsa.core.memory import release_memory
    from spectra_nsa.training.run import train

    run, recipe = plan.run_of(cell, seed), plan.recipe_of(cell, seed)
    begun = (run / "recipe.yaml").is_file()
    if begun and plan.fingerprint(load_recipe(run / "recipe.yaml")) != plan.fingerprint(recipe):
        raise UsageError(f"{run} is a run of another recipe. Delete it, or rename the part.")
    result = train(recipe, resume=run if begun else None)
    if result.interrupted:
        raise KeyboardInterrupt
    taken = result.steps - result.first_step
    facts = {
        "steps": result.steps,
        "training_seconds": round(result.seconds, 2),
        "seconds_per_step": result.seconds / taken if taken else None,  # None if nothing was left to do
        "best": result.best,
    }
    write_json(run / TRAINED, facts)
    del result
    release_memory()


def _cost(run: Path, system: Any, texts: tuple[Sequence[str], Sequence[str]]) -> dict[str, Any]:
    """Returns parameters, milliseconds per text, active terms, and the largest memory that the run logged."""
    from spectra_nsa.report.run_log import MEMORY, read_run

    seconds, active = [], {}
    for _ in range(3):  # the first pass warms up
        began = time.perf_counter()
        active = _encode(system, texts)
        seconds.append(time.perf_counter() - began)
    rows = read_run(run).rows
    peaks = {key: max(row[key] for row in rows if key in row) for key in MEMORY if any(key in row for row in rows)}
    return {
        "parameters": sum(weight.numel() for weight in system.model.parameters()),
        "ms_per_text": round(1000 * min(seconds[1:]) / sum(map(len, texts)), 4),
        **active,
        **peaks,
    }


def _encode(system: Any, texts: tuple[Sequence[str], Sequence[str]]) -> dict[str, float]:
    """Encodes queries and documents; returns the mean active terms of each side of a sparse encoder."""
    from spectra_nsa.evaluation.sparse.encoding import encode_rows
    from spectra_nsa.evaluation.sparse.system import SparseSystem

    if not isinstance(system, SparseSystem):
        system.model.encode([*texts[0], *texts[1]], batch_size=_BATCH, show_progress_bar=False)
        return {}
    rows = {side: encode_rows(system.model, group, side, name=system.name, batch_size=_BATCH)
            for side, group in zip(SIDES, texts, strict=True)}  # fmt: skip
    return {f"{side}_active": round(found.nnz / max(1, found.shape[0]), 2) for side, found in rows.items()}


def _measure(
    plan: AblationPlan, folder: Path, system: System, facts: Mapping[str, Any], began: float | None = None
) -> None:
    """Measures a system on all tasks and writes `result.json` last.

    Its `seconds` are those of the training plus those since `began`; ``None`` writes no `seconds`.
    """
    import numpy as np

    from spectra_nsa.evaluation.run import evaluate

    system.name = str(facts["cell"])
    evaluation = evaluate([system], plan.tasks, progress=False)
    items: dict[str, Any] = {
        f"{kind}={name}/{metric}": np.asarray(values)
        for (kind, name, _), outcome in evaluation.outcomes.items()
        for metric, values in outcome.per_unit.items()
    }
    if not items and not any(facts["cell"] == name for name in BASELINES):
        raise SpectraError(f"{folder}: nothing could be measured: {'; '.join(evaluation.notes)}.")
    with atomic_write(folder / ITEMS, "wb") as file:
        np.savez_compressed(file, **items)
    results = [{"task": r.task, "name": r.name, "metric": r.metric, "value": r.value, "n": r.n}
               for r in evaluation.results]  # fmt: skip
    document = {"schema": 1, **facts, "results": results, "notes": evaluation.notes}
    if began is not None:
        document["seconds"] = round(facts["training_seconds"] + time.monotonic() - began, 2)
    write_json(folder / RESULT, document)
