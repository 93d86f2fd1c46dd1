"""Two processes (gloo, CPU) that shard an encoder do what one process does with all of it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import UsageError
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.tokens.length_batches import outputs_by_length, plan_passes
from spectra_nsa.training.jobs.pairs import shards_weights
from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
from spectra_nsa.training.loop.shards import Shards, full_tensor
from spectra_nsa.training.run import train
from tests.builders import DENSE_TERMS
from tests.training.loop.test_processes import ROUTER_TERMS, TERMS, run_recipe

LONG = "read the text of a document and write the list of tokens to a socket"
TEXTS = [
    ["open the file", f"{LONG} then", "sort", "a model of the file", "vector"],
    ["file", "socket close", f"{LONG} and {LONG}", "text", "token of a query"],
    ["query a document", "vector of a model", "token", LONG, "the a of"],
]
PATIENCE = datetime.timedelta(seconds=120)  # passes of two processes that do not fit each other wait forever
SHARE = [slice(0, 4), slice(4, 5)]  # so uneven that one has fewer texts than the other has passes
ALONE = {"spectral": {"weight": 1.0}, "semantic": {"weight": 0.0}}  # looks at anchors only
PARTS = {"spectral": True, "spectral_dim": 8, "depth_mix": True}
EXPERTS = {"ffn": "moe", "experts": {"count": 4, "top_k": 2}}
# Columns; how their passes are cut; and what else.
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "pairs": (2, {"groups": 9}, {}),
    "triplets": (3, {"groups": 9}, {}),
    "cached": (2, {"cached": 24}, {}),
    "cached triplets": (3, {"cached": 24}, {}),
    "all parts": (3, {"groups": 9}, {"parts": PARTS}),
    "experts": (2, {"groups": 9}, {"parts": EXPERTS}),
    "cached experts": (2, {"cached": 24}, {"parts": EXPERTS}),
    "checkpointing": (2, {"groups": 9}, {"checkpointing": True}),
    "cached checkpointing": (2, {"cached": 24}, {"checkpointing": True, "parts": PARTS}),
    "lookups": (2, {"groups": 9}, {"lookups": True}),
    "anchors": (2, {"groups": 9}, {"terms": ALONE}),
    "cached anchors": (2, {"cached": 24}, {"terms": ALONE}),
    "bf16": (2, {"groups": 9}, {"precision": "bf16"}),
}


def one_step(start: Path, case: str, rows: slice, *, shard: bool) -> dict[str, Any]:
    """Returns values and unsharded gradients of a step on a share of the rows, and the layers gathered at each pass."""
    columns, cut, more = CASES[case]
    precision = more.get("precision", "fp32")
    torch.manual_seed(0)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "entity": True, **more.get("parts", {})}
    model = sp.warm_start(start, **options).train()
    nn.init.uniform_(model.spectra.entity.prior.idf)
    for gate in model.spectra.gates():
        nn.init.constant_(gate, 0.1)
    if more.get("checkpointing"):
        model.spectra.gradient_checkpointing_enable({"use_reentrant": False})
    if shard:
        Shards(model, precision)
    section = LossSection.model_validate({"terms": more.get("terms", TERMS | ROUTER_TERMS)})
    active = [*DENSE_TERMS, *ROUTER_TERMS]
    loss = LossStack(model, section, active=active, dense=model.spectra, sizes=[32, 16], equal_passes=shard, **cut)
    loss.gradient_norms = {}
    features = [model.preprocess(column[rows]) for column in TEXTS[:columns]]
    gathered_counts: list[int] = []
    model.spectra.pooling.register_forward_hook(lambda *_: gathered_counts.append(gathered_layers(model)))
    with pytest.MonkeyPatch.context() as patch:
        if more.get("lookups"):  # in each pass, as on a GPU
            patch.setattr("spectra_nsa.losses.stack.outputs_by_length", lookup_in_each)
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            values = loss(features)
    torch.stack(list(values.values())).sum().backward()
    loss.finish()
    processes.average_gradients(model.parameters())
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {
        "own passes": len(plan_passes(features, cut.get("groups"), cut.get("cached"))),
        "values": {name: float(value.detach()) for name, value in values.items()},
        "gradients": {name: full_tensor(gradient) for name, gradient in gradients.items()},
        "norms": loss.gradient_norms,
        "whole layers": gathered_counts,
    }


def lookup_in_each(*arguments: Any) -> Any:
    *others, _, equal_passes = arguments
    return outputs_by_length(*others, None, equal_passes)


def gathered_layers(model: SpectraSentenceTransformer) -> int:
    layers: Any = model.spectra.encoder.layers
    return sum(not isinstance(layer.attention.out.weight, DTensor) for layer in layers)


def run(recipe: Recipe, rank: int, *, resume: Path | None = None) -> dict[str, Any]:
    """Returns the final weights, and the sizes of this process's shards, of a run that skips two steps.

    In the last process only, the outputs of step 1 are not finite, and of step 3 the gradients.
    """
    whole, started, saved = SpectraSentenceTransformer.forward, LossStack.forward, PairsTrainer._save_checkpoint
    stack: list[LossStack] = []
    held: list[int] = []

    def watched(self: LossStack, *args: Any, **kwargs: Any) -> Any:
        stack[:] = [self]
        return started(self, *args, **kwargs)

    def poisoned(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        out = whole(self, input, **kwargs)
        if rank < processes.count() - 1 or "spectra_outputs" not in input:
            return out
        for value in out.values():
            if stack[0].step == 3 and value.requires_grad:
                value.register_hook(lambda gradient: gradient * float("nan"))
        return {name: value * float("nan") for name, value in out.items()} if stack[0].step == 1 else out

    def counted(self: PairsTrainer, *args: Any) -> None:
        encoder = dict(self.model.spectra.encoder.named_parameters())
        states = [self.optimizer.state[weight]["exp_avg"] for weight in encoder.values() if weight.requires_grad]
        held[:] = [
            sum(processes.local_shard(value).numel() for value in values) for values in (encoder.values(), states)
        ]
        saved(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossStack, "forward", watched)
        patch.setattr(SpectraSentenceTransformer, "forward", poisoned)
        patch.setattr(PairsTrainer, "_save_checkpoint", counted)
        model = train(recipe, resume=resume).model
    assert type(model.spectra).__name__ == "SpectraModel"
    return {"weights": {name: value.clone() for name, value in model.state_dict().items()}, "held": held}


RUNS = {
    "plain": (),
    "cached": (
        "train.cached_pass_tokens=24", "train.accumulation=2", "train.gradient_checkpointing=true", "train.max_steps=3",
        "train.epochs=9", "model.spectral=true", "model.depth_mix=true",
    ),
}  # fmt: skip


def worker(rank: int, folder: Path, start: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=PATIENCE)
    found: dict[str, Any] = {case: one_step(start, case, SHARE[rank], shard=True) for case in CASES}
    for name, more in RUNS.items():
        recipe = run_recipe(folder, start, f"name=shared-{name}", "train.shard=true", "train.keep_checkpoints=9", *more)
        found[f"run {name}"] = run(recipe, rank)
    taken = load_recipe(folder / "runs" / "taken-up" / "recipe.yaml", ["train.shard=true"])
    found["taken up"] = run(taken, rank, resume=folder / "runs" / "taken-up")
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def killed_copy(run: Path, name: str) -> Path:
    """A copy of a run that was killed after step 3."""
    part = run.with_name(name)
    shutil.copytree(run, part)
    shutil.rmtree(part / "model")
    shutil.rmtree(part / "checkpoints" / "step-6")
    recipe = load_recipe(part / "recipe.yaml", [f"name={name}"])
    (part / "recipe.yaml").write_text(recipe.to_yaml())
    return part


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, start: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of this module's runs, and the results of those of one process."""
    folder = tmp_path_factory.mktemp("shards")
    found = {}
    for name, more in RUNS.items():
        recipe = run_recipe(folder, start, f"name=alone-{name}", "train.keep_checkpoints=9", *more)
        found[name] = run(recipe, 0)
    killed_copy(folder / "runs" / "alone-plain", "taken-up")
    return folder, found


