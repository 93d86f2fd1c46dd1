"""The sparse quickstart: its parts in the default suite, all of it on real data as a slow test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.workflows.quickstart.report import use_grid
from spectra_nsa.workflows.quickstart.sparse import SPARSE_RECIPE
from tests.tools.fork_server import ForkServer


def test_the_recipe_trains_a_sparse_encoder() -> None:
    recipe = load_recipe(SPARSE_RECIPE)
    assert recipe.sparse is not None and recipe.sparse.kind == "splade" and recipe.data.group == "group"


def test_the_table_of_use_names_both_sides() -> None:
    row = {"system": "sparse", "query_active": 3.5, "document_active": 9.0, "highest_document_frequency": 0.4}
    header, rows = use_grid([row | {"bytes_per_document": 54, "terms_in_most_documents": 0}])
    assert len(header) == len(rows[0]) == 5 and rows[0][0] == "sparse"


def test_sparse_and_from_scratch_exclude_each_other(tmp_path: Path, fork_server: ForkServer) -> None:
    done = fork_server.run("quickstart", "--sparse", "--from-scratch", cwd=tmp_path)
    assert done.returncode == 2 and "--sparse" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_sparse_quickstart_end_to_end(tmp_path: Path, minilm: Path) -> None:
    command = [sys.executable, "-m", "spectra_nsa", "quickstart", "--sparse", "--dir", str(tmp_path / "q"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    figures = {r["system"]: r["value"] for r in document["results"] if r["metric"] == "ndcg@10"}
    assert figures["sparse"] > figures["bm25"] and figures["inference-free"] > figures["bm25"]
    assert figures["hybrid"] > figures["all-MiniLM-L6-v2"]
    assert all(row["highest_document_frequency"] < 0.7 for row in document["sparsity"])
    facts = document["quickstart"]
    assert facts["minutes"] < max(10, facts["planned_minutes"]) + 2, "a machine that slows down half-way may need more"
