"""`train.interpolate` keeps a share of what the encoder learned, and all of what the heads learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spectra_nsa.config.recipe import load_recipe, load_run_recipe
from spectra_nsa.core.errors import UsageError
from spectra_nsa.models.sentence import load
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.report.run_log import read_run
from spectra_nsa.report.run_status import run_status
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.monitor.health import HealthSample
from spectra_nsa.training.run import train
from tests.builders import WORDS


def test_the_model_is_between_start_and_end(tmp_path: Path, start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"anchor": f"{a} {b}", "positive": f"{b} {a} now"}) for a in WORDS[:8] for b in WORDS[8:16]]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(rows) + "\n", encoding="utf-8")
    base = [
        f"output={tmp_path}", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=15", "train.batch=8",
        "train.max_steps=4", "train.lr=1e-3", "train.precision=fp32", "train.fit_heads=0",
    ]  # fmt: skip
    whole = train(load_recipe(None, [*base, "name=whole"]))
    mixed = train(load_recipe(None, [*base, "name=mixed", "train.interpolate=0.4"]))
    first = dict(warm_start(start).spectra.named_parameters())
    end, kept = (load_file(run.folder / "model" / "model.safetensors") for run in (whole, mixed))
    drawn = [name for name in end if name.startswith("encoder.")]
    assert len(drawn) > 10
    assert any(not torch.equal(first[name], end[name]) for name in drawn)
    for name, value in kept.items():
        expected = torch.lerp(first[name], end[name], 0.4) if name in drawn else end[name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(kept["anchors.anchors.weight"], warm_start(start).spectra.anchors.anchors.weight)
    said = capsys.readouterr().err
    assert f"interpolated with the start, share 0.4: dev_ndcg@10 {mixed.best['dev_ndcg@10']:.4f}" in said
    status = run_status(read_run(mixed.folder).rows, now=0)
    assert status["dev"]["kept"] == mixed.best["dev_ndcg@10"], "the report's figures are those of the saved model"
    card = (mixed.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"**Base model:** {start.name}\n" in card and f"**Training Dataset:** {pairs.name} (" in card
    lines = [json.loads(line) for line in (mixed.folder / "metrics.jsonl").read_text().splitlines()]
    recipe, model = load_run_recipe(mixed.folder / "recipe.yaml"), load(mixed.folder / "model")
    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    sample = HealthSample(data.first, recipe.monitor.rows, seed=recipe.train.seed, precision="fp32")
    health = [line for line in lines if "health_rank" in line]
    assert sample.measure(model)["health_rank"] == pytest.approx(health[-1]["health_rank"], abs=1e-3)


@pytest.mark.parametrize("share", ["0", "1.1"])
def test_it_is_a_share(share: str) -> None:
    with pytest.raises(UsageError, match="interpolate"):
        load_recipe(None, [f"train.interpolate={share}"])


def test_without_a_start_there_is_nothing_to_interpolate_with() -> None:
    with pytest.raises(UsageError, match=r"model\.start"):
        train(load_recipe(None, ["model.size=small", "data.train=python:stdlib", "train.interpolate=0.5"]))
