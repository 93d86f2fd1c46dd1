"""The quickstart end to end: real weights, the installed packages, ten minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import spectra_nsa as sp
from tests.tools.fork_server import ForkServer


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_quickstart_end_to_end(tmp_path: Path, minilm: Path) -> None:
    command = [sys.executable, "-m", "spectra_nsa", "quickstart", "--dir", str(tmp_path / "q")]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1 and document["model"] == str(tmp_path / "q" / "model")
    figures = {(r["system"], r["metric"]): r for r in document["results"]}
    trained, start, bm25 = (figures[name, "ndcg@10"] for name in ("quickstart", "all-MiniLM-L6-v2", "bm25"))
    assert trained["value"] > start["value"] + 0.02 > bm25["value"]
    assert trained["ci"][0] < trained["value"] < trained["ci"][1]
    gain = next(d for d in document["differences"] if d["system"] == "quickstart" and d["metric"] == "ndcg@10")
    assert gain["ci"][0] > 0
    by_output = {row["output"]: row["ndcg@10"] for row in document["outputs"]}
    assert by_output["embedding"] == pytest.approx(trained["value"])
    assert by_output["fast, 64 bits, then embedding for 100"] > by_output["fast, 64 bits, Hamming"] > 0.1
    assert document["quickstart"]["steps"] >= 5
    assert document["quickstart"]["peak_memory_gb"] < 4
    assert document["quickstart"]["minutes"] < 12, "10 are promised; a machine that slows down half-way may need more"
    page = (tmp_path / "q" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page and "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")
    assert sp.load(tmp_path / "q" / "model").encode("open a file").shape == (384,)


def test_too_little_time_is_refused(tmp_path: Path, fork_server: ForkServer) -> None:
    done = fork_server.run("quickstart", "--minutes", "0.1", cwd=tmp_path)
    assert done.returncode == 2 and "minutes" in done.stderr
