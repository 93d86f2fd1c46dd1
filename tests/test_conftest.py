"""The fixtures themselves: no network, tiny folders that open, and data that may not be missing when it is required."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parents[1]
NEEDY = """
import pytest
from tests.conftest import *  # the fixtures under test

@pytest.mark.data
def test_of_data(data_dir):
    pass

@pytest.mark.data
def test_that_skips_itself():
    pytest.skip("no data")

def test_of_nothing():
    pytest.skip("for another reason")
"""


def test_connections_stay_on_this_machine() -> None:
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("pypi.org", 443), timeout=1)
    with pytest.raises(OSError, match="no network"), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_tiny_folders_open(tiny_bert: Callable[..., Path], tiny_pairs: Callable[..., Path]) -> None:
    one, other = tiny_bert(hidden=16, layers=1, heads=2, prompts={"query": "q: "}), tiny_bert(pooling="cls")
    model = SentenceTransformer(str(one), device="cpu")
    assert model.encode(["open file"]).shape == (1, 16) and model.prompts["query"] == "q: " and one != other
    assert len(tiny_pairs(rows=5).read_text().splitlines()) == 5


def test_the_tiny_tokenizer_knows_its_words(tiny_tokenizer: Any) -> None:
    assert tiny_tokenizer.is_fast and tiny_tokenizer.tokenize("open xy") == ["open", "x", "##y"]


@pytest.mark.parametrize(("required", "outcome"), [("0", "3 skipped"), ("1", "1 failed, 1 skipped, 1 error")])
def test_required_data_may_not_be_missing(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "test_needy.py").write_text(NEEDY)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(ROOT), "-p", "tests.conftest", str(tmp_path / "test_needy.py")],
        cwd=ROOT,
        env=os.environ | {"SPECTRA_DATA": str(tmp_path / "gone"), "SPECTRA_REQUIRE_DATA": required},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert outcome in run.stdout.splitlines()[-1], run.stdout
    assert run.returncode == int(required)
    assert required == "0" or "may not be skipped with SPECTRA_REQUIRE_DATA=1" in run.stdout
