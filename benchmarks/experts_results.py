"""The results of an experiment on experts: lines of figures, and arrays with the figure of each query or text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

Found = Mapping[str, Mapping[str, np.ndarray]]  # by kind of figure and domain


def parse(description: str | None, arms: Sequence[str], output: str, **more: tuple[Any, str]) -> argparse.Namespace:
    """Reads the command line that all experiments share.

    Args:
        description: for the help.
        arms: the names of the arms.
        output: the default folder.
        more: further options with their default and help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--arms", nargs="+", choices=arms, default=list(arms), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--output", type=Path, default=Path(output), metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="save the models")
    for name, (default, about) in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help=about)
    return parser.parse_args()


class Results:
    """What has been measured so far, in `results.jsonl` and one `.npz` for each run.

    Args:
        folder: is created.
        defaults: settings of the final runs; runs with others get a suffix, which the report does not read.
    """

    def __init__(self, folder: Path, defaults: Mapping[str, Any]) -> None:
        self.folder, self.defaults = folder, dict(defaults)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.done = [json.loads(line) for line in lines]

    def has(self, key: Mapping[str, Any]) -> bool:
        """Returns whether a run with these settings is there."""
        return any(all(line.get(name) == value for name, value in key.items()) for line in self.done)

    def name(self, key: Mapping[str, Any]) -> str:
        """Returns the name of a run's files."""
        other = {name: key[name] for name, value in self.defaults.items() if key[name] != value}
        suffix = f"-{sha256(json.dumps(other, sort_keys=True).encode()).hexdigest()[:6]}" if other else ""
        return f"{key['arm']}-{key['seed']}-{key['split']}{suffix}"

    def add(self, key: Mapping[str, Any], found: Found, cpu_seconds: float) -> None:
        """Writes the figures of a run, and prints its line."""
        arrays: dict[str, Any] = {f"{kind}/{name}": array for kind, of in found.items() for name, array in of.items()}
        np.savez_compressed(self.folder / f"{self.name(key)}.npz", **arrays)
        figures = {kind: {name: round(float(v.mean()), 4) for name, v in of.items()} for kind, of in found.items()}
        means = {f"{kind}_mean": round(float(np.mean(list(of.values()))), 4) for kind, of in figures.items()}
        line = dict(key) | means | {"cpu_seconds": round(cpu_seconds)} | figures
        self.done.append(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
