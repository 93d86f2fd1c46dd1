"""An ablation from end to end with a tiny model: what it writes, skips, resumes and refuses."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.config.ablation.parts import PARTS, parts_for
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.workflows.ablate.effects import verdict
from spectra_nsa.workflows.ablate.plan import AblationPlan, MeasureOptions, make_plan
from spectra_nsa.workflows.ablate.run import ablate, plan_document
from tests.builders import WORDS, bert_folder
from tests.tools.fork_server import ForkServer

PARTS_HERE = ("matryoshka", "anchor")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint, triplets to train on, scored pairs and pairs to measure on."""
    home = tmp_path_factory.mktemp("ablation")
    bert_folder(home)
    generator = np.random.default_rng(0)
    rows, scored = [], []
    for _ in range(96):
        shared = list(generator.choice(WORDS, 2, replace=False))
        texts = [" ".join(generator.permutation([*shared, *generator.choice(WORDS, 3)])) for _ in range(2)]
        rows.append({"anchor": texts[0], "positive": texts[1], "negative": " ".join(generator.choice(WORDS, 4))})
        scored.append({"sentence1": texts[0], "sentence2": texts[1], "score": float(generator.uniform())})
    for name, found in (("train", rows), ("dev", scored), ("pairs", [dict(list(row.items())[:2]) for row in rows])):
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)))
    return home


