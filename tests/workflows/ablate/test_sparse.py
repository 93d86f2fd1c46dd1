"""An ablation of a recipe that trains a sparse encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.config.ablation.parts import PARTS
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.report.ablation import ablation_markdown
from spectra_nsa.workflows.ablate.plan import AblationPlan, MeasureOptions, make_plan
from spectra_nsa.workflows.ablate.run import ablate
from tests.builders import WORDS, bert_folder, tiny_masked_lm

PARTS_HERE = ("inference_free", "document_flops", "both_directions")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked LM, and pairs that share two words."""
    home = tmp_path_factory.mktemp("ablation")
    tiny_masked_lm(home / "model")
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(96):
        shared = list(generator.choice(WORDS, 2, replace=False))
        anchor, positive = (" ".join([*shared, *generator.choice(WORDS, 3)]) for _ in range(2))
        rows.append({"anchor": anchor, "positive": positive})
    for name, found in (("train", rows[:64]), ("dev", rows[64:])):
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, found)), encoding="utf-8")
    return home


def recipe_of(home: Path, *more: str) -> Recipe:
    base = [
        f"model.start={home / 'model'}", f"data.train={home / 'train.jsonl'}", "data.dev_rows=0", "train.batch=8",
        "train.max_steps=4", "train.log_every=2", "train.lr=1e-3", "train.precision=fp32", "monitor.rows=0",
        "sparse.query_active=6", "sparse.document_active=9", "sparse.calibrate=40", "sparse.highest_df=null",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def plan_of(
    home: Path, folder: Path, *more: str, parts: Any = PARTS_HERE, custom: Any = (), **how: Any
) -> AblationPlan:
    measures = MeasureOptions(**{"tasks": [f"pairs={home / 'dev.jsonl'}"], **how})
    return make_plan(recipe_of(home, *more), folder=folder, parts=parts, custom=custom, seeds=2, measures=measures)


def test_each_cell_is_trained_and_measured_on_both_sides(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    document = ablate(plan_of(home, folder), say=lambda line: None)
    assert json.loads((folder / "ablation.json").read_text()) == document
    assert [one["part"] for one in document["parts"]] == list(PARTS_HERE) and len(document["cells"]) == 8
    active = {(one["cell"], one["seed"]): one["document_active"] for one in document["cells"]}
    assert document["active"].keys() == {"start", "recipe"} and document["active"]["start"]["query"] > 0
    (regularizer,) = [one for one in document["parts"] if one["part"] == "document_flops"]
    expected = [active["recipe", seed] - active["without-document_flops", seed] for seed in (0, 1)]
    assert regularizer["active"]["document"] == pytest.approx(np.mean(expected), abs=0.011)
    (metric,) = document["metrics"]
    assert metric["baselines"]["start"] > 0 and metric["recipe"]["value"] > 0
    (free,) = [one for one in document["parts"] if one["part"] == "inference_free"]
    assert free["changes"] == {"sparse.kind": "inference_free"} and free["cell"] == "with-inference_free"
    assert "| terms (query, document) | time × |" in ablation_markdown(document)
    page = (folder / "report.html").read_text()
    assert "terms (query, document)" in page and "inference_free" in page


def test_the_command_plans_every_part_or_says_why_not(home: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_of(home).to_yaml())
    words = ["ablate", str(tmp_path / "recipe.yaml"), "--parts", "all", "--task", f"pairs={home / 'dev.jsonl'}"]
    words += ["--output", str(tmp_path / "out"), "--dry-run", "--json"]
    plan = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    parts = {cell["part"] for cell in plan["cells"][1:]}
    skipped = [note for note in plan["notes"] if note.startswith("skipped")]
    assert parts >= {"inference_free", "closed_form_head", "calibrate", "highest_df", "query_active", "query_flops"}
    assert parts <= {name for name, part in PARTS.items() if part.model_kind in (None, "sparse")}
    assert len(skipped) == 3 and "no other term of the recipe ranks" in skipped[0]
    assert not (tmp_path / "out").exists()


def test_a_run_that_fails_is_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spectra_nsa.workflows.ablate import run

    def silent(*_: Any, **__: Any) -> None:
        raise SpectraError("the model's vocabulary is silent")

    monkeypatch.setattr(run, "run_cell", silent)
    monkeypatch.setattr(run, "run_baselines", lambda plan: {})
    with pytest.raises(SpectraError, match=r"^recipe, seed 0: the model's vocabulary is silent"):
        ablate(plan_of(home, tmp_path / "out"), say=lambda line: None)


def test_a_start_without_a_head_has_no_other_to_compare(home: Path, tmp_path: Path) -> None:
    bert = bert_folder(tmp_path / "bert")
    with pytest.raises(UsageError, match="Start from a masked LM"):
        plan_of(home, tmp_path / "out", f"model.start={bert}", parts=["closed_form_head"])
    plan = plan_of(home, tmp_path / "out", f"model.start={bert}", parts=["dropout"])
    assert plan.cells[1].name in ("with-dropout", "without-dropout")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": ["knn=dev.jsonl,dev.jsonl"]}, "knn needs dense vectors"),
        ({"dim": 8}, "--dim cuts dense vectors"),
        ({"parts": [], "custom": ["hot:loss.temperature=0.1"]}, r"part hot: loss\.temperature means nothing"),
        ({"parts": [], "custom": ["own:sparse.head=other"]}, "part own"),
        ({"parts": ["depth_mix"]}, "trains a sparse model"),
        ({"tasks": ["sparsity=dev.jsonl"]}, "sparsity has no items"),
    ],
)
def test_what_is_refused_before_any_work(home: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan_of(home, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
