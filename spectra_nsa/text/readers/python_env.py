"""Training pairs from the Python environment: docstrings with their functions. Sources are read, not imported."""

from __future__ import annotations

import contextlib
import difflib
import gc
import gzip
import hashlib
import importlib.util
import json
import os
import platform
import sys
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.core.files import atomic_write
from spectra_nsa.text.quarantine import Quarantine
from spectra_nsa.text.readers.docstrings import function_pairs
from spectra_nsa.text.rows import Problem, TextSet

if TYPE_CHECKING:
    from datasets import Dataset

RULES = 1  # part of the cache key; increase it when the rules here or in `docstrings` change
_SKIPPED = {
    "__pycache__", "test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "ensurepip",
    "pydoc_data", "_vendor", "_vendored", "vendor", "vendored", "externals", "_bundled", "spectra_nsa",
}  # fmt: skip


class FunctionRow(NamedTuple):
    """One pair.

    Attributes:
        anchor: the first paragraph of the docstring.
        positive: the function.
        group: its top-level package.
        name: its qualified name.
        path: its file, relative to the folder of the package.
        line: its first line.
    """

    anchor: str
    positive: str
    group: str
    name: str
    path: str
    line: int


@dataclass(frozen=True, kw_only=True)
class _Package:
    """A top-level package or module: its name, and its folder or file."""

    name: str
    path: Path


def environment_pairs(
    packages: Sequence[str] | Literal["stdlib", "installed"],
    *,
    limit: int | None = None,
    per_package: int | None = None,
    cache_dir: Path | None = None,
    quarantine: Path | None = None,
) -> TextSet:
    """Reads pairs of docstring and function from the standard library or from installed packages.

    Args:
        packages: ``"stdlib"``, ``"installed"`` (every package outside the standard library), or import names.
        limit: the number of pairs to keep, evenly spaced over all of them; ``None`` keeps all.
        per_package: the maximum number of pairs from one package, from files in a fixed shuffled order; ``None`` for
            no maximum.
        cache_dir: a folder that caches the pairs; the key includes the versions of Python and of the packages. ``None``
            for no cache.
        quarantine: a folder for the list of files that cannot be parsed; ``None`` only counts them.

    Raises:
        SpectraError: a package is not installed, or no documented function was found.
        UsageError: `limit` or `per_package` is below 1.
    """
    if isinstance(packages, str) and packages not in ("stdlib", "installed"):
        packages = [packages]
    label = packages if isinstance(packages, str) else ",".join(packages)
    if (limit is not None and limit < 1) or (per_package is not None and per_package < 1):
        raise UsageError("limit and per_package must be at least 1.")
    sources = _find_packages(packages)
    cache_file = None if cache_dir is None else Path(cache_dir) / f"python-{_cache_key(label, per_package)}.jsonl.gz"
    cached = None if cache_file is None else _read_cache(cache_file)
    rows, problems = cached or _scan(sources, per_package)
    if cache_file is not None and cached is None:
        with contextlib.suppress(SpectraError, OSError):  # the pairs are read again next time
            _write_cache(cache_file, rows, problems)
    with Quarantine(f"python-{label}", quarantine) as refused:
        for problem in problems:
            refused.add(problem)
    if not rows:
        raise SpectraError(
            f"python:{label}: found no documented function in {len(sources)} packages. Choose other packages."
        )
    notes = () if limit is None or len(rows) <= limit else (f"{limit:,} of {len(rows):,} pairs, evenly spaced",)
    return TextSet(
        name=f"python:{label}", kind="pairs", dataset=_dataset(_evenly_spaced(rows, limit)), quarantined=refused.count,
        quarantine_file=refused.path, problems=tuple(refused.first), notes=notes,
    )  # fmt: skip


def _dataset(rows: list[FunctionRow]) -> Dataset:
    try:
        from datasets import Dataset
    except ImportError as error:
        raise missing_extra("datasets", "data") from error
    return Dataset.from_dict({field: [row[i] for row in rows] for i, field in enumerate(FunctionRow._fields)})


def _evenly_spaced(rows: list[FunctionRow], limit: int | None) -> list[FunctionRow]:
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _find_packages(packages: Sequence[str] | Literal["stdlib", "installed"]) -> list[_Package]:
    """Returns the packages to read, sorted by name."""
    if packages == "stdlib":
        return _children(Path(sysconfig.get_path("stdlib")))
    folders = dict.fromkeys(Path(sysconfig.get_path(key)).resolve() for key in ("purelib", "platlib"))
    if packages == "installed":
        installed = {package.name: package for folder in folders for package in _children(folder)}
        return [installed[name] for name in sorted(installed)]
    return [_package_by_name(name) for name in sorted(set(packages))]


