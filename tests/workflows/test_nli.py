"""Triplets from natural language inference."""

from __future__ import annotations

import json

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.sources import load_source
from spectra_nsa.workflows.nli import nli_triplets

ROWS = [
    ("A dog runs.", "An animal moves.", 0),
    ("A dog runs.", "A dog is outside.", 1),
    ("A dog runs.", "A dog sleeps.", 2),
    ("a dog  runs.", "A dog is running.", 0),
    ("A cat eats.", "A cat is hungry.", 0),
    ("A man sings.", "A man is silent.", 2),
    ("A dog runs.", "Nobody knows.", 0),
    ("A dog runs.", "nobody  knows.", 2),
    ("A dog runs.", "No label", -1),
]


def rows(names=("sentence1", "sentence2", "gold_label"), classes=None):
    return [
        dict(zip(names, (first, second, label if classes is None else classes.get(label, "-")), strict=True))
        for first, second, label in ROWS
    ]


@pytest.mark.parametrize("classes", [None, {0: "Entailment", 1: "neutral", 2: "contradiction"}])
@pytest.mark.parametrize("names", [("sentence1", "sentence2", "gold_label"), ("premise", "hypothesis", "label")])
def test_an_entailed_sentence_gets_a_contradiction_of_its_premise(write, tmp_path, names, classes):
    facts = nli_triplets(write("nli.jsonl", rows(names, classes)), tmp_path / "triplets.jsonl")
    found = load_source(tmp_path / "triplets.jsonl")
    assert found.kind == "triplets"
    assert [tuple(row.values()) for row in found.dataset] == [
        ("A dog runs.", "An animal moves.", "A dog sleeps."),
        ("A dog runs.", "A dog is running.", "A dog sleeps."),
    ]
    assert (facts["rows"], facts["triplets"], facts["premises"], facts["premises_left_out"]) == (9, 2, 3, 2)
    assert facts["example"] == found.dataset[0]


def test_columns_and_classes_can_be_named(write, tmp_path):
    path = write("nli.jsonl", rows(("p", "h", "c"), {0: "E", 1: "N", 2: "C"}))
    columns = {"sentence1": "p", "sentence2": "h", "label": "c"}
    with pytest.raises(SpectraError, match=r"no class entailment or 0. Its classes: -, c, e, n. .*--entailment"):
        nli_triplets(path, tmp_path / "t.jsonl", columns=columns)
    facts = nli_triplets(path, tmp_path / "t.jsonl", columns=columns, entailment="E", contradiction="C")
    assert facts["triplets"] == 2 and len((tmp_path / "t.jsonl").read_text().splitlines()) == 2


def test_the_names_of_numbered_classes_count(tmp_path, monkeypatch):
    import datasets

    names = ["contradiction", "neutral", "entailment"]
    features = datasets.Features(dict.fromkeys(("premise", "hypothesis"), datasets.Value("string")))
    features["label"] = datasets.ClassLabel(names=names)
    table = [{"premise": p, "hypothesis": h, "label": label if label < 0 else 2 - label} for p, h, label in ROWS]
    found = datasets.Dataset.from_list(table, features=features)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: found)
    facts = nli_triplets("org/nli", tmp_path / "t.jsonl")
    assert facts["example"] == {"anchor": "A dog runs.", "positive": "An animal moves.", "negative": "A dog sleeps."}
    assert (facts["entailment"], facts["contradiction"], facts["assumed"]) == ("entailment", "contradiction", False)


def test_what_is_refused(write, tmp_path):
    path = write("nli.jsonl", rows())
    with pytest.raises(UsageError, match=r"must end in \.jsonl"):
        nli_triplets(path, tmp_path / "t.csv")
    with pytest.raises(UsageError, match="'anchor' is none of label, sentence1, sentence2"):
        nli_triplets(path, tmp_path / "t.jsonl", columns={"anchor": "sentence1"})
    with pytest.raises(SpectraError, match="cannot find premise, hypothesis and class"):
        nli_triplets(write("a.jsonl", [{"a": "x", "b": "y"}]), tmp_path / "t.jsonl")
    with pytest.raises(SpectraError, match="no premise has both"):
        nli_triplets(write("b.jsonl", rows()[4:6]), tmp_path / "t.jsonl")
    assert not (tmp_path / "t.jsonl").exists()


def test_the_command(write, tmp_path, run_spectra):
    write("nli.jsonl", rows())
    shown = run_spectra("data", "nli", "nli.jsonl", "--output", "t.jsonl", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "2 triplets from 9 rows" in shown.stdout
    assert "entailment '0', contradiction '2', assumed because the dataset does not name its classes" in shown.stdout
    printed = run_spectra("data", "nli", "nli.jsonl", "--output", "t.jsonl", "--json", cwd=tmp_path)
    assert json.loads(printed.stdout)["triplets"] == 2
