"""A watched run: what it logs, what it leaves, when it stops, and that watching changes nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

import spectra_nsa as sp
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.monitor.health import HealthProbe, HealthSample
from spectra_nsa.training.monitor.progress import Progress
from spectra_nsa.training.monitor.watch import Watch
from spectra_nsa.training.run import train
from tests.builders import WORDS
from tests.report.runs import rows_of


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"anchor": f"{a} {b}", "positive": f"{b} the {a} " * (1 + at % 3)} for at, a in enumerate(WORDS) for b in WORDS
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def recipe_of(folder: Path, start: Path, pairs: Path, *more: str) -> Recipe:
    base = [
        f"output={folder}", "name=run", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=20",
        "train.batch=8", "train.max_steps=8", "train.checkpoint_every=4", "train.evaluate_every=4",
        "train.log_every=2", "train.precision=fp32",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def logs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_a_watched_run_logs(tmp_path: Path, start: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, start, pairs, "monitor.rows=16"))
    rows = logs(result.folder)
    assert set(rows[0]) > {"step", "eval_dev_ndcg@10"} and rows[0]["step"] == 0, "what training has to beat"
    assert rows[1]["started"]["steps"] == 8 and rows[1]["started"]["environment"]["torch"]
    assert rows[-1]["ended"]["reason"] == "finished" and rows[-1]["ended"]["kept"] in (4, 8) and rows[-1]["step"] == 8
    health = {row["step"]: row for row in rows if "health_rank" in row}
    assert set(health) == {0, 4, 8}
    names = "rank rank_share entropy uniformity alignment near_duplicates anchors_used anchors_entropy bits_balance"
    assert all(f"health_{name}" in health[8] for name in names.split())
    assert "health_bits_dead" not in health[8], "32 texts do not tell"
    assert not any("attention_entropy" in key for key in health[8])  # plain attention does not measure it
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [1, 2, 4, 6, 8], "a step's own log is there beside its health"
    for row in logged:
        assert row["pairs_per_second"] > 0 and row["tokens_per_second"] > row["pairs_per_second"]
        assert 0 <= row["padding_waste"] < 5 and 0 < row["matmul_share"] < 1.5 and row["memory_gb"] > 0
    page = (result.folder / "report.html").read_text()
    assert "Finished at step 8 of 8" in page and "effective rank" in page and "tokens/s" in page


def test_no_rows_no_measures(tmp_path: Path, start: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, start, pairs, "monitor.rows=0", "train.max_steps=4"))
    assert not any(key.startswith("health_") for row in logs(result.folder) for key in row)


def test_watching_changes_no_weight(tmp_path: Path, start: Path, pairs: Path) -> None:
    more = ("model.dropout=0.1", "train.max_steps=4")
    watched = train(recipe_of(tmp_path / "a", start, pairs, *more, "monitor.every=1"))
    alone = train(recipe_of(tmp_path / "b", start, pairs, *more, "monitor.rows=0"))
    one, other = watched.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_collapsing_run_gets_one_warning(
    tmp_path: Path, start: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("train.lr=1.0", "train.max_steps=12", "monitor.warmup=2", "train.warmup=0", "train.max_grad_norm=1000")
    result = train(recipe_of(tmp_path, start, pairs, *more))
    warned = [row for row in logs(result.folder) if "warning" in row]
    assert [row["warning"]["kind"] for row in warned].count("collapse") == 1
    assert all(row["step"] >= 2 for row in warned)
    assert "warning at step" in capsys.readouterr().err
    page = (result.folder / "report.html").read_text()
    assert warned[0]["warning"]["message"] in page.replace("&#39;", "'")


def test_the_sample_is_fixed_and_holds_no_anchor_twice() -> None:
    rows = {"anchor": [f"open {at % 50}" for at in range(200)], "positive": [f"file {at}" for at in range(200)]}
    scored = Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]})
    data = TrainingData(train=Dataset.from_dict(rows), dev=scored, dev_kind="scored", quarantined=0)
    one, again = (HealthSample(data, 20, seed=3, precision="fp32") for _ in range(2))
    assert one.anchors == again.anchors and one.positives == again.positives
    assert len(set(one.anchors)) == 20
    assert HealthSample(data, 20, seed=4, precision="fp32").anchors != one.anchors
    assert all(int(p.split()[1]) % 50 == int(a.split()[1]) for a, p in zip(one.anchors, one.positives, strict=True))


def test_measuring_changes_nothing_and_reports_the_attention_entropy(start: Path, pairs: Path) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    data = TrainingData(train=Dataset.from_list(rows), dev=None, dev_kind=None, quarantined=0)
    model = sp.warm_start(start, spectral=True)
    model.train()
    before = torch.random.get_rng_state()
    sample = HealthSample(data, 40, seed=0, precision="fp32")
    figures = sample.measure(model)
    assert model.training and all(part.training for part in model.modules())
    assert torch.equal(before, torch.random.get_rng_state())
    layers = {key: value for key, value in figures.items() if "attention_entropy" in key}
    assert "health_attention_entropy_2" in layers and all(0 <= value <= 1 for value in layers.values())
    one = HealthSample(data, 1, seed=0, precision="fp32")
    model.eval()
    given = {
        key: value for key, value in model.preprocess(one.anchors).items() if key in ("input_ids", "attention_mask")
    }
    expected = float(model.spectra(**given, output_hidden_states=True).signals[1].entropy_BHT.mean())
    assert one.measure(model)["health_attention_entropy_2"] == pytest.approx(expected, abs=1e-4)
    assert not model.training
    half = HealthSample(data, 40, seed=0, precision="bf16").measure(model)
    assert half["health_rank"] == pytest.approx(figures["health_rank"], rel=0.1)


def test_patience(tmp_path: Path, start: Path, pairs: Path) -> None:
    more = ("train.patience=2", "train.lr=1e-12", "train.max_steps=40")
    result = train(recipe_of(tmp_path, start, pairs, *more))
    assert result.steps == 12, "the first dev metric is the best, and two more do not beat it"
    assert logs(result.folder)[-1]["ended"] == {"reason": "stopped early", "kept": 4}
    assert (result.folder / "checkpoints" / "step-12").is_dir() and (result.folder / "model").is_dir()
    resumed = train(None, resume=result.folder / "checkpoints" / "step-12")
    assert resumed.steps == 16, "the count continues, it does not start over"


def test_patience_without_a_dev_metric(tmp_path: Path, start: Path, pairs: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.dev_rows"):
        train(recipe_of(tmp_path, start, pairs, "train.patience=2", "data.dev_rows=0"))


def test_a_reporter_that_is_not_installed(
    tmp_path: Path, start: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(SpectraError, match="pip install wandb"):
        train(recipe_of(tmp_path, start, pairs, "train.report_to=[wandb]"))
    assert not (tmp_path / "run").exists()


def test_a_reporter_sees_what_the_file_holds(
    tmp_path: Path, start: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    class Board(TrainerCallback):
        logging_dir: str | None = None

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            seen.append({"folder": self.logging_dir, **logs})

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: find("json" if name == "tensorboard" else name))
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "tensorboard", Board)
    more = ("train.report_to=[tensorboard]", "train.max_steps=2", "train.log_every=1")
    train(recipe_of(tmp_path, start, pairs, *more))
    (last,) = [logs for logs in seen if "loss" in logs and logs["epoch"] == seen[-1]["epoch"]]
    assert last["folder"] == str(tmp_path / "run" / "tensorboard")
    assert {"temperature", "grad_norm_anchor", "tokens_per_second"} <= set(last)
    assert any("health_rank" in logs for logs in seen)


def test_a_run_that_fails_leaves_its_report(
    tmp_path: Path, start: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise SpectraError("no room")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("spectra_nsa.training.loop.pairs_trainer.PairsTrainer._save_checkpoint", broken)
    with pytest.raises(SpectraError, match="no room"):
        train(recipe_of(tmp_path, start, pairs))
    assert logs(tmp_path / "run")[-1]["ended"] == {"reason": "failed"}
    assert "Failed at step 4" in (tmp_path / "run" / "report.html").read_text()
    assert signal.getsignal(signal.SIGINT) is before, "Ctrl-C is given back"


class Trainer:
    """A trainer that takes no steps, under `Watch` and `HealthProbe`."""

    def __init__(self, ranks: list[float], *, earlier: list[dict[str, Any]] | None = None) -> None:
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self.state, self.control = TrainerState(max_steps=1000, is_world_process_zero=True), TrainerControl()
        self.ranks = iter(ranks)
        self.watch = Watch(
            warmup=20, terms=(), write=lambda step, values: self.lines.append((step, values)),
            earlier_rows=lambda: earlier or [], facts={},
        )  # fmt: skip
        self.probe = HealthProbe(self.measure, 10, self.log, contextlib.nullcontext)

    def measure(self) -> dict[str, float]:
        return {"health_rank": (rank := next(self.ranks)), "health_rank_share": rank / 100}

    def log(self, values: dict[str, float]) -> None:
        self.control.should_log = False  # as transformers' does
        self.watch.on_log(None, self.state, self.control, values)  # type: ignore[arg-type]

    def run(self, steps: range) -> list[int]:
        for step in steps:
            self.state.global_step = step
            for callback in (self.watch, self.probe):
                callback.on_step_begin(None, self.state, self.control)  # type: ignore[arg-type]
            self.state.global_step = step + 1
            self.control.should_log = True
            self.probe.on_step_end(None, self.state, self.control)  # type: ignore[arg-type]
            assert self.control.should_log
        return [step for step, values in self.lines if "warning" in values]


def test_a_warning_waits_for_the_warm_up_and_repeats_only_after_a_recovery() -> None:
    assert Trainer([2, 2, 2, 2, 60, 60, 2, 2]).run(range(70)) == [20, 60]


def test_a_resumed_run_does_not_repeat_a_warning() -> None:
    earlier = [{"step": 30, "health_rank": 2.0, "health_rank_share": 0.02}]
    trainer = Trainer([2, 60, 2], earlier=earlier)
    assert trainer.run(range(30, 60)) == [60]


def test_the_panel_in_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import io
    import sys

    from rich.console import Console

    terminal = io.StringIO()
    shown = Console(file=terminal, force_terminal=True, width=130, height=50)
    monkeypatch.setattr("spectra_nsa.core.console.console", lambda stderr=False: shown)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress("first", lambda: rows_of(ended=None))
    state = TrainerState(max_steps=100, global_step=41, is_world_process_zero=True)
    progress.on_train_begin(None, state, TrainerControl())  # type: ignore[arg-type]
    progress.on_step_end(None, state, TrainerControl())  # type: ignore[arg-type]
    progress.on_train_end(None, state, TrainerControl())  # type: ignore[arg-type]
    assert "step 41 of 100" in terminal.getvalue() and "best 0.8800" in terminal.getvalue()
    assert progress.live is None
