"""The recipes that come with the package, to copy and make your own: `config/recipes/NAME.yaml`."""

from __future__ import annotations

from pathlib import Path

from spectra_nsa.core.errors import unknown_name

FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """The names, in alphabetical order."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe; upper and lower case do not matter.

    Raises:
        UsageError: there is none of that name; the message offers the nearest.
    """
    found = {known.lower(): known for known in recipe_names()}.get(name.lower())
    if found is None:
        raise unknown_name("recipe", name, recipe_names())
    return FOLDER / f"{found}.yaml"


def recipe_about(name: str) -> str:
    """The first sentence of its opening comment."""
    first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ").partition(". ")[0].removesuffix(".")
