"""`spectra backup`: lists the backups of runs and restores them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.console import print_json

app = typer.Typer(help="List and restore backups of runs.", no_args_is_help=True)


@app.callback()
def backup() -> None:
    """List and restore backups of runs."""


@app.command("list")
def list_command(
    url: Annotated[
        str, typer.Argument(help="The value of backup.to (a folder or an fsspec URL), or one run below it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the runs at an address with their complete checkpoints. `restore` verifies every file.

    Example: spectra backup list /content/drive/MyDrive/spectra
    """
    from spectra_nsa.training.runs.restore import overview

    runs = overview(url)
    if as_json:
        print_json({"schema": 1, "url": url, "runs": runs})
        return
    for run in runs:
        print(f"{run['run']}  {run['address']}")
        for unit in run["units"]:
            print(f"  {unit['name']:<12} {unit['bytes'] / 1e6:>10,.1f} MB{'  best so far' if unit['best'] else ''}")


@app.command("restore")
def restore_command(
    url: Annotated[str, typer.Argument(help="Address of a run, or of a folder with a single run.")],
    to: Annotated[Path | None, typer.Option("--to", help="The run's new folder (default: runs/NAME).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Restore the newest complete checkpoint of a run, with its recipe, log, best checkpoint and model.

    Example: spectra backup restore /content/drive/MyDrive/spectra/first --to runs/first
    """
    from spectra_nsa.training.runs.restore import restore

    facts: dict[str, Any] = restore(url, to)
    if as_json:
        print_json({"schema": 1, **facts})
        return
    print(f"{facts['run']}: {', '.join(facts['units'])}, every SHA-256 matches", file=sys.stderr)
    print(f"resume it with: spectra train --resume {facts['run']}")
