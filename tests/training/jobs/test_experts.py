"""Training a model with experts: learning rates, log, resume, and what is saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import spectra_nsa as sp
from spectra_nsa.cli.main import app
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.losses.router_terms import RouterTerms
from spectra_nsa.losses.terms.routing import balance, router_z
from spectra_nsa.training.checks import expert_notes
from spectra_nsa.training.loop.trainer import RunTrainer
from spectra_nsa.training.run import pretrain, train
from tests.builders import WORDS


@pytest.fixture
def recipe(start: Path, tmp_path: Path) -> Callable[..., Recipe]:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = [
        f"output={tmp_path / 'runs'}", "name=run", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=8",
        "train.batch=8", "train.checkpoint_every=2", "train.evaluate_every=2", "train.log_every=1", "train.lr=1e-3",
        "train.precision=fp32", "train.keep_checkpoints=9", "model.ffn=moe", "model.experts.count=4",
    ]  # fmt: skip
    return lambda *more: load_recipe(None, [*base, *more])


def keep_only_first_checkpoint(folder: Path) -> None:
    """Deletes the model of a finished run and the checkpoints after step 2, as if it had been killed then."""
    shutil.rmtree(folder / "model")
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        if int(checkpoint.name[5:]) > 2:
            shutil.rmtree(checkpoint)


@pytest.mark.parametrize("router", ["token", "text"])
def test_a_resumed_run_ends_at_the_same_bits(recipe: Callable[..., Recipe], router: str) -> None:
    keys = ["balance_bias=true", "noise=0.1", "dropout=0.1", f"router={router}"]
    result = train(recipe(*(f"model.experts.{key}" for key in keys), "train.accumulation=2"))
    before = load_file(result.folder / "model" / "model.safetensors")
    assert any(name.endswith("router.bias") and value.any() for name, value in before.items())
    keep_only_first_checkpoint(result.folder)
    resumed = train(None, resume=result.folder)
    assert resumed.first_step == 2
    torch.testing.assert_close(load_file(result.folder / "model" / "model.safetensors"), before, rtol=0, atol=0)


def test_routers_and_experts_have_rates_of_their_own(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[dict[str, object]] = []
    create = RunTrainer.create_optimizer

    def watched(self: RunTrainer, *args: object) -> object:
        optimizer = create(self, *args)
        groups[:] = [{key: value for key, value in group.items() if key != "params"} | {"count": len(group["params"])}
                     for group in optimizer.param_groups]  # fmt: skip
        return optimizer

    monkeypatch.setattr(RunTrainer, "create_optimizer", watched)
    result = train(recipe("train.expert_lr_factor=3", "train.max_steps=2"))
    rates = {kind: [group for group in groups if group.get(kind)] for kind in ("routers", "experts")}
    layers = result.model.spectra.config.num_hidden_layers
    assert [group["count"] for group in rates["routers"]] == [layers] and rates["routers"][0]["weight_decay"] == 0
    assert sorted(group["weight_decay"] for group in rates["experts"]) == [0.0, 0.01]
    assert sum(group["count"] for group in rates["experts"]) == 4 * layers


def test_the_log_has_load_and_terms_and_the_model_opens(recipe: Callable[..., Recipe]) -> None:
    result = train(recipe("loss.terms.router_balance.weight=0.1"))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in reversed(rows) if "loss" in row)
    layers = result.model.spectra.config.num_hidden_layers
    assert 0.09 < last["router_balance"] < 0.4 and last["router_z"] > 0
    for layer in range(layers):
        loads = [last[f"expert_load_{layer}_{expert}"] for expert in range(4)]
        assert sum(loads) == pytest.approx(1, abs=1e-3)
        assert last[f"expert_max_violation_{layer}"] == pytest.approx(4 * max(loads) - 1, abs=1e-3)
        assert 0 < last[f"gate_entropy_{layer}"] <= 1
    texts = ["open the file", "close"]
    assert np.allclose(sp.load(result.folder / "model").encode(texts), result.model.encode(texts), atol=1e-6)
    weights = result.model.spectra.encoder.layers[0].ffn.up_proj
    assert not torch.equal(weights[0], weights[1]), "experts have become different"


@pytest.mark.parametrize("router", ["token", "text"])
def test_pretraining_balances_experts_and_resumes_exactly(start: Path, tmp_path: Path, router: str) -> None:
    texts = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": " ".join(WORDS[at % 7 : at % 7 + 6])}) for at in range(60)]
    texts.write_text("\n".join(lines))
    keys = [
        f"output={tmp_path}", "name=run", f"model.start={start}", f"data.train={texts}", "data.dev_rows=8",
        "train.batch=4", "train.accumulation=2", "train.checkpoint_every=2", "train.evaluate_every=2",
        "train.log_every=4", "train.max_steps=6", "train.precision=fp32", "train.keep_checkpoints=9",
        "model.ffn=moe", "model.experts.count=4", f"model.experts.router={router}", "model.experts.balance_bias=true",
        "pretrain.router_balance=0.5", "pretrain.router_z=0.1", "model.max_length=16",
    ]  # fmt: skip
    result = pretrain(load_recipe(None, keys))
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "expert_load_0_0" in row]
    assert len(logged) == 3 and all(row["router_z"] > 0 and "router_balance" not in row for row in logged)
    assert sum(logged[0][f"expert_load_0_{expert}"] for expert in range(4)) == pytest.approx(1, abs=1e-3)
    before = load_file(result.folder / "model" / "model.safetensors")
    assert any(name.endswith("router.bias") and value.any() for name, value in before.items())
    keep_only_first_checkpoint(result.folder)
    assert pretrain(None, resume=result.folder).first_step == 2
    torch.testing.assert_close(load_file(result.folder / "model" / "model.safetensors"), before, rtol=0, atol=0)
    again = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["router_z"] for row in again if "router_z" in row] == [row["router_z"] for row in logged]


def test_the_terms_of_routers_are_those_of_the_stack(start: Path) -> None:
    model = sp.warm_start(start, ffn="moe", experts={"count": 4})
    features = model.preprocess([" ".join(WORDS[at : at + 3]) for at in range(8)])
    inputs = {name: value for name, value in features.items() if name in ("input_ids", "attention_mask")}
    terms = RouterTerms(model.spectra.config.encoder_spec(), {"router_balance": 0.5, "router_z": 0.25})
    parts = [{name: value[rows] for name, value in inputs.items()} for rows in (slice(0, 3), slice(3, 8))]
    total = terms([model.spectra(**part, outputs=terms.outputs) for part in parts])
    whole = model.spectra(**inputs, outputs=terms.outputs)
    load, probs = whole.router_load.sum(0), whole.router_probs.sum(0)
    expected = 0.5 * balance(load, probs) + 0.25 * router_z(whole.router_square.sum(0), probs.detach().sum(-1))
    assert float(total) == pytest.approx(float(expected), abs=1e-6)
    weight = next(weight for name, weight in model.spectra.named_parameters() if name.endswith("router.weight"))
    gradients = [torch.autograd.grad(value, weight)[0] for value in (total, expected)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0].abs().max() > 0


def test_a_router_of_texts_and_batches_of_one_group_call_for_a_remark(recipe: Callable[..., Recipe]) -> None:
    grouped = recipe("data.group=topic")
    assert "chooses by text" in expert_notes(grouped, ExpertSpec(router="text"))[0]
    assert expert_notes(grouped, ExpertSpec(router="token")) == expert_notes(grouped, None) == []
    assert (
        expert_notes(recipe(), ExpertSpec(router="text")) == expert_notes(grouped, ExpertSpec(router="text_hash")) == []
    )
    assert "do not apply to sparse" in expert_notes(recipe("sparse.kind=splade"), ExpertSpec())[0]


def test_a_dry_run_knows_the_experts_of_its_start(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    result = train(recipe("train.max_steps=1", "model.experts.router=text"))
    rows = [json.loads(line) | {"kind": "ab"[at % 2]} for at, line in enumerate((tmp_path / "pairs.jsonl").open())]
    (tmp_path / "grouped.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["train", "--model", str(result.folder / "model"), "--data", str(tmp_path / "grouped.jsonl"), "--json"]
    words += ["--dry-run", "data.group=kind", "train.batch=8"]
    plan = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert {"router_balance", "router_z"} <= set(plan["terms"])
    assert any("the router chooses by text" in note for note in plan["notes"])