@pytest.fixture(scope="module")
def both(alone: Any, start: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of two processes, and the results of each."""
    folder = alone[0]
    torch.multiprocessing.start_processes(worker, (folder, start), nprocs=2, start_method="spawn")
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    assert set(found) == set(wanted)
    return all((found[name] - wanted[name]).abs().max() <= 1e-5 for name in wanted if wanted[name].numel())


@pytest.mark.parametrize("case", CASES)
def test_sharded_weights_have_the_loss_and_gradients_of_unsharded_ones(both: Any, start: Path, case: str) -> None:
    wanted = one_step(start, case, slice(None), shard=False)
    bound = 2e-2 if case == "bf16" else 2e-5  # whole weights add the gradients of passes up in bf16
    for found in (both[1][0][case], both[1][1][case]):
        assert found["values"] == pytest.approx(wanted["values"], abs=1e-5)
        assert found["norms"] == pytest.approx(wanted["norms"], rel=1e-4)
        assert set(found["gradients"]) == set(wanted["gradients"])
        for name, gradient in wanted["gradients"].items():
            difference = (found["gradients"][name] - gradient).abs().max()
            assert difference <= bound * (1 + gradient.abs().max()), name


@pytest.mark.parametrize("case", CASES)
def test_processes_run_the_same_number_of_passes_and_release_each_layer(both: Any, case: str) -> None:
    here, there = (found[case] for found in both[1])
    assert here["own passes"] > there["own passes"], "else nothing had to be agreed on"
    assert len(here["whole layers"]) == len(there["whole layers"]) >= here["own passes"]
    assert set(here["whole layers"]) == set(there["whole layers"]) == {0}


@pytest.mark.parametrize("name", RUNS)
def test_a_sharded_run_is_the_run_of_one_process(both: Any, alone: Any, name: str) -> None:
    folder, found = both
    for rank in range(2):
        assert close(found[rank][f"run {name}"]["weights"], alone[1][name]["weights"])
    one, two = folder / "runs" / f"alone-{name}", folder / "runs" / f"shared-{name}"
    names = [{path.relative_to(run) for path in run.rglob("*") if "rng_state" not in path.name} for run in (one, two)]
    assert names[0] == names[1]
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    logs = [[row for row in rows if {"loss", "eval_dev_ndcg@10", "health_rank"} & set(row)] for rows in logs]
    keys = ("step", "loss", "grad_norm", "grad_norm_bridge", "eval_dev_ndcg@10", "health_rank")
    for mine, theirs in zip(*logs, strict=True):
        wanted, seen = ({key: row[key] for key in keys if row.get(key) is not None} for row in (mine, theirs))
        assert set(mine) == set(theirs) and seen == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    for file in ("config.json", "modules.json"):
        assert (one / "model" / file).read_text() == (two / "model" / file).read_text()
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert close(weights[1], weights[0])


def test_each_process_holds_half_of_the_encoder_and_of_its_optimizer(both: Any, alone: Any) -> None:
    whole = alone[1]["plain"]["held"]
    for found in both[1]:
        for mine, all_of_it in zip(found["run plain"]["held"], whole, strict=True):
            assert 0.5 * all_of_it <= mine <= 0.58 * all_of_it  # norms, biases and positions stay whole


def test_a_checkpoint_resumes_sharded_or_not(both: Any, alone: Any, capfd: Any) -> None:
    folder, found = both
    wanted = alone[1]["plain"]["weights"]
    assert close(found[0]["taken up"]["weights"], wanted), "whole weights, then shared"
    part = killed_copy(folder / "runs" / "shared-plain", "left")
    again = run(load_recipe(part / "recipe.yaml"), 0, resume=part)
    assert close(again["weights"], wanted), "shared weights, then whole"
    assert "train.shard does nothing" in capfd.readouterr().err
    states = [
        torch.load(folder / "runs" / name / "checkpoints" / "step-6" / "optimizer.pt", weights_only=True)
        for name in ("alone-plain", "shared-plain")
    ]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert all(close(states[1]["state"][key], value) for key, value in states[0]["state"].items())


def launched(words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} | more
    done = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_killed_run_under_torchrun_ends_bit_identical(tmp_path: Path, start: Path) -> None:
    more = ("name=whole", "train.shard=true", "model.dropout=0.1", "train.keep_checkpoints=9", "train.batch=16")
    (tmp_path / "r.yaml").write_text(run_recipe(tmp_path, start, *more).to_yaml())
    command = ["torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "spectra_nsa", "train", "--json"]
    facts = json.loads(launched([*command, str(tmp_path / "r.yaml")]).stdout)
    whole = tmp_path / "runs" / "whole"
    assert facts["steps"] == 6 and facts["best"] and sp.load(whole / "model").encode(["open"]).shape == (1, 32)
    part = killed_copy(whole, "part")
    launched([*command, "--resume", str(part)])
    for file in ("checkpoints/step-6/model.safetensors", "model/model.safetensors"):
        a, b = load_file(whole / file), load_file(part / file)
        assert all(torch.equal(a[name], b[name]) for name in a), file


def test_accelerate_launch_with_fsdp_shards(tmp_path: Path, start: Path) -> None:
    (tmp_path / "r.yaml").write_text(run_recipe(tmp_path, start, "name=asked", "data.dev_rows=0").to_yaml())
    words = ["accelerate.commands.launch", "--use_fsdp", "--fsdp_version=2", "--fsdp_offload_params=true"]
    words += ["--num_processes=2", "--main_process_port=0", "--mixed_precision=no", "--num_machines=1"]
    words += ["--dynamo_backend=no", "-m", "spectra_nsa", "train", "--json", str(tmp_path / "r.yaml")]
    done = launched(words)
    assert json.loads(done.stdout)["steps"] == 6
    assert done.stderr.count("FSDP_OFFLOAD_PARAMS=true has no effect") == 1
    folder = tmp_path / "runs" / "asked"
    assert (folder / "checkpoints" / "step-6" / "rng_state_1.pth").is_file(), "of a second process"
    assert load_recipe(folder / "recipe.yaml").train.shard
    assert sp.load(folder / "model").encode(["open"]).shape == (1, 32)


def test_fp16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, ["train.shard=true", "train.precision=bf16"])
    assert not shards_weights(recipe, "bf16"), "in one process"
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert shards_weights(recipe, "bf16")
    with pytest.raises(UsageError, match=r"train\.precision=bf16"):
        shards_weights(recipe, "fp16")
