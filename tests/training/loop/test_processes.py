"""Two processes (gloo, CPU) do what one does: the same loss, gradients, skipped steps and files."""

from __future__ import annotations

import functools
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

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.terms import TARGET_VECTORS, TEACHER_VECTORS, active_terms
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.losses.router_terms import RouterTerms
from spectra_nsa.losses.stack import LossStack, NotFiniteError
from spectra_nsa.models.sparse.build import splade_from
from spectra_nsa.training.loop.arguments import shared_batch
from spectra_nsa.training.run import train
from tests.builders import DENSE_TERMS, WORDS, tiny_masked_lm

COLUMNS = [
    ["open the file", "close a socket of the file and the list", "sort", "read text", "a model"],
    ["file open", "socket close", "list sort of text and token and vector and query", "text", "vector"],
    ["query a document", "vector of a model", "token", "write the list", "the a of"],
]
SCORES = torch.tensor([0.1, 0.9, 0.4, 0.4, 1.0], dtype=torch.float64)
VECTORS = torch.randn(3, 5, 24 + 32, generator=torch.Generator().manual_seed(0))  # of a teacher, and their targets
SHARE = [slice(0, 3), slice(3, 5)]  # uneven, and of other widths
TERMS = {name: {"weight": 0.5, "train_encoder": place % 2 == 0} for place, name in enumerate(DENSE_TERMS)}
ROUTER_TERMS = {name: {"weight": 0.5} for name in ("router_balance", "router_z")}
MODEL_KINDS: set[str] = set()  # what the loss of a run was given in this process
CASES = {
    f"{kind} {way}": (columns, cached)
    for kind, columns in (("pairs", 2), ("triplets", 3), ("scored", 2), ("taught", 3), ("experts", 2))
    for way, cached in (("plain", None), ("cached", 24))
}


def one_step(start: Path, case: str, rows: slice) -> dict[str, Any]:
    """Returns values, averaged gradients and gradient norms of one step on a share of the rows."""
    columns, cached = CASES[case]
    torch.manual_seed(0)
    parts: dict[str, Any] = {"ffn": "moe", "experts": {"count": 4, "top_k": 2}} if "experts" in case else {}
    model = sp.warm_start(
        start, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, entity=True, **parts
    ).train()
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    for gate in model.spectra.gates():
        torch.nn.init.constant_(gate, 0.1)
    section = LossSection.model_validate({"terms": TERMS | ROUTER_TERMS})
    active = [*DENSE_TERMS, *ROUTER_TERMS]
    loss = LossStack(model, section, active=active, dense=model.spectra, sizes=[32, 16], cached=cached)
    loss.gradient_norms = {}
    labels = SCORES[rows] if "scored" in case else None
    features: list[dict[str, Any]] = [model.preprocess(column[rows]) for column in COLUMNS[:columns]]
    if "taught" in case:
        for place, column in enumerate(features):
            column |= {TEACHER_VECTORS: VECTORS[place, rows, :24], TARGET_VECTORS: VECTORS[place, rows, 24:]}
    values = loss(features, labels)
    torch.stack(list(values.values())).sum().backward()
    processes.average_gradients(model.parameters())
    return {
        "values": {name: float(value.detach()) for name, value in values.items()},
        "gradients": {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None},
        "norms": loss.gradient_norms,
    }


def sparse_step(folder: Path, rows: slice) -> dict[str, Any]:
    """Returns values, figures and averaged gradients of two steps of a sparse encoder on a share of the rows."""
    model = splade_from(folder, max_length=32).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    words = [f"loss.terms.{side}_{name}.weight=1" for side in ("query", "document") for name in ("l1", "df_flops")]
    recipe = load_recipe(None, ["sparse.query_active=null", "sparse.document_active=9", *words])
    loss = LossStack(model, recipe.loss, active=active_terms(recipe), sparse=recipe.sparse)
    loss.steps = 9
    for loss.step in range(2):
        model.zero_grad()
        values = loss([model.preprocess(column[rows]) for column in COLUMNS])
        torch.stack(list(values.values())).sum().backward()
    processes.average_gradients(model.parameters())
    return {
        "values": {name: float(value.detach()) for name, value in values.items()} | loss.figures,
        "gradients": {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None},
    }


