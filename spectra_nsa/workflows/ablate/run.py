"""`spectra ablate`: the worth of each part of a recipe, over several seeds, with equal numbers of steps."""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import errors_begin
from spectra_nsa.core.files import atomic_write, locked_folder, write_json
from spectra_nsa.workflows.ablate.cells import Figures, clear_run, read_figures, run_baselines, run_cell
from spectra_nsa.workflows.ablate.effects import ablation_document
from spectra_nsa.workflows.ablate.plan import AblationCell, AblationPlan, keep_plan


def ablate(plan: AblationPlan, *, keep_models: bool = False, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the cells that are not done, and writes `ablation.json`, `ablation.md` and `report.html`.

    All cells of one seed run before those of the next, so an ablation that is stopped is complete for fewer seeds.

    Args:
        plan: by `make_plan`.
        keep_models: keep the weights of all cells; otherwise only the reference's.
        say: called with a line of progress before each cell.

    Returns:
        the content of `ablation.json`.

    Raises:
        KeyboardInterrupt: it was stopped; the same call resumes it.
        UsageError: another process uses the folder.
    """
    keep_plan(plan)
    with locked_folder(plan.folder):
        return _run(plan, keep_models, say)


def _run(plan: AblationPlan, keep_models: bool, say: Callable[[str], None]) -> dict[str, Any]:
    runs = [(cell, seed) for seed in plan.seeds for cell in plan.cells]
    done = {(cell.name, seed): measured for cell, seed in runs if (measured := _measured(plan, cell, seed)) is not None}
    if done:
        say(f"{len(done)} of {counted(len(runs), 'run')} done already")
    baselines = run_baselines(plan)
    clock = _Clock([one.facts["seconds"] for one in done.values()])
    for number, (cell, seed) in enumerate(runs, 1):
        if (cell.name, seed) in done:
            clear_run(plan, cell, seed, keep_models=True)  # an earlier call may have kept its model
            continue
        say(f"[{number}/{len(runs)}] {cell.name}, seed {seed}{clock.left(len(runs) - len(done))}")
        with clock, errors_begin(f"{cell.name}, seed {seed}"):
            run_cell(plan, cell, seed, keep_models=keep_models)
        measured = _measured(plan, cell, seed)
        assert measured is not None
        done[cell.name, seed] = measured
    document = ablation_document(plan, done, baselines)
    _write(plan, document)
    return document


def _measured(plan: AblationPlan, cell: AblationCell, seed: int) -> Figures | None:
    return read_figures(plan.run_of(cell, seed), plan.fingerprint(plan.recipe_of(cell, seed)))


class _Clock:
    """Durations of runs, including those of an earlier call."""

    def __init__(self, seconds: list[float]) -> None:
        self._seconds = seconds
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds.append(time.monotonic() - self._began)

    def left(self, runs: int) -> str:
        """Returns the remaining time and the end of the ablation; ``""`` before the first run."""
        from spectra_nsa.report.format import duration

        if not self._seconds:
            return ""
        seconds = runs * statistics.mean(self._seconds)
        end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
        return f"; about {duration(seconds)} left, until {end:%H:%M}"


def plan_document(plan: AblationPlan) -> dict[str, Any]:
    """Returns what `--dry-run` shows."""
    return {
        "schema": 1,
        "folder": str(plan.folder),
        "rows": plan.rows,
        "steps": plan.steps,
        "seeds": list(plan.seeds),
        "runs": len(plan.cells) * len(plan.seeds),
        "done": sum(
            _measured(plan, cell, seed) is not None for cell, seed in itertools.product(plan.cells, plan.seeds)
        ),
        "tasks": list(plan.measures.tasks),
        "cells": [
            {
                "cell": cell.name,
                "part": cell.variant.part if cell.variant else None,
                "says": cell.variant.about if cell.variant else "the recipe as it is",
                "changes": dict(cell.variant.values) if cell.variant else {},
                "apart": cell.variant.detached if cell.variant else False,
            }
            for cell in plan.cells
        ],
        "notes": plan.notes,
    }


def _write(plan: AblationPlan, document: dict[str, Any]) -> None:
    from spectra_nsa.report.ablation import ablation_markdown, ablation_page

    write_json(plan.folder / "ablation.json", document)
    with atomic_write(plan.folder / "ablation.md") as file:
        file.write(ablation_markdown(document))
    ablation_page(document).write(plan.folder / "report.html")
