"""What is known of a model from its folder, its run, its exports and its results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.core.checksums import describe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import expand_user, read_json_object
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.training.runs.model_card import public_name

_RUN_FILES = ("recipe.yaml", "metrics.jsonl")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A source of training texts.

    Attributes:
        name: without local folders.
        sha256: of a file; of a folder that of the checksums of its files; ``None`` if it is not here.
        licence: as stated; ``None`` if nobody did.
    """

    name: str
    sha256: str | None
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a card says.

    Attributes:
        folder: of the model.
        sparse: whether it is a sparse encoder.
        spec: its shape; ``None`` of a sparse encoder or another architecture.
        max_length: in tokens; ``None`` if unknown.
        base: what training began from; ``None`` without a run.
        data: the sources of training texts.
        recipe: the text of the recipe, without local folders; ``None`` without a run.
        run: of a run: `rows`, `steps`, `hours`, `precision`, `environment`, `dev` (name → value), as far as known.
        exports: the formats in `export.json`, by name.
        results: figures with intervals, from files of `spectra eval`.
    """

    folder: Path
    sparse: bool
    spec: ModelSpec | None
    max_length: int | None
    base: str | None = None
    data: Sequence[DataFacts] = ()
    recipe: str | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    exports: Mapping[str, Any] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()


def find_model_folder(path: str | Path) -> tuple[Path, Path | None]:
    """Returns the folder of a model, and that of its run; ``None`` without a run.

    Args:
        path: a model or a run.

    Raises:
        SpectraError: there is no model.
    """
    folder = expand_user(path)
    if (folder / "recipe.yaml").is_file() and (folder / "model").is_dir():
        folder = folder / "model"
    if not (folder / "config_sentence_transformers.json").is_file():
        raise SpectraError(f"{path} has no finished model. Name the folder of a saved model, or a run that has ended.")
    run = folder.resolve().parent
    return folder, run if all((run / name).is_file() for name in _RUN_FILES) else None


def collect_facts(
    path: str | Path, *, results: Sequence[str | Path] = (), data_licences: Mapping[str, str] | None = None
) -> ModelFacts:
    """Reads what is known of a model.

    Args:
        path: a model or a run.
        results: files that `spectra eval --output` or ``--json`` wrote.
        data_licences: source → licence of training texts.

    Raises:
        UsageError: a licence is for a source that the run did not use.
        SpectraError: there is no model, or a file is damaged.
    """
    folder, run = find_model_folder(path)
    config = read_json_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    library = read_json_object(folder / "config_sentence_transformers.json")
    exported = folder / "export.json"
    formats = read_json_object(exported).get("formats", {}) if exported.is_file() else {}
    facts: dict[str, Any] = {"exports": {name: of for name, of in formats.items() if (folder / of["file"]).is_file()}}
    licences = dict(data_licences or {})
    if run is not None:
        facts |= _run_facts(run, licences)
    if licences:
        raise UsageError(f"--data-license {next(iter(licences))}: the run has no such source of training texts.")
    return ModelFacts(
        folder=folder,
        sparse=library.get("model_type") == "SparseEncoder",
        spec=ModelSpec.from_config(config) if config.get("model_type") == "spectra_nsa" else None,
        max_length=_max_length(folder, config),
        results=[figure for file in results for figure in _figures(expand_user(file))],
        **facts,
    )


def _run_facts(run: Path, licences: dict[str, str]) -> dict[str, Any]:
    """Reads a run; takes the licences that it uses out of `licences`."""
    from spectra_nsa.config.recipe import load_recipe
    from spectra_nsa.report.run_log import read_run
    from spectra_nsa.training.runs.model_card import base_model

    recipe = load_recipe(run / "recipe.yaml")
    sets = recipe.data.sets or {}
    sources = [source for source in (recipe.data.train, *(part.train for part in sets.values())) if source is not None]
    text = (run / "recipe.yaml").read_text(encoding="utf-8")
    for value in {str(part) for part in (recipe.output, recipe.model.start, recipe.data.dev, *sources) if part}:
        text = text.replace(value, public_name(value))
    data = [
        DataFacts(
            name=public_name(source),
            sha256=_checksum(expand_user(source)),
            licence=licences.pop(source, None) or licences.pop(public_name(source), None),
        )
        for source in sources
    ]
    lines = read_run(run).rows
    started: dict[str, Any] = next((line["started"] for line in lines if "started" in line), {})
    times = [line["time"] for line in lines if "time" in line]
    dev = {name: value for line in lines for name, value in line.items() if name.startswith("eval_dev_")}
    return {
        "base": base_model(recipe),
        "data": data,
        "recipe": text,
        "run": {
            "steps": max((line.get("step", 0) for line in lines), default=0),
            "hours": (max(times) - min(times)) / 3600 if times else None,
            "precision": started.get("precision"),
            "environment": started.get("environment", {}),
            "dev": {name.removeprefix("eval_"): value for name, value in dev.items()},
        },
    }


def _figures(file: Path) -> list[dict[str, Any]]:
    found = read_json_object(file).get("results")
    if not isinstance(found, list) or not all(
        isinstance(r, dict) and {"name", "metric", "value"} <= r.keys() for r in found
    ):
        raise SpectraError(f"{file} has no results of `spectra eval`.")
    return found


def _max_length(folder: Path, config: Mapping[str, Any]) -> int | None:
    for name in ("tokenizer_config.json", "0_Transformer/tokenizer_config.json"):
        if (folder / name).is_file():
            value = read_json_object(folder / name).get("model_max_length")
            if isinstance(value, int) and value < 1_000_000:
                return value
    value = config.get("max_position_embeddings")
    return value if isinstance(value, int) else None


def _checksum(path: Path) -> str | None:
    if path.is_file():
        return str(describe(path)["sha256"])
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()} {describe(file)['sha256']}\n".encode())
    return digest.hexdigest()
