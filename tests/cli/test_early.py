"""Mistakes in a command are reported before anything heavy is loaded, the cheapest to fix first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.cli.runs import read_recipe
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training.jobs import checked_recipe

HEAVY = ("torch", "transformers", "sentence_transformers", "datasets", "scipy", "pyarrow")
TASK = ["--task", "sts=pairs.jsonl"]
# The folder `here` is not empty and holds no ablation.
MISTAKES: list[tuple[list[str], str]] = [
    (["train", "--size", "small"], "--data SOURCE"),
    (["train", "--size", "small", "--data", "gone.jsonl"], "gone.jsonl does not exist"),
    (["train", "--size", "small", "--data", "gone.jsonl", "--dry-run"], "gone.jsonl does not exist"),
    (["train", "--size", "small", "--data", "pairs.jsonl", "data.dev=gone.jsonl"], "gone.jsonl does not exist"),
    (["train", "--model", "./gone", "--data", "pairs.jsonl"], "./gone does not exist"),
    (
        ["train", "--size", "nexus-240m", "--data", "pairs.jsonl", "model.tokenizer=./gone", "--dry-run"],
        "model.tokenizer: ./gone does not exist. Train one with spectra tokenizer train TEXTS --output ./gone, or name",
    ),
    (["pretrain", "--size", "small", "--data", "pairs.jsonl", "model.tokenizer=pairs.jsonl"], "is a file. Name the"),
    (["train", "--size", "small", "--data", "pairs.jsonl", "loss.terms.margin_mse.weight=1"], "distill.scores"),
    (["pretrain", "--size", "small", "--data", "gone.jsonl"], "gone.jsonl does not exist"),
    (["pretrain", "--size", "small", "loss.temperature=0.1"], "loss means nothing in pretraining"),
    (["mine", "gone.jsonl", "--model", "bm25", "--output", "mined.jsonl"], "gone.jsonl does not exist"),
    (["mine", "pairs.jsonl", "--model", "./gone", "--output", "mined.jsonl"], "./gone does not exist"),
    (["mine", "pairs.jsonl", "--model", "bm25", "--output", "m.jsonl", "--sampling", "tip"], "Did you mean 'top'"),
    (["search", "here", "--corpus", "pairs.jsonl"], "the query is missing: here is a model"),
    (["search", "./gone", "open", "--corpus", "pairs.jsonl"], "./gone does not exist"),
    (["search", "here", "open", "--corpus", "pairs.jsonl", "--bits", "300"], "use 64, 128 or 256"),
    (["search", "here", "open", "--corpus", "pairs.jsonl", "--symmetric"], "add --bits"),
    (["search", "here", "\u200b", "--corpus", "pairs.jsonl"], "the query is empty"),
    (["similarity", "here", "open", " "], "text 2 is empty"),
    (["encode", "here", "--texts", ""], "text 1 is empty"),
    (["encode", "here", "--texts", "open", "--outputs", "embeding"], "Did you mean 'embedding'"),
    (["encode", "here", "--texts", "open", "--output", "v.txt"], "such as v.npz"),
    (["encode", "here", "--texts", "open", "--output", "v", "--workers", "2"], "is a folder, for a corpus"),
    (["encode", "here", "--texts", "open", "--workers", "2"], "--workers is for a corpus"),
    (["encode", "here", "-i", "pairs.jsonl", "--output", "v", "--part", "3/2"], "write K/N"),
    (["push", "here", "no-owner"], "no name of a repository"),
    (["encode", "here", "-t", "a", "--output", "v.npy", "--outputs", "fast,semantic"], "holds a single array"),
    (["encode", "./gone", "--input", "pairs.jsonl"], "./gone does not exist"),
    (["codes", "fit", "./gone", "--corpus", "pairs.jsonl"], "./gone does not exist"),
    (["anomaly", "fit", "here", "--texts", "pairs.jsonl", "--output", "here"], "here"),
    (["distill", "./gone", "pairs.jsonl", "train.bacth=3"], "Did you mean 'train.batch'"),
    (["distill", "./gone", "pairs.jsonl"], "./gone does not exist"),
    (["ablate", "--data", "pairs.jsonl", "--output", "here"], "--task"),
    (["ablate", "--data", "pairs.jsonl", *TASK, "--output", "here", "--parts", "anchr"], "Did you mean 'anchor'"),
    (["ablate", "--data", "pairs.jsonl", *TASK, "--output", "here"], "nothing to ablate"),
    (["ablate", "--data", "pairs.jsonl", *TASK, "--output", "here", "--part", "hot"], "--part is NAME:key=value"),
    (
        ["ablate", "--data", "pairs.jsonl", *TASK, "--output", "here", "--part", "hot:loss.temprature=1"],
        "Did you mean 'loss.temperature'",
    ),
    (
        ["ablate", "--data", "pairs.jsonl", "--task", "stss=x", "--output", "here", "--parts", "anchor"],
        "Did you mean 'sts'",
    ),
    (["ablate", "--data", "gone.jsonl", *TASK, "--output", "here", "--parts", "anchor"], "gone.jsonl does not exist"),
    (["ablate", "--data", "pairs.jsonl", *TASK, "--output", "here", "--parts", "anchor"], "not an ablation's"),
]


def test_a_static_mistake_loads_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    rows = [{"sentence1": f"open {n}", "sentence2": f"close {n}", "score": n / 9} for n in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("mine")
    script = (
        "import json, sys\nfrom typer.testing import CliRunner\nfrom spectra_nsa.cli.main import app\n"
        f"for words, message in json.loads({json.dumps(json.dumps(MISTAKES))}):\n"
        "    found = CliRunner().invoke(app, words).exception\n"
        "    assert message in str(found), (words, found)\n"
        f"    assert not set(sys.modules) & set({HEAVY!r}), (words, set(sys.modules) & set({HEAVY!r}))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "pairs.jsonl"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder, and next to it the recipe file that it was started with."""
    (tmp_path / "r.yaml").write_text("data: {train: pairs.jsonl}\ntrain: {lr: 0.001}\n")
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    recipe = read_recipe([str(tmp_path / "r.yaml")], {"name": "first"})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return folder


def test_resume_accepts_the_runs_own_recipe_file(run: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "r.yaml")
    own = read_recipe([], {}, run)
    assert own.name == "first" and own.train.lr == 0.001
    assert read_recipe([file], {}, run) == own
    changed = read_recipe([file, "train.epochs=3"], {"train.seed": 4}, run)
    assert (changed.train.epochs, changed.train.seed, changed.train.lr) == (3, 4, 0.001)


def test_resume_refuses_a_different_recipe_file_and_names_what_differs(run: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: {train: pairs.jsonl}\ntrain: {lr: 0.002}\n")
    with pytest.raises(UsageError, match=r"r\.yaml is not the recipe of .*: train\.lr was 0\.001, is 0\.002 in.*KEY="):
        read_recipe([str(tmp_path / "r.yaml")], {}, run)


def test_a_run_is_resumed_by_the_verb_that_started_it(run: Path) -> None:
    recipe = read_recipe([], {}, run)
    for command, other in (("train", "pretrain"), ("pretrain", "train")):
        (run / "recipe.yaml").write_text(checked_recipe(recipe, other).to_yaml())
        for more in ([], ["--dry-run"], ["train.epochs=2"]):
            found = CliRunner().invoke(app, [command, "--resume", str(run), *more]).exception
            assert isinstance(found, UsageError), found
            remedy = f"Resume it with: spectra {other} --resume {run}"
            assert str(found) == f"{run} is a run of spectra {other}. {remedy}"
