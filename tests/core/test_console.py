from __future__ import annotations

import io
import json
import sys

import pytest

from spectra_nsa.core.console import console, print_json, progress, say_loading


def test_progress_is_silent_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert list(progress(iter([1, 2, 3]), label="counting")) == [1, 2, 3]
    assert capsys.readouterr().out == ""


def test_one_console_a_stream() -> None:
    assert console() is console() and console(stderr=True) is console(stderr=True)
    assert console(stderr=True).stderr and not console().stderr


def test_progress_prints_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr("spectra_nsa.core.console.LINE_EVERY", 0.0)
    assert list(progress([1, 2, 3], label="counting")) == [1, 2, 3]
    assert stderr.getvalue().splitlines()[1] == "  counting: 1 of 3"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_is_valid_whatever_the_output(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    print_json({"a": [float("nan"), (1.5, -float("inf"))], "text": "größer → 東京", "none": None})
    sys.stdout.flush()
    document = json.loads(raw.getvalue().decode(encoding), parse_constant=lambda name: pytest.fail(name))
    assert document == {"a": [None, [1.5, None]], "text": "größer → 東京", "none": None}


def test_loading_is_said_once_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("once", "once", "twice"):
        say_loading(f"test-of-{name}")
    assert capsys.readouterr().err == "spectra: loading test-of-once\nspectra: loading test-of-twice\n"
