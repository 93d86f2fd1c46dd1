"""Every part and every head learns: 50 steps from MiniLM on real text, and all of them have moved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.heads.kinds import OUTPUTS
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.run import train

TEXTS = ["Open the file and return its lines.", "def close(self): self.socket.close()", "a"]
RAW = [name for name in OUTPUTS if name not in ("anomaly_p", "is_ood", "fast")]


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = environment_pairs("stdlib").dataset.select(range(400))
    path = tmp_path_factory.mktemp("data") / "triplets.jsonl"
    lines = [
        {"anchor": row["anchor"], "positive": row["positive"], "negative": rows[(place + 7) % 400]["positive"]}
        for place, row in enumerate(rows)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("mixer", "pooling"), [("spectral", "entropy"), ("conv", "attention")])
def test_fifty_steps_move_everything(minilm: Path, triplets: Path, tmp_path: Path, mixer: str, pooling: str) -> None:
    recipe = load_recipe(
        None,
        [f"output={tmp_path}", "name=run", f"model.start={minilm}", f"data.train={triplets}", "data.dev_rows=0",
         "model.spectral=true", f"model.mixer={mixer}", "model.depth_mix=true", "model.entity=true",
         f"model.pooling={pooling}", "train.max_steps=50", "train.batch=8", "train.max_length=32",
         "loss.terms.triplet.weight=1", "loss.terms.matryoshka_angular.weight=1", "loss.terms.spectral.weight=0.1"],
    )  # fmt: skip
    start = open_start(recipe).spectra
    before = {name: weight.detach().clone() for name, weight in start.named_parameters()}
    first = open_start(recipe).encode(TEXTS, outputs=RAW)
    model = train(recipe).model
    still = [
        name
        for name, weight in model.spectra.named_parameters()
        if weight.numel() and torch.equal(weight, before[name])
    ]
    assert not still
    last = model.encode(TEXTS, outputs=RAW)
    for name in RAW:
        assert np.abs(last[name] - first[name]).max() > 1e-4, name
