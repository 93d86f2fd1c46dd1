"""The dev metric."""

from __future__ import annotations

from datasets import Dataset

from spectra_nsa.training.monitor.dev_metric import DevEvaluator


def test_spellings_of_a_text_are_one_document() -> None:
    pairs = [("a", "Right"), ("A ", "right"), ("b", "wrong")]
    dev = Dataset.from_list([{"anchor": anchor, "positive": positive} for anchor, positive in pairs])
    found = DevEvaluator(dev, "pairs", "fp32").inner
    assert (found.queries, found.corpus) == (["a", "b"], ["Right", "wrong"])
    assert found.relevant_docs == {"q0": {"d0"}, "q1": {"d1"}}
