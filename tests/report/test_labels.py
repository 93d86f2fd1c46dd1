from __future__ import annotations

import re

import numpy as np
import pytest

from spectra_nsa.metrics.health import embedding_health
from spectra_nsa.models.size import inspect_model, spec_of
from spectra_nsa.report.compare import differing
from spectra_nsa.report.labels import label


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("loss", "loss"),
        ("eval_dev_ndcg@10", "dev_ndcg@10"),
        ("grad_norm", "gradient norm"),
        ("grad_norm_anchor", "anchor"),
        ("health_rank", "effective rank"),
        ("health_attention_entropy_3", "attention entropy 3"),
        ("anomaly", "anomaly"),
        ("shape.anomaly", "anomaly score fitted"),
        ("parts.hash bridge", "binary code head"),
    ],
)
def test_labels(key: str, expected: str) -> None:
    assert label(key) == expected


def test_no_label_of_a_measure_or_a_size_is_an_identifier() -> None:
    rows = np.eye(4, dtype=np.float32)
    keys = [f"health_{name}" for name in embedding_health(rows, rows)]
    keys += differing(inspect_model(spec_of("mini")), inspect_model(spec_of("M456")))
    assert not [label(key) for key in keys if re.search(r"_|\.", label(key)) and not key.startswith("how")]
