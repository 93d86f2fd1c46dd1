"""The plan of an ablation: its cells, checked before any work, and its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.ablation.parts import PARTS, custom_variant, parts_for, variant_of
from spectra_nsa.config.ablation.variants import RecipeFacts, Variant, apply_variant
from spectra_nsa.config.recipe import Recipe, with_values
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError, errors_begin, unknown_name
from spectra_nsa.core.files import read_json_object, write_json

if TYPE_CHECKING:
    from spectra_nsa.evaluation.outcome import Task

REFERENCE = "recipe"
PLAN, RESULT = "plan.json", "result.json"
HEADLINE = {"sts": "spearman", "retrieval": "ndcg@10", "pairs": "ndcg@10", "knn": "accuracy"}
_SPARSE_TASKS = ("sts", "retrieval", "pairs")
_TEXTS = 256  # for timing the encoding


@dataclass(frozen=True, kw_only=True)
class AblationCell:
    """A recipe that runs from every seed: the reference, or the reference with one part switched.

    Attributes:
        name: `REFERENCE`, ``"without-X"`` or ``"with-X"``.
        variant: what differs from the reference; ``None`` for the reference.
        recipe: with the first seed.
    """

    name: str
    variant: Variant | None
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How every model is measured: on tasks ``KIND=SOURCE``, at most `limit` rows, the `dim` leading dimensions."""

    tasks: Sequence[str]
    limit: int | None = None
    dim: int | None = None


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """A checked ablation.

    Attributes:
        folder: the ablation's folder.
        recipe: the reference.
        cells: the reference first.
        seeds: in the order in which they run.
        measures: how models are measured.
        tasks: the tasks with their data.
        steps: the steps of each cell.
        rows: the training rows of an epoch.
        texts: of the two sides, for timing the encoding and counting active terms.
        notes: parts that were skipped, and why.
    """

    folder: Path
    recipe: Recipe
    cells: Sequence[AblationCell]
    seeds: Sequence[int]
    measures: MeasureOptions
    tasks: Sequence[Task]
    steps: int
    rows: int
    texts: tuple[Sequence[str], Sequence[str]]
    notes: list[str] = field(default_factory=list)

    def run_of(self, cell: AblationCell, seed: int) -> Path:
        """Returns the folder of a run."""
        return self.folder / "runs" / f"{cell.name}-seed{seed}"

    def recipe_of(self, cell: AblationCell, seed: int) -> Recipe:
        """Returns the recipe of a run."""
        run = self.run_of(cell, seed)
        return with_values(cell.recipe, {"name": run.name, "output": str(run.parent), "train.seed": seed})

    def fingerprint(self, recipe: Recipe) -> str:
        """Returns a digest of what determines a run's figures: the recipe without its folder, and the tasks."""
        values = [_without_folder(recipe), list(self.measures.tasks), self.measures.limit, self.measures.dim]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def make_plan(
    recipe: Recipe, *, folder: Path, parts: Sequence[str], custom: Sequence[str], seeds: int, measures: MeasureOptions
) -> AblationPlan:
    """Reads data and tasks, switches the parts and checks every cell; trains and writes nothing.

    Args:
        recipe: the reference.
        folder: the ablation's folder.
        parts: names of the catalogue; ``"all"`` for those that make sense for the recipe.
        custom: parts as ``NAME:key=value[,key=value…]``.
        seeds: the number of seeds, counting up from the recipe's.
        measures: how models are measured.

    Raises:
        UsageError: no part or task, a part that makes no sense, cells of unequal length, or a folder of a different
            ablation.
        SpectraError: data or models that cannot be used.
    """
    _check_common(recipe, measures)
    _check_parts(recipe, parts, custom)
    _check_names(recipe, measures)
    _check_folder(folder, recipe, measures)
    from spectra_nsa.evaluation.tasks import tasks_from
    from spectra_nsa.training.data.mixing import epoch_rows
    from spectra_nsa.training.data.rows import load_training_data
    from spectra_nsa.training.loop.arguments import steps_of
    from spectra_nsa.workflows.ablate.facts import recipe_facts

    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    tasks, notes = tasks_from(measures.tasks, limit=measures.limit)
    rows = epoch_rows(recipe, data)
    facts = recipe_facts(recipe, data)
    cells = _cells(recipe, facts, parts, custom, rows, notes)
    for cell in cells[1:]:
        _check_measures(cell.recipe, measures)
    left, right = data.columns[:2]
    first = data.train[: _TEXTS // 2]
    return AblationPlan(
        folder=folder,
        recipe=recipe,
        cells=cells,
        seeds=range(recipe.train.seed, recipe.train.seed + seeds),
        measures=measures,
        tasks=tasks,
        steps=steps_of(recipe, rows),
        rows=rows,
        texts=(first[left], first[right]),
        notes=notes,
    )


def keep_plan(plan: AblationPlan) -> None:
    """Records which ablation the folder belongs to, before the first run."""
    write_json(plan.folder / PLAN, {"schema": 1, **_identity(plan.recipe, plan.measures)})


def _identity(recipe: Recipe, measures: MeasureOptions) -> dict[str, Any]:
    return {
        "recipe": _without_folder(recipe),
        "tasks": list(measures.tasks),
        "limit": measures.limit,
        "dim": measures.dim,
    }


def _without_folder(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"name", "output"})