def _children(folder: Path) -> list[_Package]:
    """Returns the packages and modules of a folder."""
    if not folder.is_dir():
        return []
    packages = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.isidentifier() and path.name not in _SKIPPED:
            packages.append(_Package(name=path.name, path=path))
        elif path.suffix == ".py" and path.stem.isidentifier() and path.stem not in _SKIPPED:
            packages.append(_Package(name=path.stem, path=path))
    return packages


def _package_by_name(name: str) -> _Package:
    """Returns an installed package by its import name. The package is not imported."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None:
        known = {*sys.stdlib_module_names, *(package.name for package in _find_packages("installed"))}
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SpectraError(f"python:{name}: no package with this import name is installed.{hint}")
    candidates = [*(spec.submodule_search_locations or []), *([spec.origin] if spec.origin else [])]
    path = next((path for path in map(Path, candidates) if path.is_dir() or path.suffix == ".py"), None)
    if path is None:
        raise SpectraError(f"python:{name}: the package has no Python source files. Choose another package.")
    return _Package(name=name, path=path)


def source_files(path: Path) -> list[Path]:
    """Returns the Python files of a package, sorted, without tests, vendored copies and caches."""
    if path.is_file():
        return [path]
    files: list[Path] = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED and not name.startswith(".")]
        files += [Path(folder) / name for name in names if name.endswith(".py") and not _is_test(name)]
    return sorted(files)


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"


def _scan(packages: list[_Package], per_package: int | None) -> tuple[list[FunctionRow], list[Problem]]:
    """Returns all pairs, without those whose description or code occurred before, and the unreadable files."""
    rows: list[FunctionRow] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    with _without_gc():
        for package in progress(packages, label="reading Python packages"):
            selected: list[FunctionRow] = []
            for row in _rows(package, problems, shuffled=per_package is not None):
                if row.anchor in seen or row.positive in seen:
                    continue
                seen.update((row.anchor, row.positive))
                selected.append(row)
                if len(selected) == per_package:
                    break
            rows += sorted(selected, key=lambda row: (row.path, row.line))
    return rows, problems


@contextlib.contextmanager
def _without_gc() -> Iterator[None]:
    """Disables garbage collection. Syntax trees have no cycles, and searching for them doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _rows(package: _Package, problems: list[Problem], *, shuffled: bool) -> Iterator[FunctionRow]:
    files = source_files(package.path)
    if shuffled:  # by a hash of the path within the package: the same order on every machine
        files.sort(key=lambda file: hashlib.sha256(_relative(file, package).encode()).digest())
    for file in files:
        path = _relative(file, package)
        try:
            pairs = function_pairs(file.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError) as error:
            line = getattr(error, "lineno", None) or 0
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            problems.append(Problem(file=str(file), line=line, column=None, reason=reason, raw=""))
            continue
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for pair in pairs:
            yield FunctionRow(pair.description, pair.code, package.name, f"{module}.{pair.name}", path, pair.line)


def _relative(file: Path, package: _Package) -> str:
    return file.relative_to(package.path.parent).as_posix()


def _cache_key(label: str, per_package: int | None) -> str:
    installed = sorted(
        {f"{item.name}=={item.version}" for item in metadata.distributions()} if label != "stdlib" else ()
    )
    folder = sysconfig.get_path("stdlib" if label == "stdlib" else "purelib")
    parts = [RULES, platform.python_version(), folder, label, per_package, installed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _read_cache(path: Path) -> tuple[list[FunctionRow], list[Problem]] | None:
    """Returns the cached pairs and unreadable files; ``None`` if the cache is missing or damaged."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head = json.loads(next(file))
            rows = [FunctionRow(*json.loads(line)) for line in file]
        return (rows, [Problem(**problem) for problem in head["problems"]]) if head["rows"] == len(rows) else None
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, StopIteration, RecursionError):
        return None


def _write_cache(path: Path, rows: list[FunctionRow], problems: list[Problem]) -> None:
    head = {"rows": len(rows), "problems": [asdict(problem) for problem in problems]}
    with atomic_write(path, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=3, mtime=0) as packed:
        for item in (head, *rows):
            packed.write((json.dumps(item, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
