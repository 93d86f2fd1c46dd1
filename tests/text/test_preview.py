"""The figures of the preview."""

from __future__ import annotations

import json

from spectra_nsa.text.preview import lengths, preview
from spectra_nsa.text.sources import load_source


def test_lengths():
    assert lengths(["a b", "abcd"]) == {
        "characters": {"min": 3, "median": 3.5, "mean": 3.5, "p95": 3.95, "max": 4},
        "words": {"min": 1, "median": 1.5, "mean": 1.5, "p95": 1.95, "max": 2},
    }


def test_preview(write):
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": "A", "positive": "b "}, {"anchor": "a", "positive": "c"}, {}]
    found = load_source(write("a.jsonl", rows))
    facts = preview(found, rows=1, against=found)
    json.dumps(facts)
    assert (facts["rows"], facts["quarantined"], len(facts["sample"])) == (3, 1, 1)
    assert facts["duplicates"] == {"rows": 1, "columns": {"anchor": 2, "positive": 1}}
    assert facts["overlap"]["rows_affected"] == 3
    assert facts["problems"][0]["line"] == 4


def test_kinds(write):
    scored = preview(load_source(write("s.csv", "sentence1,sentence2,score\na,b,0\nc,d,1\n")))
    assert scored["scores"] == {"min": 0, "mean": 0.5, "max": 1}
    labelled = preview(load_source(write("l.csv", "text,label\na,x\nb,y\n")))
    assert (labelled["labels"], list(labelled["lengths"])) == (2, ["text"])
