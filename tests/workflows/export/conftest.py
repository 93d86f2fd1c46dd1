"""A small model with every part and head, exported once to several formats."""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import spectra_nsa as sp
from spectra_nsa.workflows.export.run import export_model
from spectra_nsa.workflows.fit import fit_anomaly_on, fit_codes_on
from tests.builders import WORDS, bert_folder

FORMATS = ("onnx", "onnx-int8", "onnx-fp16", "torch-export")


@dataclass(frozen=True)
class Exported:
    """A model, and its exports beside it."""

    folder: Path
    pairs: Path
    texts: list[str]
    model: Any
    document: dict[str, Any]


def sentences(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for _ in range(count)]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports once for all processes that run tests."""
    pytest.importorskip("onnxscript")
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exported"
    with FileLock(f"{folder}.lock"):
        if not (folder / "document.json").is_file():
            document = _export(folder)
            (folder / "document.json").write_text(json.dumps(document), encoding="utf-8")
    document = json.loads((folder / "document.json").read_text(encoding="utf-8"))
    texts = sentences(25, seed=2)
    return Exported(folder / "model", folder / "pairs.jsonl", texts, sp.load(folder / "model"), document)


def _export(folder: Path) -> dict[str, Any]:
    start = bert_folder(folder / "start", prompts={"query": "open the ", "document": "file "})
    parts: dict[str, Any] = {"spectral": True, "depth_mix": True, "entity": True, "pooling": "entropy"}
    model = sp.warm_start(start, **parts, ffn="moe", experts={"count": 2}, adapters=2)
    torch.manual_seed(1)
    for weight in model.spectra.gates():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(str(folder / "model"))
    texts = sentences(700)
    fit_codes_on(str(folder / "model"), texts, say=lambda line: None)
    fit_anomaly_on(str(folder / "model"), texts, say=lambda line: None)
    rows = [{"anchor": text, "positive": f"{text} to"} for text in sentences(40, seed=1)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return export_model(str(folder / "model"), FORMATS, texts=str(folder / "pairs.jsonl"))
