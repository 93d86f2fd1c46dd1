"""`spectra recipe`: lists, shows and copies the recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import SpectraError, UsageError

app = typer.Typer(help="List, show or copy the recipes that come with the package.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The recipe's name, as `spectra recipe list` prints it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def recipe() -> None:
    """List, show or copy the recipes that come with the package."""


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the recipes.

    Example: spectra recipe list
    """
    from spectra_nsa.config.shipped import recipe_about, recipe_names

    recipes = {name: recipe_about(name) for name in recipe_names()}
    if as_json:
        print_json({"schema": 1, "recipes": recipes})
        return
    width = max(map(len, recipes))
    for name, about in recipes.items():
        print(f"{name:<{width}}  {about}")


@app.command("show")
def show_command(name: Name, as_json: AsJson = False) -> None:
    """Print a recipe; with --json all keys, including defaults.

    Example: spectra recipe show m456
    """
    from spectra_nsa.config.shipped import recipe_path

    path = recipe_path(name)
    if as_json:
        from spectra_nsa.config.recipe import load_recipe

        print_json({"schema": 1, "recipe": load_recipe(path).model_dump()}, indent=2)
        return
    print(path.read_text(encoding="utf-8"), end="")


@app.command("copy")
def copy_command(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(help="File to write (default: NAME.yaml in the current folder).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy a recipe to a file, to edit it and train with it.

    Example: spectra recipe copy m456 mine.yaml
    """
    from spectra_nsa.config.shipped import recipe_path
    from spectra_nsa.core.files import atomic_write

    path = recipe_path(name)
    file = file or Path(path.name)
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{file}: the name of a recipe must end in .yaml, by which `spectra train` recognizes it.")
    if file.exists():
        raise SpectraError(f"{file} exists already. Name another file: spectra recipe copy {name} FILE.yaml.")
    with atomic_write(file) as out:
        out.write(path.read_text(encoding="utf-8"))
    if as_json:
        print_json({"schema": 1, "file": str(file)})
    else:
        print(f"wrote {file}; next: spectra train {file} --dry-run")
