"""What surrounds a command never decides how it ends: streams, encodings, arguments, the disk and Ctrl-C."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.cli import main as command
from spectra_nsa.core.console import prepare_streams


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command in this process and returns its exit status."""

    def _run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["spectra", *words])
        with pytest.raises(SystemExit) as end:
            command.main()
        return int(end.value.code or 0)

    return _run


def test_signs_that_an_encoding_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]) -> None:
    """cp1252 has × but no →; ASCII has neither."""
    for encoding, printed in (("ascii", "? ?"), ("cp1252", "× ?"), ("utf-8", "× →")):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        assert run("recipe", "list") == 0
        for stream in streams:
            print("× →\udcff", file=stream, flush=True)
            assert f"{printed}?" in stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_closed_streams_are_accepted(monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    prepare_streams()
    assert not sys.stderr.isatty()
    assert run("recipe", "list") == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Callable[..., int]
) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w", encoding="utf-8") as full:
        patch.setattr(sys, "stdout", full)
        assert run("recipe", "list") == 1
    assert capsys.readouterr().err == "spectra: No space left on device.\n"


def test_a_reader_that_stops_ends_the_command_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Callable[..., int]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch, os.fdopen(writer, "w", encoding="utf-8") as pipe:
        patch.setattr(sys, "stdout", pipe)
        assert run("recipe", "show", "m456") == 1
    assert capsys.readouterr().err == ""


def test_an_argument_that_is_not_utf8_is_refused(capsys: pytest.CaptureFixture[str], run: Callable[..., int]) -> None:
    assert run("data", "preview", "n\udcff.jsonl") == 2
    assert capsys.readouterr().err.startswith("spectra: the argument 'n\\udcff.jsonl' is not UTF-8.")


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "a.txt"), 1, "a.txt: Permission denied."),
        (MemoryError(), 1, "there is not enough memory."),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run: Callable[..., int],
    error: BaseException,
    status: int,
    printed: str,
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("spectra_nsa.config.shipped.recipe_names", fail)
    assert run("recipe", "list") == status
    assert capsys.readouterr().err == f"spectra: {printed}\n"