def router_step(start: Path, rows: slice) -> dict[str, Any]:
    """Returns the terms of routers outside a stack, and their averaged gradients, on a share of the rows."""
    model = sp.warm_start(start, ffn="moe", experts={"count": 4})
    terms = RouterTerms(model.spectra.config.encoder_spec(), {"router_balance": 1.0, "router_z": 1.0})
    features = model.preprocess(COLUMNS[0][rows])
    inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
    value = terms([model.spectra(**inputs, outputs=terms.outputs)])
    value.backward()
    processes.average_gradients(model.parameters())
    named = model.spectra.named_parameters()
    return {
        "values": terms.take_figures(),
        "gradients": {name: weight.grad for name, weight in named if name.endswith("router.weight")},
    }


def run_recipe(folder: Path, start: Path, *more: str) -> Recipe:
    pairs = folder / "pairs.jsonl"
    if not pairs.exists():
        words = [(a, b) for a in WORDS for b in WORDS[:4] if a != b]
        rows = [{"anchor": f"{a} the {b}", "positive": f"{b} {a}", "topic": b} for a, b in words]
        pairs.write_text("\n".join([*map(json.dumps, rows), "broken"]), encoding="utf-8")
    base = [
        f"output={folder / 'runs'}", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=10",
        "train.batch=8", "train.max_steps=6", "train.checkpoint_every=3", "train.evaluate_every=3",
        "train.log_every=1", "train.lr=1e-3", "train.precision=fp32",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def poisoned_run(recipe: Recipe, rank: int) -> dict[str, torch.Tensor]:
    """Returns the weights after a run whose outputs of step 2 are not finite in the last process only."""
    whole = sp.models.sentence.SpectraSentenceTransformer.forward
    loss: list[LossStack] = []
    started = LossStack.forward

    def watched(self: LossStack, *args: Any, **kwargs: Any) -> Any:
        loss[:] = [self]
        MODEL_KINDS.add(type(self.model).__name__)  # sentence-transformers gives the loss a wrapped model
        return started(self, *args, **kwargs)

    def poisoned(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        out = whole(self, input, **kwargs)
        bad = rank == processes.count() - 1 and "spectra_outputs" in input and loss[0].step == 2
        return {name: value * float("nan") for name, value in out.items()} if bad else out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossStack, "forward", watched)
        patch.setattr(sp.models.sentence.SpectraSentenceTransformer, "forward", poisoned)
        return {name: value.clone() for name, value in train(recipe).model.state_dict().items()}


def sets_recipe(folder: Path, start: Path, *more: str) -> Recipe:
    """Returns a run of two epochs on two datasets, with a checkpoint after every two steps."""
    source = folder / "pairs.jsonl"
    sets = [f"data.sets.all.train={source}", f"data.sets.some.train={source}", "data.sets.some.limit=20"]
    steps = ["train.max_steps=null", "train.epochs=2", "train.checkpoint_every=2", "train.evaluate_every=2"]
    last = ["data.dev_rows=0", "train.keep_checkpoints=99"]  # the last model, not the best
    return run_recipe(folder, start, "data.train=null", *sets, *steps, *last, *more)


def resumed_run(folder: Path, start: Path, rank: int) -> dict[str, Any]:
    """Returns the weights of a run on two datasets, and those after it was resumed in its second epoch."""
    result = train(sets_recipe(folder, start, "name=two-sets"))
    whole = {name: value.clone() for name, value in result.model.state_dict().items()}
    processes.barrier()
    if rank == 0:
        shutil.rmtree(result.folder / "model")
        for checkpoint in (result.folder / "checkpoints").glob("step-*"):
            if int(checkpoint.name[5:]) > result.steps * 3 // 4:
                shutil.rmtree(checkpoint)
    processes.barrier()
    again = train(None, resume=result.folder)
    assert again.first_step > result.steps // 2
    return {"whole": whole, "resumed": again.model.state_dict()}


def agreements(rank: int) -> dict[str, Any]:
    def refused() -> None:
        raise SpectraError(f"from {rank}")

    found: dict[str, Any] = {
        "any_process": (processes.any_process(rank == 1), processes.any_process(False)),
        "max_over_processes": processes.max_over_processes(rank + 0.5),
        "first": processes.run_on_first(lambda: rank),
        "gather_counts": processes.gather_counts([rank, 7]),
    }
    try:
        processes.run_on_first(refused)
    except SpectraError as error:
        found["refused"] = str(error)
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, rank + 1.0)
    processes.broadcast_weights(module)
    found["shared"] = float(module.weight[0, 0])
    return found


