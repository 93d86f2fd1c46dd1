"""What the files of a sparse encoder say, read without torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import opening
from spectra_nsa.core.files import read_json, read_json_object
from spectra_nsa.models.checks import weight_shapes

_STATIC = "SparseStaticEmbedding"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def sparse_facts(folder: Path) -> dict[str, Any]:
    """Returns kind, vocabulary, parameters and both sides of a saved sparse encoder, or of a masked LM as SPLADE.

    Returns:
        `kind` (``"splade"`` or ``"inference_free"``), `vocabulary` (V), `parameters`, `similarity`, `max_active_dims`,
        and for `query` and `document` their `modules`, `parameters`, `max_length` and `prompt`.

    Raises:
        SpectraError: a file is missing or damaged.
    """
    with opening(folder):
        library = folder / "config_sentence_transformers.json"
        settings = read_json_object(library) if library.is_file() else {}
        routes = _routes(folder)
        sizes = {path: _parameters(path) for paths in routes.values() for path, _ in paths}
        sides = {side: _side(paths, sizes, (settings.get("prompts") or {}).get(side)) for side, paths in routes.items()}
        vocabulary = next(size for path, _ in routes["document"] if (size := _vocabulary(path)))
    static = any(name == _STATIC for _, name in routes["query"])
    return {
        "kind": "inference_free" if static else "splade",
        "vocabulary": vocabulary,
        "parameters": sum(sizes.values()),
        "similarity": settings.get("similarity_fn_name") or "dot",
        "max_active_dims": settings.get("max_active_dims"),
        **sides,
    }


def _routes(folder: Path) -> dict[str, list[tuple[Path, str]]]:
    """Returns the folder and class name of each module that queries and documents pass."""
    if not (folder / "modules.json").is_file():  # the files of a masked LM
        modules = [(folder, "Transformer"), (folder / "pooling", "SpladePooling")]
        return {"query": modules, "document": modules}
    modules = [
        (folder / str(module["path"]), _class_name(module["type"])) for module in read_json(folder / "modules.json")
    ]
    if modules[0][1] != "Router":
        return {"query": modules, "document": modules}
    router = modules[0][0]
    config = read_json_object(router / "router_config.json")
    names = {key: _class_name(kind) for key, kind in config["types"].items()}
    default = config["parameters"].get("default_route")
    structure = config["structure"]
    return {
        side: [(router / key, names[key]) for key in structure.get(side, structure.get(default))] + modules[1:]
        for side in ("query", "document")
    }


def _side(paths: list[tuple[Path, str]], sizes: dict[Path, int], prompt: str | None) -> dict[str, Any]:
    first = paths[0][0]
    lengths = [
        value
        for name, key in (
            ("sentence_bert_config.json", "max_seq_length"),
            ("tokenizer_config.json", "model_max_length"),
        )
        if (first / name).is_file() and isinstance(value := read_json_object(first / name).get(key), int)
    ]
    return {
        "modules": [name for _, name in paths],
        "parameters": sum(sizes[path] for path, _ in paths),
        "max_length": lengths[0] if lengths and lengths[0] < 10**9 else None,
        "prompt": prompt or "",
    }


def _parameters(folder: Path) -> int:
    """Counts saved weights; those that are tied are saved once."""
    if not any((folder / name).is_file() for name in _WEIGHTS):
        return 0
    return sum(math.prod(shape) for shape in (weight_shapes(folder) or {}).values())


def _vocabulary(folder: Path) -> int | None:
    if (folder / "config.json").is_file() and (size := read_json_object(folder / "config.json").get("vocab_size")):
        return int(size)
    shapes = (weight_shapes(folder) or {}) if (folder / "model.safetensors").is_file() else {}
    return shapes["weight"][0] if list(shapes) == ["weight"] else None


def _class_name(path: str) -> str:
    return path.rsplit(".", 1)[-1]
