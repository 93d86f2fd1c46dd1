"""A static student: one vector for each token, computed without training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError
from spectra_nsa.workflows.distill.compare import compare_with_teacher
from spectra_nsa.workflows.distill.rows import load_rows, run_folder, text_batches


def static_recipe(teacher: str, source: str, *, output: Path, values: Sequence[str] = ()) -> Recipe:
    """Returns the settings of a static student as a recipe.

    Args:
        teacher: any model that sentence-transformers opens.
        source: texts of the kind that the student is for; the frequencies of their tokens weight its vectors.
        output: the run's folder.
        values: ``key=value`` of the section `data`, and `train.seed`, which draws the held-out rows.

    Raises:
        UsageError: a key of another section, or what `load_recipe` refuses.
    """
    for value in values:
        if not value.startswith(("data.", "train.seed=")):
            raise UsageError(
                f"--static trains nothing, so {value} has no effect. Give only keys of data.… and train.seed."
            )
    flags = {"name": output.name, "output": str(output.parent), "data.train": source, "distill.teachers": [teacher]}
    return load_recipe(None, values, flags=flags)


def plan_static(recipe: Recipe, *, width: int) -> dict[str, Any]:
    """Returns what making a static student would do; opens the teacher, encodes and writes nothing.

    Returns:
        tokens (to encode, one by one), width, rows, quarantined, dev_rows, and bytes of the student's table.

    Raises:
        UsageError: the teacher is narrower, or has no fast tokenizer.
        SpectraError: the folder holds a run.
    """
    from spectra_nsa.models.static import check_width, student_vocabulary
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.runs.claim import check_free

    check_free(run_folder(recipe))
    data = load_rows(recipe)
    teacher = open_teacher(recipe.distill.teachers[0])
    check_width(teacher, width)
    tokenizer, words = student_vocabulary(teacher)
    return {
        "teacher": teacher.name,
        "tokens": len(words),
        "width": width,
        "rows": len(data.train),
        "quarantined": data.quarantined,
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "bytes": 4 * width * (max(tokenizer.get_vocab().values()) + 1),
    }


def make_static_student(recipe: Recipe, *, width: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Makes a static student, writes it to the run's `model/`, and compares it with its teacher.

    Args:
        recipe: by `static_recipe`.
        width: of its vectors.
        say: called with lines of progress.

    Returns:
        model (its folder), interrupted, seconds, quarantined, and what `compare_with_teacher` returns.

    Raises:
        UsageError: the teacher is narrower, or has no fast tokenizer.
        SpectraError: the folder holds a run.
    """
    from spectra_nsa.core.files import atomic_folder
    from spectra_nsa.models.static import static_model
    from spectra_nsa.models.teacher import open_teacher
    from spectra_nsa.training.runs.claim import claim_folder

    folder = claim_folder(run_folder(recipe))
    data = load_rows(recipe, folder / "quarantine")
    if data.quarantined:
        say(f"{counted(data.quarantined, 'row')} quarantined in {folder / 'quarantine'}")
    (name,) = recipe.distill.teachers
    teacher = open_teacher(name)
    began = time.monotonic()
    say(f"encoding the vocabulary of {name}")
    student = static_model(teacher, text_batches(data.train, data.columns), width)
    with atomic_folder(folder / "model") as temporary:
        student.save_pretrained(str(temporary))
    facts = {"model": str(folder / "model"), "interrupted": False, "seconds": round(time.monotonic() - began, 1)}
    facts["quarantined"] = data.quarantined
    return facts | compare_with_teacher(teacher, student, data, recipe)
