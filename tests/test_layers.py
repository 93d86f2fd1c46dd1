"""The layers of the package: import-linter's contracts in pyproject.toml hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_the_contracts_hold() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in run.stdout


def test_every_folder_of_the_package_has_its_layer() -> None:
    (layers,) = [one["layers"] for one in CONTRACTS if one["type"] == "layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    folders = {path.parent.name for path in (ROOT / "spectra_nsa").glob("*/__init__.py")}
    assert folders <= named, f"without a layer in pyproject.toml: {folders - named}"
