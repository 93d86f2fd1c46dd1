"""What an ablation will do: its cells, checked before any work, and the folder they are kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.parts import PARTS, custom_variant, variant_of
from spectra_nsa.config.recipe import Recipe, with_values
from spectra_nsa.config.terms import row_kind
from spectra_nsa.config.variants import RecipeFacts, Variant, apply_variant
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import read_json, write_json

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task
    from spectra_nsa.training.data.rows import TrainingData

REFERENCE = "recipe"
PLAN, RESULT = "plan.json", "result.json"
HEADLINE = {"sts": "spearman", "retrieval": "ndcg@10", "pairs": "ndcg@10", "knn": "accuracy"}
_TEXTS = 256  # that encoding is timed on


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A recipe that is run from every seed: the reference, or the reference with one part turned over.

    Attributes:
        name: `REFERENCE`, ``"without-X"`` or ``"with-X"``.
        variant: what differs from the reference; ``None`` for the reference.
        recipe: of the first seed.
    """

    name: str
    variant: Variant | None
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What every model is measured on: ``KIND=SOURCE`` each, at most `limit` rows, `dim` leading dimensions."""

    tasks: Sequence[str]
    limit: int | None = None
    dim: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked ablation.

    Attributes:
        folder: where it is kept.
        recipe: the reference's.
        cells: the reference first.
        seeds: in the order in which they run.
        measures: what is measured.
        tasks: the same, with their data.
        steps: of each cell.
        rows: training rows.
        texts: on which encoding is timed.
        notes: what was left out, and why.
    """

    folder: Path
    recipe: Recipe
    cells: Sequence[Cell]
    seeds: Sequence[int]
    measures: Measures
    tasks: Sequence[Task]
    steps: int
    rows: int
    texts: Sequence[str]
    notes: list[str] = field(default_factory=list)

    def run_of(self, cell: Cell, seed: int) -> Path:
        """The run's folder."""
        return self.folder / "runs" / f"{cell.name}-seed{seed}"

    def recipe_of(self, cell: Cell, seed: int) -> Recipe:
        """The recipe of a run."""
        run = self.run_of(cell, seed)
        return with_values(cell.recipe, {"name": run.name, "output": str(run.parent), "train.seed": seed})

    def fingerprint(self, recipe: Recipe) -> str:
        """Of what decides a run's figures: the recipe without its place, and what is measured."""
        values = [_placeless(recipe), list(self.measures.tasks), self.measures.limit, self.measures.dim]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def make_plan(
    recipe: Recipe, *, folder: Path, parts: Sequence[str], own: Sequence[str], seeds: int, measures: Measures
) -> Plan:
    """Reads data and tasks, turns the parts over and checks every cell; trains nothing and writes nothing.

    Args:
        recipe: the reference.
        folder: where the ablation is kept.
        parts: names of the catalogue; ``"all"`` for those that make sense for the recipe.
        own: parts as ``NAME:key=value[,key=value…]``.
        seeds: how many, from the recipe's on.
        measures: what is measured.

    Raises:
        UsageError: no part or task, a part that makes no sense, cells of unequal length, or another ablation's folder.
        SpectraError: data or models that cannot be used.
    """
    _check_common(recipe, measures)
    _check_parts(recipe, parts, own)
    _check_names(recipe, measures)
    _check_folder(folder, recipe, measures)
    from spectra_nsa.evaluation.tasks import tasks_from
    from spectra_nsa.training.data.rows import load_training_data
    from spectra_nsa.training.loop.arguments import steps_of

    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    tasks, notes = tasks_from(measures.tasks, limit=measures.limit)
    rows = len(data.train)
    cells = _cells(recipe, recipe_facts(recipe, data), parts, own, rows, notes)
    one, other = data.columns[:2]
    first = data.train[: _TEXTS // 2]
    return Plan(
        folder=folder,
        recipe=recipe,
        cells=cells,
        seeds=range(recipe.train.seed, recipe.train.seed + seeds),
        measures=measures,
        tasks=tasks,
        steps=steps_of(recipe, rows),
        rows=rows,
        texts=[*first[one], *first[other]],
        notes=notes,
    )


def recipe_facts(recipe: Recipe, data: TrainingData) -> RecipeFacts:
    """What the recipe's model and data have."""
    from spectra_nsa.models.checks import check_folder, resolve_folder
    from spectra_nsa.training.init.start import planned_config

    config, _ = planned_config(recipe)
    start = recipe.model.start
    return RecipeFacts(
        model=config.to_dict(),
        saved=start is not None and check_folder(resolve_folder(start)) != "bert",
        rows=row_kind(len(data.columns), data.scored),
    )


def keep_plan(plan: Plan) -> None:
    """Writes down whose folder it is, before the first run."""
    write_json(plan.folder / PLAN, {"schema": 1, **_identity(plan.recipe, plan.measures)})


def _identity(recipe: Recipe, measures: Measures) -> dict[str, Any]:
    return {
        "recipe": _placeless(recipe),
        "tasks": list(measures.tasks),
        "limit": measures.limit,
        "dim": measures.dim,
    }


def _placeless(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"name", "output"})


