"""`spectra data preview` from end to end."""

from __future__ import annotations

import json
import sys

import pytest

from spectra_nsa.cli.main import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Returns a function that runs the command and returns exit status, standard output and standard error."""

    def _run(*arguments):
        monkeypatch.setattr(sys, "argv", ["spectra", "data", "preview", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
            sys.exit(0)
        out = capsys.readouterr()
        return end.value.code or 0, out.out, out.err

    return _run


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("title,body\nfirst,the [bold]body\nsecond,\nthird,another body\n")
    return path


def test_json(run, pairs, tmp_path):
    options = ["--columns", "anchor=title,positive=body", "--quarantine", tmp_path / "q", "--against", pairs, "--json"]
    code, out, _ = run(pairs, *options)
    document = json.loads(out)
    assert code == 0
    assert (document["schema"], document["kind"], document["rows"], document["quarantined"]) == (1, "pairs", 2, 1)
    assert {result["metric"]: result["value"] for result in document["results"]} == {
        "rows": 2, "quarantined": 1, "duplicates": 0, "overlap": 2,
    }  # fmt: skip
    assert document["problems"][0]["line"] == 3
    assert (tmp_path / "q").is_dir()


def test_readable_output(run, pairs):
    code, out, _ = run(pairs, "--rows", "1")
    assert code == 0
    out = " ".join(out.split())  # a long path breaks the line
    for text in ("pairs, 2 rows", "1 quarantined", "characters", "the [bold]body", "repeated"):
        assert text in out
    assert "row 2" not in out


def test_exit_codes(run, pairs, tmp_path):
    code, out, error = run(tmp_path / "none.csv", "--json")
    assert (code, out) == (1, "")
    assert "does not exist" in error
    code, _, error = run(pairs, "--columns", "ancor=title")
    assert code == 2
    assert "Did you mean 'anchor'" in error
    assert run(pairs, "--limit", "0")[0] == 2


def test_help_has_an_example(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "Example: spectra data preview" in out
