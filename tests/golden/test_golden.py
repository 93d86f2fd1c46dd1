"""Outputs recorded with version 0.1.0 of November 2026, before the package was reorganized.

`model/` is a saved 2-layer model with every part on and every head fitted; `outputs.npz` holds its outputs for
`texts.json`. `recipe.yaml` and `metrics.jsonl` belong to the 20 training steps, from `start/` on `rows.jsonl`, that
produced it. The machine that recorded them reproduces both to the last bit; the tolerances are for other machines.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe

HERE = Path(__file__).parent
CLOCK = {"time", "pairs_per_second", "tokens_per_second", "matmul_share", "memory_gb", "eval_runtime"}


def test_a_saved_model_still_opens_and_returns_the_same_outputs() -> None:
    model = sp.load(HERE / "model", device="cpu")
    texts = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    with np.load(HERE / "outputs.npz") as recorded:
        found = model.encode(texts, outputs=recorded.files)
        for name in recorded.files:
            assert found[name].dtype == recorded[name].dtype
            if name == "fast":
                continue
            np.testing.assert_allclose(found[name], recorded[name], rtol=1e-4, atol=1e-5, err_msg=name)
        undecided = np.abs(recorded["fast_logits"]) < 1e-5
        flipped = np.unpackbits(found["fast"], axis=1) != np.unpackbits(recorded["fast"], axis=1)
        assert not (flipped & ~undecided).any()


def test_a_recorded_recipe_still_trains_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = [f"model.start={HERE / 'start'}", f"data.train={HERE / 'rows.jsonl'}"]
    run = sp.train(load_recipe(HERE / "recipe.yaml", overrides))
    found, recorded = _rows(run.folder / "metrics.jsonl"), _rows(HERE / "metrics.jsonl")
    assert [(row["step"], sorted(row)) for row in found] == [(row["step"], sorted(row)) for row in recorded]
    for ours, theirs in zip(found, recorded, strict=True):
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=2e-3, abs=2e-4), (theirs["step"], name)


def _rows(path: Path) -> list[dict[str, float]]:
    """The measured rows of a log, without what depends on the clock or the machine."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    measured = [{name: value for name, value in row.items() if isinstance(value, int | float)} for row in rows]
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in measured]