def _check_common(recipe: Recipe, measures: Measures) -> None:
    if not measures.tasks:
        raise UsageError(
            "ablate needs at least one --task KIND=SOURCE to measure the models on, such as sts=dev.jsonl."
        )
    if twice := [task for task in measures.tasks if list(measures.tasks).count(task) > 1]:
        raise UsageError(f"--task {twice[0]} is given twice: give it once.")
    if any(task.startswith("statistics=") for task in measures.tasks):
        raise UsageError(
            "ablate compares item by item, and statistics has no items: measure on sts, retrieval, pairs or knn."
        )
    if recipe.train.patience is not None:
        raise UsageError("train.patience would stop the cells at different steps: set train.patience=null.")
    if recipe.backup.to is not None:
        raise UsageError("backup.to copies single runs, not an ablation's: set backup.to=null.")
    if processes.count() > 1:
        raise UsageError("ablate runs in one process: start it without torchrun or accelerate launch.")


def _check_parts(recipe: Recipe, parts: Sequence[str], own: Sequence[str]) -> None:
    """What can be told of the parts without data and model."""
    names = [name for name in parts if name != "all"]
    if unknown := [name for name in names if name not in PARTS]:
        raise unknown_name("part", unknown[0], PARTS)
    for variant in map(custom_variant, own):
        apply_variant(recipe, variant)
        names.append(variant.part)
    if not names and "all" not in parts:
        raise UsageError("nothing to ablate: give --parts spectral,anchor,… (spectra ablate --list-parts), or --part.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"part {twice[0]} is given twice: give it once.")


def _check_names(recipe: Recipe, measures: Measures) -> None:
    """That what is trained and measured on is there, before libraries are loaded."""
    from spectra_nsa.evaluation.tasks import check_tasks
    from spectra_nsa.training.checks import check_names, check_recipe

    check_recipe(recipe)
    check_names(recipe)
    check_tasks(measures.tasks)


def _check_folder(folder: Path, recipe: Recipe, measures: Measures) -> None:
    """That the folder is new, or holds this very ablation; more parts and seeds may come to it."""
    if not (folder / PLAN).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds something else than an ablation. Name another folder: --output FOLDER.")
        return
    before, now = read_json(folder / PLAN), _identity(recipe, measures)
    apart = [f"{key} was {old!r}, is {new!r}" for key, old, new in _differences(before, now)]
    if apart:
        shown = "; ".join(apart[:3]) + (f" and {len(apart) - 3} more" if len(apart) > 3 else "")
        raise UsageError(
            f"{folder} holds an ablation of another recipe or other tasks: {shown}. Set it back, or name another "
            "folder: --output FOLDER."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    found = []
    for key, new in now.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, "" if key == "recipe" else f"{prefix}{key}.")
        elif old != new:
            found.append((prefix + key, old, new))
    return found


def _cells(
    recipe: Recipe, facts: RecipeFacts, parts: Sequence[str], own: Sequence[str], rows: int, notes: list[str]
) -> list[Cell]:
    """The reference and a cell a part; of `all` those that make sense, the others becoming notes."""
    cells = [Cell(name=REFERENCE, variant=None, recipe=recipe)]
    for name in PARTS if "all" in parts else parts:
        try:
            cells.append(_cell(variant_of(name, recipe, facts), recipe, rows))
        except SpectraError as error:
            if "all" not in parts:
                raise
            notes.append(f"left out: {str(error).rstrip('.')}")
    return cells + [_cell(custom_variant(text), recipe, rows) for text in own]


def _cell(variant: Variant, recipe: Recipe, rows: int) -> Cell:
    """The recipe with a part turned over: it takes as many steps, and its model can be built."""
    from spectra_nsa.training.init.start import planned_config
    from spectra_nsa.training.loop.arguments import steps_of

    changed = apply_variant(recipe, variant)
    steps, own_steps = steps_of(recipe, rows), steps_of(changed, rows)
    if own_steps != steps:
        raise UsageError(
            f"part {variant.part} changes the number of steps from {steps} to {own_steps}, and cells are "
            "compared at equal length. Set train.max_steps for all."
        )
    if any(key.startswith("model.") for key in variant.values):
        try:
            planned_config(changed)
        except SpectraError as error:
            raise type(error)(f"part {variant.part}: {error}") from error
    return Cell(name=variant.name, variant=variant, recipe=changed)
