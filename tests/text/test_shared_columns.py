"""A column mapping for several sources: which it applies to, and the error if it applies to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.shared_columns import SharedColumns


def test_it_applies_to_sources_with_all_its_columns_and_the_others_are_detected(write):
    odd = write("odd.csv", "headline,story\nh,s\n")
    known = write("known.jsonl", [{"query": "q", "answer": "a", "headline": "no story here"}])
    shared = SharedColumns({"anchor": "headline", "positive": "story"})
    rows = [shared.load(path).dataset[0] for path in (odd, known)]
    assert [(row["anchor"], row["positive"]) for row in rows] == [("h", "s"), ("q", "a")]
    shared.check()


def test_options_of_the_reader_are_passed_on(write, tmp_path):
    write("set/dev.csv", "headline,story\nh,s\nbad,\n")
    write("set/train.csv", "headline,story\nx,y\n")
    shared = SharedColumns({"anchor": "headline", "positive": "story"})
    rows = shared.load(tmp_path / "set", split="dev", quarantine=tmp_path / "q")
    assert list(rows.dataset["anchor"]) == ["h"] and rows.quarantine_file is not None


def test_a_mapping_that_matches_no_source_is_refused(write):
    known = write("known.jsonl", [{"query": "q", "answer": "a"}])
    shared = SharedColumns({"anchor": "headline"})
    shared.load(known)
    with pytest.raises(SpectraError, match=r"fits no source.*known.jsonl: no column 'headline'"):
        shared.check()
    with pytest.raises(SpectraError, match="no column 'headline'"):  # not that the roles cannot be detected
        shared.load(write("odd.csv", "a,b\n1,2\n"))
    with pytest.raises(UsageError, match="none of the sources has columns"):
        SharedColumns({"text": "body"}).check()
    SharedColumns(None).check()


def test_limit_and_fixed_columns(write):
    shared = SharedColumns({"text": "body"})
    assert len(shared.load("python:stdlib", limit=3).dataset) == 3
    assert len(shared.load(write("a.csv", "body,x\n1,2\n3,4\n5,6\n"), limit=2).dataset) == 2


def test_quarantined_rows_of_all_sources_are_counted(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{broken\n{"text": "b"}\n')
    shared = SharedColumns(None)
    for _ in range(2):
        shared.load(tmp_path / "bad.jsonl")
    assert shared.quarantined == 2
