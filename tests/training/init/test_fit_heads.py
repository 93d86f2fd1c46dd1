"""Hash and anchors are fitted when training ends: better, nothing else touched, and the same after a resume."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spectra_nsa as sp
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.heads.anchors import AnchorHead
from spectra_nsa.heads.fit_anchors import fit_anchors
from spectra_nsa.heads.fit_codes import fit_codes, hashed_pair
from spectra_nsa.training.init import fit_heads
from spectra_nsa.training.run import train
from spectra_nsa.workflows.fit import code_recall
from tests.builders import WORDS


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = []
    for _ in range(700):
        shared = list(generator.choice(WORDS, 3, replace=False))
        anchor, positive = (" ".join([*shared, *generator.choice(WORDS, 3)]) for _ in range(2))
        rows.append(json.dumps({"anchor": anchor, "positive": positive}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def recipe_of(folder: Path, start: Path, pairs: Path, *more: str) -> Recipe:
    base = [
        f"output={folder}", "name=run", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=0",
        "train.batch=8", "train.max_steps=4", "train.checkpoint_every=2", "train.evaluate_every=2",
        "train.precision=fp32",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def test_codes_fitted_at_the_end_are_better_and_nothing_else_changes(tmp_path: Path, start: Path, pairs: Path) -> None:
    trained = train(recipe_of(tmp_path / "a", start, pairs, "train.fit_heads=0"))
    fitted = train(recipe_of(tmp_path / "b", start, pairs))
    before, after = (load_file(run.folder / "model" / "model.safetensors") for run in (trained, fitted))
    other = {name for name, value in before.items() if not torch.equal(value, after[name])}
    bridge = {f"bridge.{name}" for name in ("project.weight", "project.bias", "decode.weight", "sharpness")}
    assert other == bridge | {"anchors.anchors.weight"}
    texts = [f"{a} {b} {c} {a}" for a in WORDS for b in WORDS[5:15] for c in WORDS[10:]]
    recalls = []
    for run in (trained, fitted):
        model = sp.load(run.folder / "model")
        pair = hashed_pair(model.encode(texts, outputs=["semantic", "embedding"]), entity=False)
        recalls.append(code_recall(model.spectra.bridge, pair, (pair[0][::5], pair[1][::5])))
        assert not model.spectra.config.codes_fitted  # to training texts is not to the user's corpus
    assert recalls[1]["64"]["symmetric"] > recalls[0]["64"]["symmetric"] + 0.05
    bits = [
        model.encode(texts[:40], outputs=["fast"])["fast"] for model in (fitted.model, sp.load(fitted.folder / "model"))
    ]
    assert np.array_equal(*bits)


def test_a_resumed_run_ends_with_the_same_codes(
    tmp_path: Path, start: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_heads, "fit_codes", partial(fit_codes, steps=10))
    whole = train(recipe_of(tmp_path, start, pairs, "train.keep_checkpoints=3"))
    wanted = load_file(whole.folder / "model" / "model.safetensors")
    first = next(path for path in sorted((whole.folder / "checkpoints").iterdir()) if path.name.startswith("step-"))
    again = train(resume=first)
    assert again.first_step == 2
    found = load_file(again.folder / "model" / "model.safetensors")
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())


def test_too_few_texts_leave_the_codes_and_warn(
    tmp_path: Path, start: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [recipe_of(tmp_path / k, start, pairs, "data.limit=60", f"train.fit_heads={k}") for k in ("0", "900")]
    before, after = (load_file(train(recipe).folder / "model" / "model.safetensors") for recipe in few)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    said = capsys.readouterr().err
    assert "there are 60" in said and "train.fit_heads=0" in said and "spectra codes fit" in said


def test_the_first_anchors_carry_most() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(3_000, 40, generator=generator) * torch.linspace(2, 0.1, 40)
    left, right = (
        torch.nn.functional.normalize(shared + torch.randn(3_000, 40, generator=generator), dim=-1) for _ in range(2)
    )
    head = AnchorHead(40)
    fit_anchors(head, left[:2_000], right[:2_000])

    def found(places: slice) -> float:
        a, b = (torch.nn.functional.normalize(head(side[2_000:])[:, places], dim=-1) for side in (left, right))
        return float(((a @ b.T).argmax(1) == torch.arange(len(a))).float().mean())

    assert found(slice(0, 8)) > 2 * found(slice(32, 40)), "in the order of what they tell, on pairs unseen"
    assert found(slice(0, 40)) > found(slice(0, 8))


def test_without_binary_codes_only_the_spectral_anchors_are_fitted(tmp_path: Path, start: Path, pairs: Path) -> None:
    more = ["model.bridge=false"]
    runs = [train(recipe_of(tmp_path / k, start, pairs, *more, f"train.fit_heads={k}")) for k in ("0", "1200")]
    before, after = (load_file(run.folder / "model" / "model.safetensors") for run in runs)
    assert {name for name, value in before.items() if not torch.equal(value, after[name])} == {"anchors.anchors.weight"}
