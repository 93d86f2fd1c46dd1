"""`spectra tokenizer`: what it prints, and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError
from tests.builders import WORDS


def spectra(*words: str) -> str:
    run = CliRunner().invoke(app, ["tokenizer", *words], catch_exceptions=False, env={"COLUMNS": "200"})
    assert run.exit_code == 0
    return run.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    lines = [{"anchor": f"{a} {b}", "positive": f"def {a}(): {b}"} for a in WORDS for b in WORDS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(tmp_path / "pairs.jsonl")


def test_train_then_report(corpus: str, tmp_path: Path, minilm: Path) -> None:
    folder = str(tmp_path / "own")
    printed = spectra("train", corpus, corpus, "--out-prefix", folder, "--vocab-size", "900")
    assert printed.startswith(f"{folder}: unigram, ") and "of 900 requested (the texts support no more)" in printed
    assert "decoding restores every normalized text" in printed
    assert all(name in printed for name in ("fertility", "unknown", "round_trip", "bert-base-uncased"))
    document = json.loads(spectra("report", folder, "--texts", corpus, "--json"))
    found = {(one["system"], one["metric"]): one["value"] for one in document["results"]}
    assert found[folder, "fertility"] >= 1.0 and found[folder, "round_trip"] == 1.0
    assert "fertility" in spectra("report", folder, "-t", corpus)


def test_json_of_a_small_word_vocabulary(corpus: str, tmp_path: Path) -> None:
    words = ["train", corpus, "-o", str(tmp_path / "own"), "--kind", "word", "--vocab-size", "20", "--cased"]
    document = json.loads(spectra(*words, "--min-frequency", "1", "--max-length", "8", "--limit", "200", "--json"))
    assert {"schema", "folder", "kind", "asked", "pieces", "lossless", "held_out", "results"} <= set(document)
    assert (document["kind"], document["pieces"], document["lossless"]) == ("word", 20, False)
    settings = json.loads((tmp_path / "own" / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 8


def test_skipped_rows_are_reported(corpus: str, tmp_path: Path, minilm: Path) -> None:
    (tmp_path / "odd.csv").write_text("text,nr\nread open,1\n,2\n")
    words = ["train", corpus, "-o", str(tmp_path / "own"), "--kind", "word", "--vocab-size", "20", "--held-out"]
    document = json.loads(spectra(*words, str(tmp_path / "odd.csv"), "--json"))
    report = ["tokenizer", "report", str(tmp_path / "own"), "--texts", str(tmp_path / "odd.csv")]
    run = CliRunner().invoke(app, [*report, "--json"], catch_exceptions=False)
    for found in (document, json.loads(run.stdout)):
        assert found["quarantined"] == 1 and found["problems"][0]["line"] == 3
    assert f"{tmp_path / 'odd.csv'}:3, column 'text': empty" in run.stderr


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpectraError, match="contains no text"):
        spectra("train", str(tmp_path / "a.txt"), "-o", str(tmp_path / "own"))
    assert not (tmp_path / "own").exists()
