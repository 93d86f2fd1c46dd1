"""Loading and exporting show no progress bars of the libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

import spectra_nsa as sp
from tests.builders import bert_folder


def test_load_and_export_are_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sp.warm_start(bert_folder(tmp_path)).save_pretrained(str(tmp_path / "saved"))
    logging.enable_progress_bar()
    capfd.readouterr()
    sp.export_bert(sp.load(tmp_path / "saved"), tmp_path / "plain")
    assert "it/s" not in capfd.readouterr().err and logging.is_progress_bar_enabled()
