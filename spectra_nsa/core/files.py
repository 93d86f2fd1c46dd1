"""Files that are complete or absent: each is written under a temporary name beside its final one, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from spectra_nsa.core.errors import SpectraError, UsageError


def expand_user(path: str | Path) -> Path:
    """Returns a path with `~` replaced by the home folder; unchanged if that is unknown.

    Raises:
        SpectraError: the system cannot say whether the path exists, such as for a name that is too long.
    """
    expanded = Path(os.path.expanduser(path))  # noqa: PTH111 (`Path.expanduser` raises a RuntimeError)
    try:
        expanded.exists()
    except OSError as error:
        raise SpectraError(f"{str(path)[:80]!r} cannot be opened: {error.strerror or error}.") from error
    return expanded


def _parent(path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpectraError(f"cannot create the folder {path.parent}: {error.strerror or error}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SpectraError(f"cannot write to {path.parent}: no permission. Choose another output folder.")
    return path.parent


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary file beside `path`; it takes the name `path` when the block ends without an error.

    Links are followed. A device or a pipe, such as ``/dev/stdout``, is written to directly.

    Args:
        path: the file to write; its folder is created.
        mode: ``"w"`` (UTF-8 text, in which a lone surrogate becomes its escape, as in JSON) or ``"wb"``.

    Raises:
        UsageError: the path is a folder.
        SpectraError: the folder cannot be created or written to, or the disk is full.
    """
    path = Path(path)
    final = path.resolve() if path.is_symlink() else path
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace"}
    if final.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write.")
    if final.exists() and not final.is_file():
        with _one_line(path), final.open(mode, **options) as file:
            yield file
        return
    folder = _parent(final)
    with _one_line(path):
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=f".{final.name}.", suffix=".tmp")
        except OSError as error:
            raise _cannot_write(path, error) from error
        try:
            with os.fdopen(handle, mode, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(final)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turns a failed write, which names no file, into an error that names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> SpectraError:
    return SpectraError(f"cannot write {path}: {error.strerror or error}.")


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Locks a folder until the block or the process ends; creates it if it does not exist.

    Raises:
        UsageError: another process has locked it.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpectraError(f"cannot create the folder {folder}: {error.strerror or error}.") from error
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(f"another process is using {folder}. Wait until it ends, or name another folder.") from None
    except (NotImplementedError, OSError) as error:  # a file system without locks
        if isinstance(error, PermissionError):
            raise SpectraError(f"cannot write to {folder}: no permission. Choose another output folder.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not delete what is open
            (folder / ".lock").unlink()
        lock.release()


def check_replaceable(path: str | Path, mark: str) -> None:
    """Checks that a folder can be written: it is absent, empty, or of the kind that may be replaced.

    Args:
        path: the folder to write.
        mark: a file that every folder of that kind has.

    Raises:
        UsageError: the path is a file, or a folder of another kind.
    """
    path = Path(path)
    if path.is_dir() and ((path / mark).is_file() or not any(path.iterdir())):
        return
    if path.exists():
        kind = "a folder with other files" if path.is_dir() else "a file"
        raise UsageError(f"{path} is {kind}, which would be lost. Name a folder that does not exist yet.")


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; it replaces `path` when the block ends without an error.

    The old content of `path` is lost. If a user chose the path, call `check_replaceable` first.
    """
    path = Path(path)
    folder = _parent(path)
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{path.name}.", suffix=".tmp"))
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary.chmod(0o777 & ~_umask())
    old = path.with_name(f".{path.name}.old")
    try:
        yield temporary
        _make_readable(temporary)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        raise


def _make_readable(folder: Path) -> None:
    """Gives the files of a folder the usual permissions: libraries may write theirs for the owner alone."""
    mode = 0o666 & ~_umask()
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | mode)


def finite_json(value: Any) -> Any:
    """Returns a document with ``None`` for each number that JSON does not have: NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_json(item) for item in value]
    return value


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinity as null."""
    with atomic_write(path) as file:
        json.dump(finite_json(value), file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        SpectraError: the file is missing, cannot be read or is not JSON; the message names file, line and column.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpectraError(f"{path} does not exist.") from error
    except json.JSONDecodeError as error:
        raise SpectraError(f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}).") from error
    except UnicodeDecodeError as error:
        raise SpectraError(f"{path}: not UTF-8 at byte {error.start}.") from error
    except OSError as error:
        raise SpectraError(f"{path}: cannot read the file ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, nested too deep
        raise SpectraError(f"{path}: JSON that cannot be read ({error}).") from error


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Raises:
        SpectraError: see `read_json`; or it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise SpectraError(f"{path} holds {type(value).__name__} instead of a JSON object.")
    return value