def recipe_of(home: Path, *more: str) -> Recipe:
    base = [
        f"model.start={home / 'model'}", f"data.train={home / 'train.jsonl'}", "data.dev_rows=16", "train.batch=8",
        "train.max_steps=6", "train.checkpoint_every=2", "train.evaluate_every=2", "train.log_every=2",
        "train.lr=1e-3", "train.precision=fp32", "monitor.rows=0", "train.max_grad_norm=1e9",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def plan_of(home: Path, folder: Path, *more: str, seeds: int = 2, **options: Any) -> AblationPlan:
    options = {
        "parts": PARTS_HERE,
        "custom": (),
        "measures": MeasureOptions(tasks=[f"sts={home / 'dev.jsonl'}"]),
    } | options
    return make_plan(recipe_of(home, *more), folder=folder, seeds=seeds, **options)


@pytest.fixture(scope="module")
def done(home: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """Two parts, two seeds, two tasks."""
    folder, said = home / "done", []
    measures = MeasureOptions(tasks=[f"sts={home / 'dev.jsonl'}", f"pairs={home / 'pairs.jsonl'}"])
    document = ablate(plan_of(home, folder, measures=measures), say=said.append)
    return folder, document, said


def test_what_is_left(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, document, said = done
    assert json.loads((folder / "ablation.json").read_text()) == document
    assert (folder / "ablation.md").read_text().startswith("**2 seeds × 6 steps")
    page = (folder / "report.html").read_text()
    assert "<script" not in page and "matryoshka" in page and page.count("<svg") >= 2
    assert len(document["cells"]) == 6 and {one["seed"] for one in document["cells"]} == {0, 1}
    order = [line.split("] ")[1].split(";")[0] for line in said if line.startswith("[")]
    assert order[:3] == ["recipe, seed 0", "without-matryoshka, seed 0", "without-anchor, seed 0"]
    assert "left, until" in said[-1]


def test_only_the_recipes_own_weights_stay(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    runs = done[0] / "runs"
    assert sorted(path.name for path in runs.glob("*/model")) == ["model", "model"]
    assert all((runs / f"recipe-seed{seed}" / "model").is_dir() for seed in (0, 1))
    assert not list(runs.glob("*/checkpoints")) and len(list(runs.glob("*/result.json"))) == 6


def test_figures_are_those_of_the_saved_model(done: tuple[Path, dict[str, Any], list[str]], home: Path) -> None:
    folder, document, _ = done
    system = open_system(folder / "runs" / "recipe-seed1" / "model")
    assert isinstance(system, DenseSystem)
    plan = plan_of(home, home / "unused")
    (value, *_) = [one.value for one in plan.tasks[0].run(system).results if one.metric == "spearman"]
    (metric, ranked) = document["metrics"]
    assert metric["recipe"]["seeds"][1] == pytest.approx(value)
    assert metric["baselines"]["bm25"] is None and ranked["baselines"]["bm25"] > 0
    assert metric["baselines"]["start"] != metric["recipe"]["value"]


def test_effects_are_with_minus_without_on_each_seed(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    document = done[1]
    (matryoshka,) = [one for one in document["parts"] if one["part"] == "matryoshka"]
    figures = {
        (cell["cell"], cell["seed"]): one["value"]
        for cell in document["cells"]
        for one in cell["results"]
        if one["metric"] == "spearman"
    }
    (effect,) = [one for one in matryoshka["effects"] if one["metric"] == "spearman"]
    expected = [figures["recipe", seed] - figures["without-matryoshka", seed] for seed in (0, 1)]
    assert effect["seeds"] == pytest.approx(expected) and effect["value"] == pytest.approx(np.mean(expected))
    assert effect["ci"][0] < effect["value"] < effect["ci"][1] and effect["se_seeds"] > 0 and effect["se_items"] > 0
    assert matryoshka["cost"]["seconds_per_step"] > 0 and matryoshka["cost"]["parameters"] == 1


def test_a_detached_head_is_said_to_change_nothing(done: tuple[Path, dict[str, Any], list[str]]) -> None:
    (anchor,) = [one for one in done[1]["parts"] if one["part"] == "anchor"]
    assert anchor["same"] and anchor["effects"] == [] and "by construction" in anchor["verdict"]
    assert "the same" in (done[0] / "ablation.md").read_text()


def test_a_detached_head_that_shares_the_clip_is_measured(home: Path, tmp_path: Path) -> None:
    plan = plan_of(home, tmp_path / "out", "train.max_grad_norm=0.05", parts=["anchor"], seeds=1)
    (anchor,) = ablate(plan, say=lambda line: None)["parts"]
    assert (
        not anchor["same"] and "train.max_grad_norm" in anchor["verdict"]
    )  # though ranks, and so the figure, may be equal


def test_again_nothing_runs_and_more_seeds_come_to_it(
    done: tuple[Path, dict[str, Any], list[str]], home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(done[0], folder)
    measures = MeasureOptions(tasks=[f"sts={home / 'dev.jsonl'}", f"pairs={home / 'pairs.jsonl'}"])
    said: list[str] = []
    again = ablate(plan_of(home, folder, measures=measures), say=said.append)
    assert said == ["6 of 6 runs done already"]
    assert again["parts"] == done[1]["parts"] and again["metrics"] == done[1]["metrics"]
    plan = plan_of(home, folder, measures=measures, seeds=3, parts=["anchor"])
    assert plan_document(plan)["done"] == 4
    more = ablate(plan, say=said.append)
    assert more["seeds"] == [0, 1, 2] and [line.split("]")[0] for line in said[2:]] == ["[5/6", "[6/6"]


def test_the_command_shows_what_is_done(
    done: tuple[Path, dict[str, Any], list[str]], home: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(home).to_yaml())
    tasks = ["--task", f"sts={home / 'dev.jsonl'}", "--task", f"pairs={home / 'pairs.jsonl'}"]
    words = ["ablate", str(tmp_path / "recipe.yaml"), "--parts", "matryoshka, anchor", "--seeds", "2", *tasks]
    words += ["--output", str(done[0])]

    def spectra(*more: str) -> str:
        run = CliRunner().invoke(app, [*words, *more], env={"COLUMNS": "200"}, catch_exceptions=False)
        assert run.exit_code == 0
        return run.stdout

    plan = spectra("--dry-run")
    assert "without-anchor" in plan and "6 runs of 6 steps" in plan and "6 done" in plan
    assert json.loads(spectra("--dry-run", "--json"))["cells"][1]["changes"] == {"model.matryoshka": False}
    assert json.loads(spectra("--json"))["parts"] == done[1]["parts"]
    assert "matryoshka" in spectra("--markdown", str(tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text() == (done[0] / "ablation.md").read_text()


def test_what_moved_nothing_is_not_called_proof() -> None:
    still = {"name": "dev", "value": 0.0, "p_holm": 1.0, "ci": [0.0, 0.0]}
    assert verdict([still], detached=False) == "the same in every item: too few steps or items to tell"
    moved = still | {"ci": [-0.01, 0.02]}
    assert verdict([moved], detached=False) == "no difference seen larger than 0.0200"


def test_the_command_lists_the_parts() -> None:
    shown = CliRunner().invoke(app, ["ablate", "--list-parts"], catch_exceptions=False).stdout
    assert [line.split()[0] for line in shown.splitlines()] == list(PARTS)


def test_a_foreign_recipe_or_folder_is_refused(done: tuple[Path, dict[str, Any], list[str]], home: Path) -> None:
    measures = MeasureOptions(tasks=[f"sts={home / 'dev.jsonl'}", f"pairs={home / 'pairs.jsonl'}"])
    with pytest.raises(UsageError, match=r"train\.lr was 0\.001, is 0\.002.*--output"):
        plan_of(home, done[0], "train.lr=2e-3", measures=measures)
    with pytest.raises(UsageError, match="tasks was"):
        plan_of(home, done[0])
    with pytest.raises(UsageError, match="files that are not an ablation"):
        plan_of(home, home)


def test_a_custom_part_under_an_old_name_is_refused(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ablate(plan_of(home, folder, parts=(), custom=["slow:train.lr=1e-4"], seeds=1), say=lambda line: None)
    with pytest.raises(UsageError, match="another recipe"):
        ablate(plan_of(home, folder, parts=(), custom=["slow:train.lr=1e-5"], seeds=1), say=lambda line: None)


def test_changed_items_are_noticed(home: Path, tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    lines = (home / "dev.jsonl").read_text().splitlines()
    dev.write_text("\n".join(lines))
    options: dict[str, Any] = {"measures": MeasureOptions(tasks=[f"sts={dev}"]), "parts": ["anchor"]}
    ablate(plan_of(home, tmp_path / "out", seeds=1, **options), say=lambda line: None)
    dev.write_text("\n".join(lines[:-3]))
    with pytest.raises(SpectraError, match="different items"):
        ablate(plan_of(home, tmp_path / "out", seeds=2, **options), say=lambda line: None)


def test_every_part_builds_or_says_why_not(home: Path, tmp_path: Path) -> None:
    plan = plan_of(home, tmp_path / "out", parts=["all"])
    skipped = [note for note in plan.notes if note.startswith("skipped")]
    assert len(plan.cells) - 1 + len(skipped) == len(parts_for(recipe_of(home))) < len(PARTS)
    assert len(skipped) == 8 and "gate_lr" in skipped[0]
    assert all("give pairs with a score" in note.lower() for note in skipped[1:5])
    assert all("nothing to learn from" in note for note in skipped[5:])
    assert len({cell.recipe.to_yaml() for cell in plan.cells}) == len(plan.cells)
    assert not (tmp_path / "out").exists(), "a plan writes nothing"


@pytest.mark.parametrize(
    ("more", "options", "said"),
    [
        (["train.patience=2"], {}, "train.patience=null"),
        (["backup.to=there"], {}, "backup.to=null"),
        ([], {"measures": MeasureOptions(tasks=[])}, "--task"),
        ([], {"measures": MeasureOptions(tasks=["statistics=x"])}, "no items"),
        ([], {"measures": MeasureOptions(tasks=["sts=x", "sts=x"])}, "given twice"),
        ([], {"parts": []}, "--list-parts"),
        ([], {"parts": ["anchor", "anchor"]}, "given twice"),
        (["train.max_steps=null"], {"parts": [], "custom": ["big:train.batch=16"]}, "train.max_steps"),
        ([], {"parts": [], "custom": ["wide:model.semantic_dims=[64]"]}, "part wide"),
    ],
)
def test_what_is_refused_before_any_work(
    home: Path, tmp_path: Path, more: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        plan_of(home, tmp_path / "out", *more, **options)
    assert not (tmp_path / "out").exists()


def test_stopped_and_failed_half_way_it_resumes_and_ends_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectra_nsa.training.loop.interrupt import StopOnInterrupt
    from spectra_nsa.workflows.ablate import cells as ablate_cells

    folder, said = tmp_path / "out", []

    def resume() -> dict[str, Any]:
        return ablate(plan_of(home, folder, parts=["anchor"], seeds=1), say=said.append)

    def interrupted(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.requested = state.global_step == 3
        control.should_save = control.should_training_stop = self.requested
        return control

    def killed(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == 5:
            raise MemoryError
        return control

    run = folder / "runs" / "recipe-seed0"
    with monkeypatch.context() as patch:
        patch.setattr(StopOnInterrupt, "on_step_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            resume()
    assert (run / "checkpoints" / "step-3").is_dir() and not (run / "model").exists()
    with monkeypatch.context() as patch:
        patch.setattr(StopOnInterrupt, "on_step_end", killed)
        with pytest.raises(MemoryError):
            resume()
    assert (run / "checkpoints" / "step-4").is_dir() and not (run / "trained.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(ablate_cells, "_cost", killed)  # after the training, while it is measured
        with pytest.raises(TypeError):
            resume()
    assert (run / "trained.json").is_file() and not (run / "result.json").exists()
    document = resume()
    assert [one["steps"] for one in document["cells"]] == [6, 6]
    assert document["parts"][0]["same"], "a run that was stopped thrice ends on the vectors of one that was not"


def test_ctrl_c_says_how_to_resume(home: Path, tmp_path: Path, fork_server: ForkServer) -> None:
    (home / "recipe.yaml").write_text(recipe_of(home, "train.max_steps=60").to_yaml())
    words = ["recipe.yaml", "--parts", "anchor", "--seeds", "1", "--task", "sts=dev.jsonl", "--output", str(tmp_path)]
    command = fork_server.start("ablate", *words, cwd=home, env={"HOME": str(tmp_path / "home")})
    checkpoints, end = tmp_path / "runs" / "recipe-seed0" / "checkpoints", time.monotonic() + 120
    while not list(checkpoints.glob("step-*")):
        assert command.poll() is None and time.monotonic() < end, "it ended before it could be stopped"
        time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    stopped = command.wait()
    assert stopped.returncode == 130 and "the same command resumes it" in stopped.stderr
