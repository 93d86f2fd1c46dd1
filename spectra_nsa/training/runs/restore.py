"""Restores a run from its backup, so that it can be resumed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder
from spectra_nsa.training.runs.backup_store import Store, runs_at
from spectra_nsa.training.runs.checkpoints import step_of


def overview(address: str) -> list[dict[str, Any]]:
    """Lists the runs with backups at an address, each with its complete units.

    Raises:
        SpectraError: there are none, or the address cannot be read.
    """
    runs = []
    for store in _runs(address):
        units = store.units()
        newest: dict[str, Any] = next((units[name] for name in reversed(units) if name != "model"), {})
        rows = [
            {
                "name": name,
                "bytes": sum(entry["size"] for entry in manifest["files"].values()),
                "best": name == f"step-{newest.get('best')}",
            }
            for name, manifest in units.items()
        ]
        runs.append({"run": store.run, "address": store.address, "units": rows})
    return runs


def restore(address: str, to: Path | None = None) -> dict[str, Any]:
    """Restores a run: its newest intact checkpoint, the best one before it, recipe, log and model.

    A unit that does not match its manifest is reported on standard error and skipped for the one before it.

    Args:
        address: a run's address, or one with a single run below it.
        to: the run's new folder; ``None`` for `runs/NAME`.

    Returns:
        run (the folder), step, units (what was restored).

    Raises:
        UsageError: there are several runs.
        SpectraError: there is none, no checkpoint of it is intact, or the folder is not empty.
    """
    stores = _runs(address)
    if len(stores) > 1:
        named = ", ".join(store.address for store in stores)
        raise UsageError(f"{address} holds several runs: name one of {named}.")
    (store,) = stores
    folder = to or Path("runs") / store.run
    if folder.exists() and any(folder.iterdir()):
        raise SpectraError(f"{folder} is not empty. Choose another folder: --to runs/NAME")
    units = store.units()
    steps = [name for name in units if name != "model"]
    with atomic_folder(folder) as temporary:
        for newest in reversed(steps):
            if not _fetch(store, newest, units[newest], temporary):
                for path in temporary.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                continue
            best = f"step-{units[newest].get('best')}"
            more = [name for name in (best, "model") if name != newest and name in units]
            restored = [name for name in more if _fetch_beside(store, name, units[name], temporary)]
            return {"run": str(folder), "step": step_of(Path(newest)), "units": [newest, *restored]}
        raise SpectraError(f"every checkpoint at {store.address} is damaged.")


def _runs(address: str) -> list[Store]:
    try:
        stores = runs_at(address)
    except SpectraError:
        raise
    except Exception as error:  # each backend has its own
        raise SpectraError(f"{address} cannot be read: {type(error).__name__}: {error}") from error
    if not stores:
        raise SpectraError(f"{address} holds no backups. It should be what backup.to was, or a run's folder below it.")
    return stores


def _fetch(store: Store, name: str, manifest: dict[str, Any], folder: Path) -> bool:
    try:
        store.fetch(name, manifest, folder)
    except SpectraError as error:
        print(f"spectra: {error}; skipping {name}", file=sys.stderr, flush=True)
        return False
    return True


def _fetch_beside(store: Store, name: str, manifest: dict[str, Any], folder: Path) -> bool:
    """Fetches a further unit beside the newest, without its recipe and log, which are older."""
    files = {file: entry for file, entry in manifest["files"].items() if file.startswith(("checkpoints/", "model/"))}
    if _fetch(store, name, {**manifest, "files": files}, folder):
        return True
    shutil.rmtree(folder / ("model" if name == "model" else f"checkpoints/{name}"), ignore_errors=True)
    return False