def disagreement(start: Path, rank: int) -> str:
    """Returns the error that a process gets if a term is infinite in the other process only."""
    model = sp.warm_start(start)
    loss = LossStack(model, LossSection(), active=DENSE_TERMS, dense=model.spectra, sizes=[32])
    if rank == 1:
        with torch.no_grad():
            model.spectra.anomaly.prototypes.weight.fill_(float("inf"))
    try:
        loss([model.preprocess(column[SHARE[rank]]) for column in COLUMNS[:2]])
    except NotFiniteError as error:
        return str(error)
    return "nothing"


def worker(rank: int, folder: Path, start: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    found = {case: one_step(start, case, SHARE[rank]) for case in CASES}
    found["sparse"] = sparse_step(folder / "masked-lm", SHARE[rank])
    found["routers"] = router_step(start, SHARE[rank])
    found["agreements"] = agreements(rank)
    found["disagreement"] = disagreement(start, rank)
    found["run"] = poisoned_run(run_recipe(folder, start, "name=two"), rank)
    found["model kinds"] = MODEL_KINDS
    found["grouped"] = poisoned_run(run_recipe(folder, start, "name=two-grouped", "data.group=topic"), rank)
    found["sets"] = resumed_run(folder, start, rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, start: Path) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of a run of two processes, and the results of each."""
    folder = tmp_path_factory.mktemp("two")
    run_recipe(folder, start)
    tiny_masked_lm(folder / "masked-lm")
    torch.multiprocessing.start_processes(worker, (folder, start), nprocs=2, start_method="spawn")
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_loss_and_gradients_of_one(both: Any, start: Path, case: str) -> None:
    wanted = one_step(start, case, slice(None))
    matching = sum("triplets" in facts.rows and not facts.learns_from for facts in DENSE_TERMS.values()) + 1
    # four scored terms at two sizes each, for five terms of matches of which one has two sizes
    count = {
        "pairs": matching - 2,
        "experts": matching,
        "triplets": matching,
        "scored": matching - 6 + 8,
        "taught": matching + 4,
    }
    assert len(wanted["values"]) == count[case.split()[0]]
    for found in (both[1][0][case], both[1][1][case]):
        assert found["values"] == pytest.approx(wanted["values"], abs=1e-5)
        assert found["norms"] == pytest.approx(wanted["norms"], rel=1e-4)
        assert set(found["gradients"]) == set(wanted["gradients"])
        for name, gradient in wanted["gradients"].items():
            difference = (found["gradients"][name] - gradient).abs().max()
            assert difference <= 2e-5 * (1 + gradient.abs().max()), name


def test_the_sparsity_of_two_processes_is_that_of_one(both: Any) -> None:
    folder, results = both
    wanted = sparse_step(folder / "masked-lm", slice(None))
    assert {"query_flops", "document_df_flops", "document_lambda", "query_active"} <= set(wanted["values"])
    for found in (result["sparse"] for result in results):
        assert found["values"] == pytest.approx(wanted["values"], rel=1e-4)
        for name, gradient in wanted["gradients"].items():
            difference = (found["gradients"][name] - gradient).abs().max()
            assert difference <= 2e-5 * (1 + gradient.abs().max()), name


def test_the_routers_of_two_processes_are_those_of_one(both: Any, start: Path) -> None:
    wanted = router_step(start, slice(None))
    assert {"router_balance", "router_z", "expert_load_0_0"} <= set(wanted["values"])
    for found in (result["routers"] for result in both[1]):
        assert found["values"] == pytest.approx(wanted["values"], abs=1e-4)
        torch.testing.assert_close(found["gradients"], wanted["gradients"], rtol=1e-4, atol=1e-6)


def test_what_processes_agree_on(both: Any) -> None:
    for found in both[1]:
        assert found["agreements"] == {
            "any_process": (True, False),
            "max_over_processes": 1.5,
            "first": 0,
            "gather_counts": [[0, 7], [1, 7]],
            "refused": "from 0",
            "shared": 1.0,
        }


def test_a_batch_that_is_not_finite_in_one_process_is_skipped_by_both(both: Any) -> None:
    here, there = (found["disagreement"] for found in both[1])
    assert "in another process" in here and "term 'anomaly'" in there


def test_the_model_is_not_wrapped(both: Any) -> None:
    """DistributedDataParallel stays off it: see `RunTrainer.create_accelerator_and_postprocess`."""
    assert [found["model kinds"] for found in both[1]] == [{"SpectraSentenceTransformer"}] * 2


def test_a_run_of_two_processes_is_the_run_of_one(both: Any, start: Path) -> None:
    folder, found = both
    for key, more in (("grouped", ["name=one-grouped", "data.group=topic"]), ("run", ["name=one"])):
        wanted = poisoned_run(run_recipe(folder, start, *more), 0)
        for weights in (found[0][key], found[1][key]):
            assert all((weights[name] - wanted[name]).abs().max() <= 1e-5 for name in wanted if wanted[name].numel())
    one, two = folder / "runs" / "one", folder / "runs" / "two"
    names = [{path.relative_to(run) for path in run.rglob("*") if "rng_state" not in path.name} for run in (one, two)]
    assert names[0] == names[1]
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    logs = [[row for row in rows if {"loss", "eval_dev_ndcg@10"} & set(row)] for rows in logs]
    keys = ("step", "loss", "learning_rate", "semantic_32", "eval_dev_ndcg@10")
    for mine, theirs in zip(*logs, strict=True):
        assert {k: mine.get(k) for k in keys} == pytest.approx({k: theirs.get(k) for k in keys}, abs=2e-4, nan_ok=True)
    assert logs[0][3]["loss"] == 0.0, "the poisoned step was skipped"


def test_several_datasets_and_a_later_epoch_resume_in_two_processes(both: Any, start: Path) -> None:
    folder, found = both
    wanted = train(sets_recipe(folder, start, "name=one-sets")).model.state_dict()
    whole, resumed = found[0]["sets"]["whole"], found[0]["sets"]["resumed"]
    assert all((whole[name] - value).abs().max() <= 1e-5 for name, value in wanted.items() if value.numel())
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_torchrun_leaves_one_run_that_can_be_resumed(tmp_path: Path, start: Path) -> None:
    more = ("name=whole", "model.dropout=0.1", "train.keep_checkpoints=9", "train.cached_pass_tokens=64")
    (tmp_path / "r.yaml").write_text(run_recipe(tmp_path, start, *more).to_yaml())
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command = [*launch, "-m", "spectra_nsa", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*command, *words, "--json"], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    facts = json.loads(run(str(tmp_path / "r.yaml")).stdout)  # one line, of the first process
    whole, part = tmp_path / "runs" / "whole", tmp_path / "runs" / "part"
    assert facts["steps"] == 6 and sp.load(whole / "model").encode(["open"]).shape == (1, 32)
    assert len(list((whole / "quarantine").iterdir())) == 1 and not list(whole.rglob(".*"))
    shutil.copytree(whole, part)
    shutil.rmtree(part / "model")
    shutil.rmtree(part / "checkpoints" / "step-6")
    run("--resume", str(part))
    a, b = (load_file(folder / "checkpoints" / "step-6" / "model.safetensors") for folder in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (part / "model" / "model.safetensors").is_file()


def test_an_error_of_all_processes_is_printed_once(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launch, "-m", "spectra_nsa", "train", "--size", "small", "--data", "gone.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and done.stderr.count("spectra: gone.jsonl does not exist") == 1, done.stderr


def test_an_error_of_one_process_is_still_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(processes.time, "sleep", waited.append)
    for rank, times in ((None, 0), ("0", 0), ("1", 1)):
        if rank is not None:
            monkeypatch.setenv("LOCAL_RANK", rank)
        processes.wait_to_report()  # and then the caller speaks
        assert len(waited) == times


def test_processes_with_different_data_are_refused(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gather_counts", lambda numbers: [list(numbers), [3]])
    with pytest.raises(SpectraError, match=r"different data: 3 and \d+ rows"):
        train(run_recipe(tmp_path, start))


def test_a_batch_is_shared_evenly_or_refused() -> None:
    assert shared_batch(64, 1000, 4) == 64
    assert shared_batch(64, 10, 4) == 8
    assert shared_batch(64, 9, 1) == 9
    with pytest.raises(UsageError, match=r"train.batch.*multiple of 3"):
        shared_batch(64, 1000, 3)
    with pytest.raises(SpectraError, match="Start fewer"):
        shared_batch(64, 2, 4)


def test_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(SpectraError, match=r"DeepSpeed.*torchrun.*train\.shard"):
        processes.connect()


def test_accelerates_fsdp_turns_on_our_sharding(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked = functools.cache(processes._launcher_shards.__wrapped__)  # once a process, and this one has been asked
    monkeypatch.setattr(processes, "_launcher_shards", asked)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not processes.connect()
    asked.cache_clear()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "false")
    monkeypatch.setenv("FSDP_ACTIVATION_CHECKPOINTING", "true")
    assert processes.connect() and processes.connect()
    assert "ACCELERATE_USE_FSDP" not in os.environ, "accelerate would shard the model again"
    said = capsys.readouterr().err
    assert "FSDP_ACTIVATION_CHECKPOINTING=true" in said and "OFFLOAD" not in said
