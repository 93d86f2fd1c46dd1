"""The scripts in examples/."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spectra_nsa as sp

EDGE = Path(__file__).resolve().parents[1] / "examples" / "02_edge_model.py"


@pytest.fixture
def edge() -> Any:
    spec = importlib.util.spec_from_file_location("edge_model", EDGE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_finished_stage_is_skipped_and_an_interrupted_one_resumed(
    edge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def spectra(*words: str | Path) -> tuple[str, float, float]:
        called.append([str(word) for word in words])
        return 'a line before\n{"steps": 3}\n', 1.0, 0.5

    monkeypatch.setattr(edge, "spectra", spectra)
    first = edge.stage(tmp_path, "student", "distill", "x")
    assert first == edge.stage(tmp_path, "student", "distill", "x")
    assert called == [["distill", "x", "--json"]] and first["said"] == {"steps": 3}
    (tmp_path / "student.json").unlink()
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "recipe.yaml").touch()
    edge.stage(tmp_path, "student", "distill", "x", resumed_by="distill")
    assert called[1] == ["distill", "--resume", str(tmp_path / "student"), "--json"]


def test_a_folder_made_with_different_options_is_refused(edge: Any, tmp_path: Path) -> None:
    edge.settle(tmp_path, argparse.Namespace(steps=4, work=tmp_path))
    edge.settle(tmp_path, argparse.Namespace(steps=4, work=tmp_path / "."))
    with pytest.raises(SystemExit, match="other options"):
        edge.settle(tmp_path, argparse.Namespace(steps=5, work=tmp_path))


def test_a_command_is_timed_and_its_failure_reported(edge: Any) -> None:
    said, seconds, memory = edge.spectra("recipe", "list")
    assert "nexus-240m" in said and seconds > 0 and memory > 0.005
    with pytest.raises(SystemExit, match="exit status 2"):
        edge.spectra("bogus")


def test_texts_of_several_kinds_of_source(edge: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\n".join(f"note {number} of mine" for number in range(50)), encoding="utf-8")
    rows = [{"anchor": f"question {number}", "positive": f"answer {number}"} for number in range(50)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pairs, notes = str(tmp_path / "pairs.jsonl"), str(tmp_path / "notes.txt")
    edge.write_texts([pairs], [], 25, 10, tmp_path)
    assert [len(read(tmp_path / f"{name}.jsonl")) for name in ("pretrain", "learn", "functions")] == [50, 25, 10]
    assert set(read(tmp_path / "learn.jsonl")[0]) == {"anchor", "positive"}
    edge.write_texts([pairs, notes], [], 1000, 10, tmp_path)
    assert [len(read(tmp_path / f"{name}.jsonl")) for name in ("pretrain", "learn")] == [150, 100]
    assert set(read(tmp_path / "learn.jsonl")[0]) == {"text"}


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_an_edge_model_from_texts_to_codes(tmp_path: Path, minilm: Path) -> None:
    command = [sys.executable, str(EDGE), "--quick", "--work", str(tmp_path / "edge")]
    nowhere = {key: value for key, value in os.environ.items() if key != "SPECTRA_DATA"}
    done = subprocess.run(command, cwd=tmp_path, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "edge" / "results.json").read_text(encoding="utf-8"))
    stages = ["tokenizer", "student", "blank", "pretrained", "late", "edge", "teacher-edge", "measured"]
    assert list(document) == stages
    assert all(one["seconds"] > 0 and one["memory_gb"] > 0.1 for one in document.values())
    assert document["pretrained"]["said"]["best"]["dev_perplexity"] < 8_000
    found = {row["system"] for row in document["measured"]["said"]["results"]}
    others = {f"{name}/model" for name in ("blank", "late", "pretrained")}
    assert found == {"edge", *others, "sentence-transformers/all-MiniLM-L6-v2"}
    model = sp.load(tmp_path / "edge" / "edge")
    vectors = model.encode(["open a file"], outputs=["semantic", "entity", "fast"])
    assert {name: value.shape for name, value in vectors.items()} == {
        "semantic": (1, 384), "entity": (1, 192), "fast": (1, 32),
    }  # fmt: skip
    table = (tmp_path / "edge" / "results.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in table for name in stages)
    again = subprocess.run(command, cwd=tmp_path, env=nowhere, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and table in again.stdout
