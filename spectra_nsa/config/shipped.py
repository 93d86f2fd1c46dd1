"""The recipes that come with the package, to copy and edit: `config/recipes/NAME.yaml`."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.core.errors import unknown_name

FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Returns the names in alphabetical order."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Returns the file of a shipped recipe; its name may be in any case.

    Raises:
        UsageError: there is no such recipe; the message offers the nearest.
    """
    exact = {known.lower(): known for known in recipe_names()}.get(name.lower())
    if exact is None:
        raise unknown_name("recipe", name, recipe_names())
    return FOLDER / f"{exact}.yaml"


def recipe_about(name: str) -> str:
    """Returns the first sentence of its opening comment."""
    first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ").partition(". ")[0].removesuffix(".")
