"""A trained student: it starts from some of its teacher's layers, or has a shape of its own and the teacher's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.sections import ModelSection
from spectra_nsa.config.terms import TERM_FACTS, live_terms
from spectra_nsa.core.errors import UsageError
from spectra_nsa.workflows.distill.compare import compare_with_teacher
from spectra_nsa.workflows.distill.rows import load_rows, run_folder, text_batches

LR = 5e-4
LAYER_ROWS = 256  # rows whose texts decide which layers a student has


def student_recipe(
    teacher: str,
    source: str,
    *,
    layers: int | None = None,
    output: Path,
    values: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """Returns the recipe of a student that starts from the teacher's layers that best preserve its vectors.

    Args:
        teacher: a Spectra model or a BERT-architecture checkpoint, by folder or Hub name.
        source: pairs, triplets, scored pairs or texts.
        layers: the number of layers to keep; ``None`` for half, or all of a `model.start` in `values`.
        output: the run's folder.
        values: ``key=value``, which win. A `model.size` makes a student of that shape, whose token embedding starts
            from the teacher's vectors.
        say: called with a line about the layers. ``None`` for a plan, which takes the highest layers without choosing.

    Raises:
        UsageError: the teacher has fewer layers, a value is wrong, or `values` keep another number of layers.
        SpectraError: the teacher is not such a model, or the folder holds a run.
    """
    from spectra_nsa.training.runs.claim import check_free

    asked = load_recipe(None, values).model  # a misspelt key does not wait for the teacher
    count, highest = _highest_layers(teacher, layers, asked)
    defaults: dict[str, Any] = {
        "name": output.name,
        "output": str(output.parent),
        "model.start": teacher if asked.size is None else None,
        "model.keep_layers": highest,
        "model.token_vectors": None if asked.size is None else teacher,
        "data.train": source,
        "distill.teachers": [teacher],
        "train.lr": LR,
    }
    # A student learns only from its teacher unless the recipe says otherwise. Its experts are balanced all the same.
    others = [
        name
        for name, facts in TERM_FACTS.items()
        if facts.model_kind == "dense" and not facts.learns_from and not facts.routing
    ]
    defaults |= {f"loss.terms.{name}.weight": 0.0 for name in others}
    recipe = load_recipe(None, values, flags=defaults)
    check_free(run_folder(recipe))
    kept = recipe.model.keep_layers
    if layers is not None and len(kept or []) != layers:
        raise UsageError(f"--layers {layers} and model.keep_layers={kept} contradict each other: leave one out.")
    given = asked.keep_layers is not None or asked.start is not None
    if say is None or highest is None or given or len(highest) == count:
        return recipe
    best, cosine = _best_layers(teacher, recipe, len(highest))
    say(
        f"keeps layers {', '.join(map(str, best))} of 0 to {count - 1}: before training, a mean cosine of {cosine:.3f} "
        "with the teacher's vectors"
    )
    return load_recipe(None, values, flags=defaults | {"model.keep_layers": best})


def _highest_layers(teacher: str, layers: int | None, asked: ModelSection) -> tuple[int, list[int] | None]:
    """Returns the teacher's number of layers, and the highest of them; ``None`` if the student does not take any."""
    from spectra_nsa.models.open import DENSE, SPECTRA, find_model
    from spectra_nsa.training.init.layers import check_layers

    files = find_model(teacher, accept=SPECTRA if asked.size is None else DENSE)
    if asked.size is not None:
        return 0, None
    count = files.config["num_hidden_layers"]
    wanted = max(1, count // 2) if layers is None else layers
    check_layers(wanted, count)
    return count, list(range(count - wanted, count)) if asked.start is None or layers is not None else None


def _best_layers(teacher: str, recipe: Recipe, layers: int) -> tuple[list[int], float]:
    """Returns the layers that `best_layers` chooses by texts of the recipe's data, and their mean cosine."""
    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.models.open import open_model
    from spectra_nsa.training.init.layers import best_layers

    data = load_rows(recipe)
    rows = data.train.select(range(0, len(data.train), max(1, len(data.train) // LAYER_ROWS)))
    texts = [text for batch in text_batches(rows, data.columns) for text in batch][: 2 * LAYER_ROWS]
    model = open_model(teacher)
    with autocast(model.device.type, resolve_precision(recipe.train.precision)):
        return best_layers(model, layers, texts)


def plan_student(recipe: Recipe) -> dict[str, Any]:
    """Returns what a run by the recipe would do; opens the teachers, encodes and trains nothing.

    Returns:
        layers (how many; ``None`` for all, or a shape of its own), rows, quarantined (rows), steps, terms, for
        each teacher its texts, those still to encode, and their bytes, and the same of the words that it starts with.

    Raises:
        SpectraError: what `check_data` refuses.
    """
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.checks import check_data, check_recipe
    from spectra_nsa.training.init.start import open_start
    from spectra_nsa.training.init.words import pieces_table, pieces_with_text
    from spectra_nsa.training.loop.arguments import steps_of
    from spectra_nsa.training.teacher.vectors import plan_vectors

    check_recipe(recipe)
    data = load_rows(recipe)
    check_data(recipe, data)
    student = open_start(recipe)
    words = None
    if recipe.model.token_vectors is not None:
        pieces = pieces_table(list(pieces_with_text(student).values()))
        words = plan_vectors(open_teacher(recipe.model.token_vectors), pieces, pieces.column_names)
    return {
        "layers": recipe.model.keep_layers and len(recipe.model.keep_layers),
        "parameters": sum(weight.numel() for weight in student.parameters()),
        "rows": len(data.train),
        "quarantined": data.quarantined,
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "steps": steps_of(recipe, len(data.train)),
        "terms": live_terms(recipe, data.train.column_names, experts=student.spectra.config.ffn == "moe"),
        "teachers": [plan_vectors(open_teacher(name), data.all_rows, data.columns) for name in recipe.distill.teachers],
        "words": words,
    }


def resumed_recipe(run: Path) -> Recipe:
    """Returns the recipe of a run that was stopped, in the folder where the run is now.

    Raises:
        SpectraError: there is no such run.
        UsageError: it is not a distillation.
    """
    from spectra_nsa.training.runs.checkpoints import run_of

    folder = run_of(run)
    recipe = load_recipe(folder / "recipe.yaml", [], flags={"name": folder.name, "output": str(folder.parent)})
    if not recipe.distill.teachers:
        raise UsageError(f"{run} has no teacher. Resume it with: spectra train --resume {run}.")
    return recipe


def train_student(recipe: Recipe, *, resume: Path | None = None) -> dict[str, Any]:
    """Trains a student by the recipe and compares it with its first teacher.

    Args:
        recipe: the run.
        resume: a run of this recipe that was stopped, or one of its checkpoints; ``None`` for a new one.

    Returns:
        model (its folder), interrupted, steps, seconds; and unless it was interrupted, quarantined, layers, best and
        start (the dev metric), and what `compare_with_teacher` returns.
    """
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.run import train

    if not recipe.distill.teachers:
        raise UsageError("distill.teachers is empty: name a model to learn from.")
    result = train(recipe) if resume is None else train(resume=resume)
    facts: dict[str, Any] = {
        "model": str(result.folder / "model"),
        "interrupted": result.interrupted,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }
    if result.interrupted:
        return facts
    data, teacher = load_rows(recipe), open_teacher(recipe.distill.teachers[0])
    facts |= {
        "quarantined": data.quarantined,
        "layers": recipe.model.keep_layers,
        "best": result.best,
        "start": result.start,
    }
    return facts | compare_with_teacher(teacher, result.model, data, recipe)
