from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from spectra_nsa.core.results import Result
from spectra_nsa.report.html import Report

from .test_examples import system

RESULT = Result(task="sts", name="dev", system="<ours>", metric="spearman", value=0.867, ci=(0.85, 0.88), n=1500)
DIFFERENCE = {"task": "sts", "name": "dev", "system": "<ours>", "baseline": "b", "metric": "spearman"}


class OpenTags(HTMLParser):
    """Collects the tags that are open, and checks that each closing tag matches."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full() -> Report:
    rng = np.random.default_rng(0)
    rows = [{"step": at, "loss": 1 / (1 + at), "lr": 1e-5, "note": "text"} for at in range(30)]
    return (
        Report("A <b>title</b>", lead="Lead.")
        .add_facts({"nDCG@10": 0.6712, "time": "9 min", "<k>": "<v>"})
        .add_table([RESULT], differences=[{**DIFFERENCE, "value": 0.02, "ci": [0.01, 0.03]}])
        .add_curve(rows)
        .add_histogram({"positive": rng.random(500), "negative": rng.random(500)}, caption="ours")
        .add_examples({"ours": system(1, None), "bm25": system(3, 2)})
        .add_text("A note & more.", title="Notes")
        .add_settings({"recipe": {"lr": 1e-4, "tag": "<script>"}, "size": "M456"}, title="Configuration")
    )


def test_page_is_complete_escaped_and_self_contained() -> None:
    page = full().render()
    parser = OpenTags()
    parser.feed(page)
    assert parser.open == []
    assert "A &lt;b&gt;title" in page and "&lt;ours&gt;" in page and "&lt;v&gt;" in page
    assert "<script" not in page and not re.search(r"(src|href)=|url\(|https?://(?!www\.w3)", page)
    assert page.count("<svg") == 3  # loss, lr, cosines
    assert "0.671" in page and "0.850–0.880" in page and "+0.020" in page and 'class="up"' in page
    assert "not in the top 100" in page and "rank 3" in page


def test_empty_sections_leave_no_trace() -> None:
    page = (
        Report("Bare")
        .add_table([])
        .add_curve([])
        .add_histogram({})
        .add_examples({})
        .add_settings({}, title="x")
        .render()
    )
    assert "<h2" not in page and "<details" not in page


def test_long_texts_are_truncated() -> None:
    class Long:
        query, rank, wanted, retrieved = "q", None, ["x" * 5000], ()

    page = Report("t").add_examples({"a": [Long()]}).render()
    assert "x" * 700 + " …" in page and "x" * 701 not in page


def test_several_relevant_documents_and_a_repeated_text() -> None:
    class Document:
        text, score, relevant = "second answer", 0.5, True

    class Two:
        query, rank, wanted, retrieved = "q", 1, ["first answer", "second answer"], (Document(),)

    page = Report("t").add_examples({"a": [Two()]}).render()
    assert "expected (1 of 2)" in page and "first answer" in page and "second answer" in page
    Two.wanted = ["second answer"]
    assert "(the expected text)" in Report("t").add_examples({"a": [Two()]}).render()


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = full().write(tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 100_000


@pytest.mark.parametrize("values", [[0.5, 0.5], [float("nan")]])
def test_histograms_of_equal_and_of_nan_values(values: list[float]) -> None:
    Report("t").add_histogram({"a": values}).render()


def test_a_single_point_is_drawn_only_on_request() -> None:
    charts = {"quality": {"a": [(4.0, 0.5), (8.0, 0.6)], "b": [(6.0, 0.7)]}}
    assert Report("R").add_lines(charts, title="T").render().count("<circle") == 2
    page = Report("R").add_lines(charts, title="T", x_label="bytes", log_x=True, single_points=True).render()
    assert page.count("<circle") == 3 and ">bytes<" in page
