"""The roles of columns."""

from __future__ import annotations

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.columns import find_layout, parse_columns


def roles(available, columns=None):
    layout = find_layout(available, columns, source="here.csv")
    return layout.kind, layout.columns


@pytest.mark.parametrize(
    ("available", "kind", "columns"),
    [
        (["query", "positive", "negative"], "triplets", ["query", "positive", "negative"]),
        (["anchor", "positive"], "pairs", ["anchor", "positive"]),
        (["Question", "Answer"], "pairs", ["Question", "Answer"]),
        (["sentence1", "sentence2", "score"], "scored", ["sentence1", "sentence2", "score"]),
        (["sentence1", "sentence2", "label"], "scored", ["sentence1", "sentence2", "label"]),
        (["sentence1", "sentence2"], "pairs", ["sentence1", "sentence2"]),
        (["query", "document", "negatives", "negative_scores"], "triplets", ["query", "document", "negatives"]),
        (["query", "answer", "negative_2", "negative_1"], "triplets", ["query", "answer", "negative_1", "negative_2"]),
        (["text", "label", "score"], "labelled", ["text", "label"]),
        (["query", "pos", "negs"], "triplets", ["query", "pos", "negs"]),
        (["_id", "title", "text"], "texts", ["text"]),
        (["title", "body"], "pairs", ["title", "body"]),
        (["query", "pos", "neg", "pos_scores", "neg_scores", "prompt"], "triplets", ["query", "pos", "neg"]),
        (
            ["query_id", "query", "positive_passages", "negative_passages"],
            "triplets",
            ["query", "positive_passages", "negative_passages"],
        ),
    ],
)
def test_names_of_public_datasets(available, kind, columns):
    detected_kind, detected = roles(available)
    assert (detected_kind, list(detected.values())) == (kind, columns)


def test_a_mapping_takes_precedence_over_known_names():
    assert roles(["anchor", "positive", "t", "b"], {"anchor": "t", "positive": "b"})[1] == {
        "anchor": "t",
        "positive": "b",
    }
    assert roles(["q", "answer"], {"anchor": "q"}) == ("pairs", {"anchor": "q", "positive": "answer"})
    assert roles(["q", "d", "s"], {"anchor": "q", "positive": "d", "score": "s"})[0] == "scored"
    assert roles(["body", "class"], {"text": "body"}) == ("texts", {"text": "body"})
    scored = {"sentence1": "Text_A", "sentence2": "Text_B", "score": "label"}
    assert roles(["Text_A", "Text_B", "label"], {"score": "label"}) == ("scored", scored)
    assert roles(["q", "a", "n"], {"anchor": "q", "positive": "a", "negative": "n"})[0] == "triplets"


@pytest.mark.parametrize("name", ["score", "scores", "label", "labels", "Score", "document_score", "negative_scores"])
@pytest.mark.parametrize(
    "texts",
    [
        ["query", "document"],
        ["query", "document", "negatives"],
        ["query", "document", "negative_0", "negative_1"],
        ["sentence1", "sentence2"],
        ["text"],
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_columns_of_scores_and_labels_are_never_texts(texts, name, first):
    """sentence-transformers takes the first such column for the label, and every other one for a text."""
    available = [name, *texts] if first else [*texts, name]
    columns = roles(available)[1]
    taken = [role for role, column in columns.items() if column == name]
    assert set(taken) <= {"score", "label"}
    assert [column for role, column in columns.items() if role not in ("score", "label")] == texts


def test_scores_of_sentence_pairs_are_read():
    assert roles(["sentence1", "sentence2", "scores"])[0] == "scored"


def test_an_unused_score_is_mentioned():
    layout = find_layout(["question", "answer", "label"], None, source="x")
    assert layout.kind == "pairs" and "'label' is kept but not used" in layout.notes[0]


def test_errors_name_the_columns_and_the_remedy():
    with pytest.raises(
        SpectraError,
        match=r"here.csv: cannot detect the roles of the columns. Columns of the source: a, b.*--columns anchor=a",
    ):
        roles(["a", "b"])
    with pytest.raises(SpectraError, match="--columns 'anchor=Head Line,positive=Story, full'"):
        roles(["Head Line", "Story, full"])
    for names in (["query_id", "a", "docid", "b"], ["_id", "a", "b"]):
        with pytest.raises(SpectraError, match="--columns anchor=a,positive=b"):
            roles(names)
    with pytest.raises(SpectraError, match="--columns anchor=id,positive=body"):
        roles(["id"])
    with pytest.raises(SpectraError, match="no column 'x' \\(mapped to anchor\\)"):
        roles(["a", "b"], {"anchor": "x"})
    with pytest.raises(SpectraError, match="use ';' as its separator"):
        roles(["a;b"])
    with pytest.raises(SpectraError, match=r"spectra data nli here.csv --output"):
        roles(["premise", "hypothesis", "label"])
    with pytest.raises(UsageError, match="Did you mean 'anchor'"):
        roles(["a"], {"ancor": "a"})
    with pytest.raises(UsageError, match="cannot be combined"):
        roles(["a", "b", "c"], {"anchor": "a", "positive": "b", "label": "c"})


def test_parse_columns():
    assert parse_columns("anchor=title, positive=body") == {"anchor": "title", "positive": "body"}
    assert parse_columns("anchor=Head Line, positive=Story, full,") == {
        "anchor": "Head Line",
        "positive": "Story, full",
    }
    for text in ("anchor", "anchor=", "anchor=a,anchor=b", "nonsense=a"):
        with pytest.raises(UsageError):
            parse_columns(text)
