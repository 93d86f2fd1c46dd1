"""The structure of the package: import-linter's contracts, no import cycles, small folders."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import tomllib

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_the_contracts_hold() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in run.stdout


def test_every_folder_of_the_package_has_a_layer() -> None:
    (layers,) = [one["layers"] for one in CONTRACTS if one["type"] == "layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    folders = {path.parent.name for path in (ROOT / "spectra_nsa").glob("*/__init__.py")}
    assert folders <= named, f"without a layer in pyproject.toml: {folders - named}"


def test_there_is_no_import_cycle() -> None:
    """Includes imports inside functions, but not those under TYPE_CHECKING."""
    graph = grimp.build_graph("spectra_nsa", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        raise AssertionError(f"import cycle: {' → '.join(reversed(error.args[1]))}") from error


def test_folders_are_small() -> None:
    """Allows 16 modules per folder, except for `cli`, which has one per command."""
    package = ROOT / "spectra_nsa"
    folders = [path.parent for path in package.rglob("__init__.py")]
    modules = {folder: [path for path in folder.glob("*.py") if path.name != "__init__.py"] for folder in folders}
    crowded = {folder.name: len(files) for folder, files in modules.items() if len(files) > 16 and folder.name != "cli"}
    assert not crowded


def test_files_and_functions_are_short() -> None:
    """Allows 300 lines per file and 60 per function, docstrings included."""
    long_files, long_functions = {}, {}
    for path in (ROOT / "spectra_nsa").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        if (lines := len(text.splitlines())) > 300:
            long_files[name] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long_functions[f"{name}:{node.name}"] = lines
    assert not long_files
    assert not long_functions
