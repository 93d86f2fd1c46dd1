"""`spectra mine` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [
        {"title": f"{colour} {animal} food", "body": f"{colour} {animal} food for {animal} owners"}
        for colour in ("red", "blue") for animal in ("cat", "dog", "bird")
    ]  # fmt: skip
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


BASE = ["mine", "pairs.jsonl", "--columns", "anchor=title,positive=body", "--model", "bm25", "--output", "mined.jsonl"]


def test_flags_reach_the_rules_and_counts_are_printed() -> None:
    flags = "--negatives 2 --range-min 1 --range-max 5 --percentage-to-positive 0.9 --sampling random --seed 3"
    run = CliRunner().invoke(app, [*BASE, *flags.split(), "--scores", "--incomplete", "keep", "--json"])
    assert run.exit_code == 0, run.output
    facts = json.loads(run.stdout)
    assert facts["schema"] == 1 and facts["counts"]["written"] == 6
    rules = facts["rules"]
    assert (rules["negatives"], rules["range_min"], rules["range_max"], rules["seed"]) == (2, 1, 5, 3)
    assert rules["relative_margin"] == pytest.approx(0.1) and rules["sampling"] == "random"
    row = json.loads(Path("mined.jsonl").read_text().splitlines()[0])
    assert list(row) == ["anchor", "positive", "negative", "negative_2", "scores"]


def test_people_read_what_was_written_and_what_was_not() -> None:
    run = CliRunner().invoke(app, [*BASE, "--negatives", "5", "--max-score", "0"])
    assert run.exit_code != 0 and "Nothing was written" in str(run.exception)
    run = CliRunner().invoke(app, [*BASE, "--negatives", "2"])
    assert "6 rows with 2 negatives → mined.jsonl" in run.stdout and "mined.jsonl.meta.json" in run.stdout


def test_a_dry_run_writes_nothing() -> None:
    run = CliRunner().invoke(app, [*BASE, "--dry-run"])
    assert "1 of 1 block of anchors to search. No file was written." in run.stdout
    assert not list(Path().glob("mined*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--relative-margin 0.1 --percentage-to-positive 0.9", "the same rule"),
        ("--percentage-to-positive 95", "at most 1"),
        ("--sampling best", "unknown --sampling"),
        ("--negatives 9", "from 1 to 8"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags: str, message: str) -> None:
    run = CliRunner().invoke(app, [*BASE, *flags.split()])
    assert isinstance(run.exception, UsageError) and message in str(run.exception)
