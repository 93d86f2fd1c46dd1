"""The shared fixtures: no network, tiny models that load, and failures where required data is missing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parents[1]
SUITE = """
import pytest
from tests.conftest import *  # the fixtures under test

@pytest.mark.data
def test_with_data(data_dir):
    pass

@pytest.mark.data
def test_that_skips_itself():
    pytest.skip("no data")

def test_without_data():
    pytest.skip("for another reason")
"""


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process may use all cores")
def test_a_worker_computes_on_one_thread() -> None:
    """Two threads in each of two workers on two cores make small models ten times slower."""
    assert torch.get_num_threads() == 1


def test_connections_to_other_machines_are_refused() -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("pypi.org", 443), timeout=1)
    with pytest.raises(OSError, match="no network"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_tiny_models_load(tiny_bert: Callable[..., Path], tiny_pairs: Callable[..., Path]) -> None:
    first, second = tiny_bert(hidden=16, layers=1, heads=2, prompts={"query": "q: "}), tiny_bert(pooling="cls")
    model = SentenceTransformer(str(first), device="cpu")
    assert model.encode(["open file"]).shape == (1, 16) and model.prompts["query"] == "q: " and first != second
    assert len(tiny_pairs(rows=5).read_text().splitlines()) == 5


def test_the_tiny_tokenizer_splits_unknown_words_into_letters(tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.is_fast and tiny_tokenizer.tokenize("open xy") == ["open", "x", "##y"]


@pytest.mark.parametrize(("required", "outcome"), [("0", "3 skipped"), ("1", "1 failed, 1 skipped, 1 error")])
def test_missing_data_skips_a_test_or_fails_it_if_required(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(ROOT), "-p", "tests.conftest", str(tmp_path / "test_suite.py")],
        cwd=ROOT,
        env=os.environ | {"SPECTRA_DATA": str(tmp_path / "gone"), "SPECTRA_REQUIRE_DATA": required},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert outcome in run.stdout.splitlines()[-1], run.stdout
    assert run.returncode == int(required)
    assert required == "0" or "may not be skipped with SPECTRA_REQUIRE_DATA=1" in run.stdout
