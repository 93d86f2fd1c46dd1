from __future__ import annotations

import io

import pytest

from spectra_nsa.core.console import console, progress


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