def _check_common(recipe: Recipe, measures: MeasureOptions) -> None:
    if not measures.tasks:
        raise UsageError(
            "ablate needs at least one --task KIND=SOURCE to measure the models on, such as sts=dev.jsonl."
        )
    if repeated := [task for task in measures.tasks if list(measures.tasks).count(task) > 1]:
        raise UsageError(f"--task {repeated[0]} is given twice: give it once.")
    _check_measures(recipe, measures)
    if recipe.train.patience is not None:
        raise UsageError("train.patience would stop the cells at different steps: set train.patience=null.")
    if recipe.backup.to is not None:
        raise UsageError("backup.to copies single runs, not those of an ablation: set backup.to=null.")
    if processes.count() > 1:
        raise UsageError("ablate runs in a single process: start it without torchrun or accelerate launch.")


def _check_measures(recipe: Recipe, measures: MeasureOptions) -> None:
    """Checks that the model of a recipe can be measured so. Unknown tasks are left to `check_tasks`."""
    from spectra_nsa.evaluation.tasks import TASKS

    kinds = [task.partition("=")[0] for task in measures.tasks]
    if other := [kind for kind in kinds if kind in TASKS and kind not in HEADLINE]:
        raise UsageError(
            f"ablate compares item by item, but {other[0]} has no items: measure on sts, retrieval, pairs or knn."
        )
    if recipe.sparse is None:
        return
    if other := [kind for kind in kinds if kind in HEADLINE and kind not in _SPARSE_TASKS]:
        raise UsageError(f"{other[0]} needs dense vectors: measure a sparse encoder on sts, retrieval or pairs.")
    if measures.dim is not None:
        raise UsageError("--dim cuts dense vectors: leave it out for a sparse encoder.")


def _check_parts(recipe: Recipe, parts: Sequence[str], custom: Sequence[str]) -> None:
    """Checks the parts as far as possible without data and model."""
    names = [name for name in parts if name != "all"]
    if unknown := [name for name in names if name not in PARTS]:
        raise unknown_name("part", unknown[0], PARTS)
    for variant in map(custom_variant, custom):
        apply_variant(recipe, variant)
        names.append(variant.part)
    if not names and "all" not in parts:
        raise UsageError("nothing to ablate: give --parts spectral,anchor,… (spectra ablate --list-parts), or --part.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"part {repeated[0]} is given twice: give it once.")


def _check_names(recipe: Recipe, measures: MeasureOptions) -> None:
    """Checks that the sources exist, before libraries are loaded."""
    from spectra_nsa.evaluation.tasks import check_tasks
    from spectra_nsa.training.checks import check_names
    from spectra_nsa.training.jobs import checked_recipe

    checked_recipe(recipe, "train")
    check_names(recipe)
    check_tasks(measures.tasks)


def _check_folder(folder: Path, recipe: Recipe, measures: MeasureOptions) -> None:
    """Checks that the folder is new or holds this ablation; parts and seeds can be added to it."""
    if not (folder / PLAN).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds files that are not an ablation's. Name another folder: --output FOLDER.")
        return
    before, now = read_json_object(folder / PLAN), _identity(recipe, measures)
    changes = [f"{key} was {old!r}, is {new!r}" for key, old, new in _differences(before, now)]
    if changes:
        shown = "; ".join(changes[:3]) + (f" and {len(changes) - 3} more" if len(changes) > 3 else "")
        raise UsageError(
            f"{folder} holds an ablation of a different recipe or different tasks: {shown}. Set it back, or name "
            "another folder: --output FOLDER."
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    differences = []
    for key, new in now.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            differences += _differences(old, new, "" if key == "recipe" else f"{prefix}{key}.")
        elif old != new:
            differences.append((prefix + key, old, new))
    return differences


def _cells(
    recipe: Recipe, facts: RecipeFacts, parts: Sequence[str], custom: Sequence[str], rows: int, notes: list[str]
) -> list[AblationCell]:
    """Returns the reference and one cell for each part; with `all`, parts that make no sense become notes."""
    cells = [AblationCell(name=REFERENCE, variant=None, recipe=recipe)]
    for name in parts_for(recipe) if "all" in parts else parts:
        try:
            cells.append(_cell(variant_of(name, recipe, facts), recipe, rows))
        except SpectraError as error:
            if "all" not in parts:
                raise
            notes.append(f"skipped: {str(error).rstrip('.')}")
    return cells + [_cell(custom_variant(text), recipe, rows) for text in custom]


def _cell(variant: Variant, recipe: Recipe, rows: int) -> AblationCell:
    """Returns the cell of a variant; checks that it takes the same number of steps and that its model can be built."""
    from spectra_nsa.training.jobs import checked_recipe
    from spectra_nsa.training.loop.arguments import steps_of
    from spectra_nsa.workflows.ablate.facts import check_model

    changed = apply_variant(recipe, variant)
    before, after = steps_of(recipe, rows), steps_of(changed, rows)
    if after != before:
        raise UsageError(
            f"part {variant.part} changes the number of steps from {before} to {after}, and cells are "
            "compared at equal length. Set train.max_steps for all."
        )
    with errors_begin(f"part {variant.part}"):
        checked_recipe(changed, "train")
        if any(key.startswith(("model.", "sparse.")) for key in variant.values):
            check_model(changed)
    return AblationCell(name=variant.name, variant=variant, recipe=changed)
