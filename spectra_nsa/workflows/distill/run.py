"""`spectra distill`: a smaller student of a model, from a source of texts to figures that say what it kept."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.terms import TERM_FACTS, live_terms
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.teacher import Teacher
    from spectra_nsa.training.data.rows import TrainingData

MEASURED = 400  # texts that teacher and student are compared on
ROUNDS = 3  # of encoding them, by turns
CHOSEN_BY = 256  # rows whose texts decide which layers a student has
RATE = 5e-4
_AT_A_TIME = 10_000


def student_recipe(
    teacher: str,
    source: str,
    *,
    layers: int | None = None,
    output: Path,
    values: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """The recipe of a student that starts from some of its teacher's layers: those that give most nearly its vectors.

    Args:
        teacher: a Spectra model or a BERT-architecture checkpoint, by folder or Hub name.
        source: pairs, triplets, scored pairs or texts.
        layers: how many of the teacher's; ``None`` for half, or all of another `model.start`.
        output: the run's folder.
        values: ``key=value``, which win; a `model.size` makes a student of that shape that begins with the teacher's
            words.
        say: called with a line on the layers. ``None`` for a plan, which chooses none: the highest stand for them.

    Raises:
        UsageError: the teacher has not so many layers, a value is wrong, or `values` keep another number of layers.
        SpectraError: it is no such model, or the folder holds a run.
    """
    from spectra_nsa.core.files import read_json
    from spectra_nsa.models.checks import check_folder, resolve_folder, transformer_folder
    from spectra_nsa.training.init.layers import check_layers
    from spectra_nsa.training.runs.claim import check_free

    asked = load_recipe(None, values).model  # a misspelt key does not wait for the teacher
    folder = resolve_folder(teacher)
    highest: list[int] | None = None
    if asked.size is None:
        check_folder(folder)
        count = read_json(transformer_folder(folder) / "config.json")["num_hidden_layers"]
        wanted = max(1, count // 2) if layers is None else layers
        check_layers(wanted, count)
        if asked.start is None or layers is not None:
            highest = list(range(count - wanted, count))
    defaults: dict[str, Any] = {
        "name": output.name,
        "output": str(output.parent),
        "model.start": teacher if asked.size is None else None,
        "model.layers": highest,
        "model.words": None if asked.size is None else teacher,
        "data.train": source,
        "distill.teachers": [teacher],
        "train.lr": RATE,
    }
    # A student learns only from its teacher unless the recipe says otherwise.
    silent = {f"loss.terms.{name}.weight": 0.0 for name, facts in TERM_FACTS.items() if not facts.learns_from}
    recipe = load_recipe(None, values, flags=defaults | silent)
    check_free(folder_of(recipe))
    kept = recipe.model.layers
    if layers is not None and len(kept or []) != layers:
        raise UsageError(f"--layers {layers} and model.layers={kept} contradict each other: leave one out.")
    if say is None or highest is None or asked.layers is not None or asked.start is not None or wanted == count:
        return recipe
    chosen, near = _chosen(teacher, recipe, wanted)
    say(
        f"keeps layers {', '.join(map(str, chosen))} of 0 to {count - 1}: before training, a mean cosine of {near:.3f} "
        "with the teacher's vectors"
    )
    return load_recipe(None, values, flags=defaults | silent | {"model.layers": chosen})


def _chosen(teacher: str, recipe: Recipe, layers: int) -> tuple[list[int], float]:
    """The layers that `best_layers` chooses by texts of the recipe's data."""
    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.models.open import open_model
    from spectra_nsa.training.init.layers import best_layers

    data = _data(recipe)
    rows = data.train.select(range(0, len(data.train), max(1, len(data.train) // CHOSEN_BY)))
    texts = [text for row in _parts(rows, data.columns) for text in row][: 2 * CHOSEN_BY]
    model = open_model(teacher)
    with autocast(model.device.type, resolve_precision(recipe.train.precision)):
        return best_layers(model, layers, texts)


def plan_distillation(recipe: Recipe) -> dict[str, Any]:
    """What a run by the recipe would do; the teachers are opened, nothing is encoded or trained.

    Returns:
        layers (how many; ``None`` for all, or a shape of its own), rows, quarantined (broken ones), steps, terms, for
        each teacher its texts, those still to encode, and their bytes, and the same of the words that it begins with.

    Raises:
        SpectraError: what `check_data` refuses.
    """
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.checks import check_data, check_recipe
    from spectra_nsa.training.init.start import open_start
    from spectra_nsa.training.init.words import pieces_table, pieces_with_text
    from spectra_nsa.training.loop.arguments import steps_of
    from spectra_nsa.training.teacher.vectors import planned

    check_recipe(recipe)
    data = _data(recipe)
    check_data(recipe, data)
    student = open_start(recipe)
    words = None
    if recipe.model.words is not None:
        pieces = pieces_table(list(pieces_with_text(student).values()))
        words = planned(open_teacher(recipe.model.words), pieces, pieces.column_names)
    return {
        "layers": recipe.model.layers and len(recipe.model.layers),
        "parameters": sum(weight.numel() for weight in student.parameters()),
        "rows": len(data.train),
        "quarantined": data.quarantined,
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "steps": steps_of(recipe, len(data.train)),
        "terms": live_terms(recipe, data.train.column_names),
        "teachers": [planned(open_teacher(name), data.whole, data.columns) for name in recipe.distill.teachers],
        "words": words,
    }


def recipe_of(run: Path) -> Recipe:
    """The recipe of a run that was stopped, in the folder where it is now.

    Raises:
        SpectraError: there is no such run.
        UsageError: it is no distillation.
    """
    from spectra_nsa.training.runs.checkpoints import run_of

    folder = run_of(run)
    recipe = load_recipe(folder / "recipe.yaml", [], flags={"name": folder.name, "output": str(folder.parent)})
    if not recipe.distill.teachers:
        raise UsageError(f"{run} has no teacher: go on with it by spectra train --resume {run}.")
    return recipe


def distill(recipe: Recipe, *, resume: Path | None = None) -> dict[str, Any]:
    """Trains a student by the recipe and compares it with its first teacher.

    Args:
        recipe: what to do.
        resume: a run of this recipe that was stopped, or one of its checkpoints; ``None`` for a new one.

    Returns:
        model (its folder), interrupted, steps, seconds; then, of a run that was not interrupted, quarantined, layers,
        the dev metric of both where there is one, and what `compared` gives.
    """
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.run import train

    if not recipe.distill.teachers:
        raise UsageError("distill.teachers is empty: there is nobody to learn from.")
    result = train(recipe) if resume is None else train(resume=resume)
    facts: dict[str, Any] = {
        "model": str(result.folder / "model"),
        "interrupted": result.interrupted,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }
    if result.interrupted:
        return facts
    data, teacher = _data(recipe), open_teacher(recipe.distill.teachers[0])
    facts |= {
        "quarantined": data.quarantined,
        "layers": recipe.model.layers,
        "best": result.best,
        "start": result.start,
    }
    return facts | _beside(teacher, result.model, data, recipe)


def static_recipe(teacher: str, source: str, *, output: Path, values: Sequence[str] = ()) -> Recipe:
    """What a static student is made of, as the recipe that it would have had it been trained.

    Args:
        teacher: any model that sentence-transformers opens.
        source: texts such as it is for: their tokens' frequencies weigh its vectors.
        output: the run's folder.
        values: ``key=value`` of the section `data`, and `train.seed`, which draws the held-out rows.

    Raises:
        UsageError: a key of another section, or what `load_recipe` refuses.
    """
    for value in values:
        if not value.startswith(("data.", "train.seed=")):
            raise UsageError(f"--static trains nothing: {value} says nothing to it. It takes data.…=… and train.seed.")
    flags = {"name": output.name, "output": str(output.parent), "data.train": source, "distill.teachers": [teacher]}
    return load_recipe(None, values, flags=flags)


def plan_static(recipe: Recipe, *, width: int) -> dict[str, Any]:
    """What making a static student would do; the teacher is opened, nothing is encoded or written.

    Returns:
        tokens (to encode, one by one), width, rows, quarantined, dev_rows, and bytes of the student's table.

    Raises:
        UsageError: the teacher is narrower, or has no fast tokenizer.
        SpectraError: the folder holds a run.
    """
    from spectra_nsa.models.static import check_width, words_of
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.runs.claim import check_free

    check_free(folder_of(recipe))
    data = _data(recipe)
    teacher = open_teacher(recipe.distill.teachers[0])
    check_width(teacher, width)
    tokenizer, words = words_of(teacher)
    return {
        "teacher": teacher.name,
        "tokens": len(words),
        "width": width,
        "rows": len(data.train),
        "quarantined": data.quarantined,
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "bytes": 4 * width * (max(tokenizer.get_vocab().values()) + 1),
    }


def folder_of(recipe: Recipe) -> Path:
    """The folder of a recipe with a name."""
    return Path(recipe.output) / (recipe.name or "")


def distill_static(recipe: Recipe, *, width: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes a static student, writes it to the run's `model/`, and compares it with its teacher.

    Args:
        recipe: by `static_recipe`.
        width: of its vectors.
        say: called with lines of progress.

    Raises:
        UsageError: the teacher is narrower, or has no fast tokenizer.
        SpectraError: the folder holds a run.
    """
    from spectra_nsa.core.files import atomic_folder
    from spectra_nsa.models.static import static_model
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.runs.claim import claim_folder

    folder = claim_folder(folder_of(recipe))
    data = _data(recipe, folder / "quarantine")
    if data.quarantined:
        say(f"{data.quarantined:,} broken rows set aside in {folder / 'quarantine'}")
    (teacher_name,) = recipe.distill.teachers
    teacher = open_teacher(teacher_name)
    began = time.monotonic()
    say(f"encoding the vocabulary of {teacher_name}")
    student = static_model(teacher, _parts(data.train, data.columns), width)
    with atomic_folder(folder / "model") as temporary:
        student.save_pretrained(str(temporary))
    facts = {"model": str(folder / "model"), "interrupted": False, "seconds": round(time.monotonic() - began, 1)}
    facts["quarantined"] = data.quarantined
    return facts | _beside(teacher, student, data, recipe)


def _beside(teacher: Teacher, student: Any, data: TrainingData, recipe: Recipe) -> dict[str, Any]:
    """The dev metric of both and what `compared` gives, in the number format of training."""
    from spectra_nsa.core.precision import autocast, resolve_precision

    precision = resolve_precision(recipe.train.precision)
    dev = _dev(data, {"teacher": teacher.model, "student": student}, precision)
    with autocast(teacher.model.device.type, precision):
        return {"dev": dev} | compared(teacher, student, data)


def compared(teacher: Teacher, student: Any, data: TrainingData) -> dict[str, Any]:
    """How alike two models see the same texts, and how fast.

    Returns:
        agreement: Spearman's ρ of their cosines, over all pairs of up to 400 texts; held_out: whether these were kept
        from training; parameters of each; speed: texts a second of the student as a multiple of the teacher's, median
        of three rounds by turns.
    """
    import numpy as np

    from spectra_nsa.metrics.similarity import spearman

    rows, held_out = (data.dev, True) if data.dev is not None else (data.train, False)
    names = [name for name in rows.column_names if name not in ("score", "label")]
    some = rows.select(range(min(MEASURED, len(rows))))
    texts = list(dict.fromkeys(text for name in names for text in some[name] if isinstance(text, str)))[:MEASURED]
    seconds: dict[str, list[float]] = {"teacher": [], "student": []}
    cosines = {}
    for _ in range(ROUNDS):
        for name, model in (("teacher", teacher.model), ("student", student)):
            began = time.perf_counter()
            vectors = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            seconds[name].append(time.perf_counter() - began)
            cosines[name] = (vectors @ vectors.T)[np.triu_indices(len(texts), 1)]
    ratios = [theirs / ours for theirs, ours in zip(seconds["teacher"], seconds["student"], strict=True)]
    return {
        "agreement": round(spearman(cosines["teacher"], cosines["student"]), 4),
        "held_out": held_out,
        "parameters": {
            name: sum(weight.numel() for weight in model.parameters())
            for name, model in (("teacher", teacher.model), ("student", student))
        },
        "speed": round(statistics.median(ratios), 2),
    }


def _data(recipe: Recipe, quarantine: Path | None = None) -> TrainingData:
    from spectra_nsa.training.data.rows import load_training_data

    return load_training_data(recipe.data, seed=recipe.train.seed, quarantine=quarantine, distill=recipe.distill)


def _parts(rows: Dataset, columns: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        for column in columns:
            yield part[column]


def _dev(data: TrainingData, models: dict[str, Any], precision: str) -> dict[str, Any] | None:
    """The dev metric of each model; ``None`` where there is no dev set."""
    from spectra_nsa.training.monitor.dev_metric import DevEvaluator

    if data.dev is None or data.dev_kind is None:
        return None
    evaluator = DevEvaluator(data.dev, data.dev_kind, precision)
    return {"metric": evaluator.metric} | {
        name: round(evaluator(model)[evaluator.metric], 4) for name, model in models.items()
    }
