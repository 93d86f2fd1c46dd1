"""Where files are kept that can be made again: `$XDG_CACHE_HOME/spectra-nsa`, else `~/.cache/spectra-nsa`."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from spectra_nsa.core.errors import SpectraError

_LEFT = 24 * 3600  # seconds after which an unfinished folder belongs to nobody


def cache_folder(kind: str) -> Path:
    """Where one kind of files, or one file, lies; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spectra-nsa" / kind


def new_folder(place: Path) -> Path:
    """An empty folder beside `place`, to be filled and published there.

    Raises:
        SpectraError: it cannot be made.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".tmp"))
    except OSError as error:
        raise SpectraError(
            f"cannot keep files in {place.parent}: {error.strerror or error}. Large training data needs about its own "
            "size on a disk: set XDG_CACHE_HOME to a folder with that much room."
        ) from error


def publish(temporary: Path, final: Path) -> None:
    """Gives a finished folder its name; what stood there, also what another process puts there meanwhile, goes.

    A process that has files of the old folder open keeps them.
    """
    for _ in range(10):
        try:
            temporary.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
            old = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".old"))
            with contextlib.suppress(OSError):  # another process has moved it
                final.rename(old / final.name)
            shutil.rmtree(old, ignore_errors=True)
    temporary.rename(final)


def prune(folder: Path, keep: int) -> None:
    """Deletes all but the `keep` entries that were used last, and what killed processes left unfinished."""
    entries = [path for path in folder.glob("[!.]*") if path.is_dir()]
    for path in sorted(entries, key=_used, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*"):
        if time.time() - max(map(_used, [path, *path.glob("*")]), default=0) > _LEFT:
            shutil.rmtree(path, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deletes it
        return 0.0
