"""The quality of each output equals that of encoding for this output alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.workflows.quickstart.outputs import AllOutputs, measure_outputs, outputs_grid
from tests.builders import WORDS, bert_folder


def test_each_output_is_measured(tmp_path: Path) -> None:
    model = warm_start(bert_folder(tmp_path)).eval()
    sizes = model.spectra.config.semantic_dims or []
    generator = np.random.default_rng(0)
    anchors = [" ".join(generator.choice(WORDS, 4)) + f" {WORDS[at % len(WORDS)]}" for at in range(120)]
    positives = [" ".join(generator.permutation(anchor.split())[:3]) for anchor in anchors]
    task = PairsTask("here", anchors, positives)
    system = AllOutputs("all", model)
    full = {r.metric: r.value for r in task.run(system).results}
    rows = {row["output"]: row for row in measure_outputs(system, task, sizes)}
    assert rows["embedding"]["ndcg@10"] == pytest.approx(full["ndcg@10"])
    short = {r.metric: r.value for r in task.run(DenseSystem("short", model, dim=sizes[-1])).results}
    assert rows[f"embedding, first {sizes[-1]}"]["ndcg@10"] == pytest.approx(short["ndcg@10"], abs=1e-3)
    assert [rows[name]["bytes"] for name in ("embedding", "anchor64", "fast, 64 bits, Hamming")] == [
        4 * sizes[0],
        256,
        8,
    ]
    code, two_stages = rows["fast, 64 bits, float query"], rows["fast, 64 bits, then embedding for 100"]
    assert (
        two_stages["ndcg@10"] == pytest.approx(full["ndcg@10"], abs=0.02) and two_stages["ndcg@10"] >= code["ndcg@10"]
    )
    random = np.log2(2) / len(set(positives)) * 10
    assert all(row["ndcg@10"] > random for row in rows.values())
    header, shown = outputs_grid(list(rows.values()))
    assert len(header) == 3 and len(shown) == len(rows) == len(sizes) + 7
