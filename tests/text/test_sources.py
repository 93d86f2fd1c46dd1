"""Sources to checked tables: files, folders, Hugging Face layouts; refused rows and their reasons."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text import row_store
from spectra_nsa.text.readers import hub
from spectra_nsa.text.sources import load_source


def test_pairs_with_extra_columns(write):
    found = load_source(write("a.jsonl", [{"group": "g", "anchor": "a", "positive": "b", "n": 1, "bag": ["x"]}]))
    assert (found.name, found.kind, found.roles) == ("a", "pairs", ("anchor", "positive"))
    assert found.dataset.column_names == ["anchor", "positive", "group", "n"]
    assert "bag" in found.notes[0]


@pytest.mark.parametrize("memory", [32_000_000, 0])
def test_lists_of_numbers_stay_and_mixed_ones_do_not(write, monkeypatch, tmp_path, memory):
    monkeypatch.setattr(row_store, "IN_MEMORY", memory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = {"anchor": "a", "positive": "b", "scores": [1, 0.5], "mixed": [1, "x"], "truth": [True]}
    found = load_source(write("a.jsonl", [row, row | {"scores": [0.25]}, row | {"scores": None}]))
    assert found.dataset.column_names == ["anchor", "positive", "scores"]
    assert list(found.dataset["scores"]) == [[1.0, 0.5], [0.25], None]
    assert "mixed, truth" in found.notes[0]


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ({"anchor": "a"}, "positive", "missing"),
        ({"anchor": "a", "positive": None}, "positive", "missing"),
        ({"anchor": " \n", "positive": "b"}, "anchor", "empty"),
        ({"anchor": "\u200b\ufeff", "positive": "b"}, "anchor", "empty"),
        ({"anchor": "a", "positive": ["b", "\0"]}, "positive", "empty"),
        ({"anchor": float("nan"), "positive": "b"}, "anchor", "missing"),
        ({"anchor": 3, "positive": "b"}, "anchor", "expected text, got int"),
        ({"anchor": ["a"], "positive": "b"}, "anchor", "expected text, got a list"),
        ({"anchor": "a", "positive": [["b"]]}, "positive", "expected text, got a list"),
        ({"anchor": "a", "positive": "\ud800"}, "positive", "lone surrogate"),
    ],
)
def test_bad_fields_are_refused(write, tmp_path, row, column, reason):
    good = {"anchor": "a", "positive": "b"}
    found = load_source(write("a.jsonl", [good, row, good]), quarantine=tmp_path / "q")
    assert (len(found.dataset), found.quarantined) == (2, 1)
    problem = json.loads(found.quarantine_file.read_text())
    assert (problem["line"], problem["column"]) == (2, column)
    assert reason in problem["reason"]
    assert set(problem) == {"file", "line", "column", "reason", "raw"}
    assert found.problems[0].line == 2


def test_every_row_is_kept_or_counted(write, tmp_path):
    rows = [{"text": "x" * (i % 3)} for i in range(300)]
    found = load_source(write("a.jsonl", rows), quarantine=tmp_path / "q")
    assert (len(found.dataset), found.quarantined, len(found.problems)) == (200, 100, 5)
    assert len(found.quarantine_file.read_text().splitlines()) == 100
    write("a.jsonl", [{"text": "fixed"}])
    assert load_source(tmp_path / "a.jsonl", quarantine=tmp_path / "q").quarantine_file is None
    assert not list((tmp_path / "q").iterdir())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.tsv", "a.json"])
def test_empty_file(write, name):
    with pytest.raises(SpectraError, match=rf"{name}(: no rows| is an empty file)"):
        load_source(write(name, ""))


def test_only_bad_rows(write, tmp_path):
    path = write("a.jsonl", "{\n}\n")
    with pytest.raises(SpectraError, match=r"a\.jsonl: none of its 2 rows can be used. The first, line 1: not JSON"):
        load_source(path, quarantine=tmp_path / "q")
    assert list((tmp_path / "q").iterdir())


def test_columns_without_a_name_are_dropped_with_a_note(write):
    found = load_source(write("a.csv", ",question,answer,,\n0,q,a,,\n1,r,b,x,\n"))
    assert found.dataset.column_names == ["anchor", "positive"] and found.quarantined == 0
    assert found.notes == ("columns without a name were dropped",)
    with pytest.raises(SpectraError, match=r"Columns of the source: x, y\. "):
        load_source(write("b.csv", "x,,y,\n1,2,3,\n"))


def test_missing_columns(write):
    with pytest.raises(SpectraError, match=r"Columns of the source: x, y.*--columns"):
        load_source(write("a.csv", "x,y\n1,2\n"))
    assert load_source(write("a.csv", "x,y\n1,2\n"), columns={"anchor": "x", "positive": "y"}).kind == "pairs"


def test_scores(write):
    rows = [{"sentence1": "a", "sentence2": "b", "score": score} for score in (0, 2.5, "4", 5)]
    bad = [{"sentence1": "a", "sentence2": "b", "score": score} for score in ("high", None, float("nan"), [1])]
    found = load_source(write("a.jsonl", rows + bad))
    assert list(found.dataset["score"]) == [0, 0.5, 0.8, 1]
    assert "divided by 5" in found.notes[0]
    assert found.quarantined == 4
    cosine = load_source(write("b.jsonl", [{**rows[0], "score": -1}, {**rows[0], "score": 0.5}]))
    assert list(cosine.dataset["score"]) == [0, 0.75]
    with pytest.raises(SpectraError, match="Rescale"):
        load_source(write("c.jsonl", [{**rows[0], "score": -3}]))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0000001192, 0.31, 0.0], [1, 0.31, 0]),
        ([-1.0000001192, 0, 1.0000001192], [0, 0.5, 1]),
        ([5.0000005, 2.5, -1e-7], [1, 0.5, 0]),
        ([100.00001, 31], [1, 0.31]),
    ],
)
def test_a_score_just_beyond_the_scale_is_clipped(write, scores, expected):
    found = load_source(write("a.jsonl", [{"sentence1": "a", "sentence2": "b", "score": score} for score in scores]))
    assert list(found.dataset["score"]) == pytest.approx(expected)
    assert min(found.dataset["score"]) >= 0 and max(found.dataset["score"]) <= 1
    assert any("were clipped to it" in note for note in found.notes)


def sentence_pairs(write, labels, column="label"):
    return write("a.jsonl", [{"sentence1": "a", "sentence2": "b", column: label} for label in labels])


@pytest.mark.parametrize("columns", [None, {"sentence1": "sentence1"}])
@pytest.mark.parametrize("labels", [[0, 1, 2], ["2", "0"], [0.0, 3.0], ["entailment", "neutral", "-"], ["yes", "no"]])
def test_classes_are_not_scores(write, labels, columns):
    with pytest.raises(SpectraError, match=r"'label'.* class.*spectra data nli .*score=label"):
        load_source(sentence_pairs(write, labels), columns=columns)


def test_whole_numbers_are_scores_if_the_user_or_the_name_says_so(write):
    path = sentence_pairs(write, [0, 1, 2, 5])
    assert list(load_source(path, columns={"score": "label"}).dataset["score"]) == [0, 0.2, 0.4, 1]
    assert list(load_source(sentence_pairs(write, [0, 5, 3], "score")).dataset["score"]) == [0, 1, 0.6]
    found = load_source(sentence_pairs(write, [0, 1, 1]))
    assert list(found.dataset["score"]) == [0, 1, 1] and "read as the score" in found.notes[0]
    assert load_source(sentence_pairs(write, [0.5, 2])).notes == ("scores were divided by 5 (the largest is 2)",)


@pytest.mark.parametrize(
    ("column", "labels"), [("gold_label", [0, 2]), ("gold_label", ["x"]), ("relation", ["Contradiction", "neutral"])]
)
def test_pairs_with_classes_are_not_all_matches(write, column, labels):
    path = sentence_pairs(write, labels, column)
    with pytest.raises(SpectraError, match=rf"'{column}'.* holds classes of the pairs.*spectra data nli"):
        load_source(path)


def test_sentiments_are_no_classes_of_pairs(write):
    assert load_source(sentence_pairs(write, ["neutral", "neutral"], "sentiment")).kind == "pairs"


def test_classes_beside_chosen_pairs_are_mentioned(write):
    path = sentence_pairs(write, ["entailment", "contradiction"], "gold_label")
    found = load_source(path, columns={"anchor": "sentence1", "positive": "sentence2"})
    assert "'gold_label' (contradiction, entailment) holds classes and is not used" in found.notes[0]


@pytest.mark.parametrize(
    ("names", "refused"), [(["entailment", "not_entailment"], True), (["different", "equivalent"], False)]
)
def test_names_of_numbered_classes_decide(monkeypatch, names, refused):
    import datasets

    features = {"sentence1": datasets.Value("string"), "sentence2": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=names)
    columns = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0]}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: rows)
    if refused:
        with pytest.raises(SpectraError, match=r"'label' \(entailment, not_entailment\) holds classes"):
            load_source("org/name")
    else:
        assert list(load_source("org/name").dataset["score"]) == [1, 0]


def test_scores_of_other_types(write, tmp_path):
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [True, "false", "True", 0, "0.25"]
    found = load_source(write("a.jsonl", [{"sentence1": "a", "sentence2": "b", "score": value} for value in values]))
    assert (list(found.dataset["score"]), found.quarantined) == ([1, 0, 1, 0, 0.25], 0)
    scores = pa.array([decimal.Decimal("0.90"), decimal.Decimal("0.40")])
    pq.write_table(
        pa.table({"sentence1": ["a", "b"], "sentence2": ["c", "d"], "score": scores}), tmp_path / "a.parquet"
    )
    assert list(load_source(tmp_path / "a.parquet").dataset["score"]) == [0.9, 0.4]


def test_one_label_in_several_spellings_is_one_label(write):
    labels = [1, 1.0, "1", "1.0", True, "true", "True", "000123", "1.5", "v1.0", 1.5]
    found = load_source(write("a.jsonl", [{"text": "a", "label": label} for label in labels]))
    expected = ["1", "1", "1", "1", "true", "true", "true", "000123", "1.5", "v1.0", "1.5"]
    assert list(found.dataset["label"]) == expected


def test_labels_become_text(write):
    rows = [{"text": "a", "label": 3}, {"text": "b", "label": "x"}, {"text": "c", "label": ""}]
    found = load_source(write("a.jsonl", rows))
    assert (found.kind, list(found.dataset["label"]), found.quarantined) == ("labelled", ["3", "x"], 1)


def test_lists_of_negatives(write):
    lists = [["n1", "n2"], ["n1"], ["n1", "n2", "n3"], ["n1", "n2"], [], [["nested"]], ["n1", ""]]
    rows = [{"query": "q", "document": "d", "negatives": negatives} for negatives in lists]
    found = load_source(write("a.jsonl", rows))
    assert found.roles == ("anchor", "positive", "negative", "negative_2")
    assert list(found.dataset["negative_2"]) == ["n2", "n1", "n2", "n2"]
    assert found.quarantined == 3
    assert any("repeated to make 2" in note for note in found.notes)
    many = [{"query": "q", "document": "d", "negatives": [str(i) for i in range(20)]}]
    assert load_source(write("b.jsonl", many)).dataset.column_names[-1] == "negative_8"


def test_lists_of_positives(write):
    good = {"query": "q", "pos": ["p1", "p2"], "neg": ["n1", "n2"], "pos_scores": [0.9, 0.8]}
    bad = [good | change for change in ({"pos": []}, {"pos": ["p", " "]}, {"pos": None}, {"pos": ["p", 3]})]
    path = write("a.jsonl", [good, *bad, good | {"query": "r", "pos": ["p3"]}])
    found = load_source(path)
    assert found.kind == "triplets" and found.roles == ("anchor", "positive", "negative", "negative_2")
    rows = [(row["anchor"], row["positive"], row["negative_2"]) for row in found.dataset]
    assert rows == [("q", "p1", "n2"), ("q", "p2", "n2"), ("r", "p3", "n2")]
    assert list(found.dataset["pos_scores"]) == [[0.9, 0.8]] * 3
    assert [(problem.line, problem.column, problem.reason) for problem in found.problems] == [
        (2, "pos", "an empty list"), (3, "pos", "empty"), (4, "pos", "missing"), (5, "pos", "expected text, got int")
    ]  # fmt: skip
    assert "1 row with several positives; each positive became a row, 3 in total" in found.notes
    assert list(load_source(path, limit=1).dataset["positive"]) == ["p1"]
    pairs = load_source(write("b.jsonl", [{"q": "q", "p": ["1", "2"]}]), columns={"anchor": "q", "positive": "p"})
    assert pairs.kind == "pairs" and list(pairs.dataset["positive"]) == ["1", "2"]


def test_lists_of_positives_that_do_not_fit_in_memory(write, monkeypatch, tmp_path):
    monkeypatch.setattr("spectra_nsa.text.row_store.IN_MEMORY", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write("a.jsonl", [{"query": f"q{i}", "pos": ["p1", "p2"], "neg": ["n"]} for i in range(3)])
    for _ in range(2):  # read, then memory-mapped
        found = load_source(path)
        assert list(found.dataset["anchor"]) == ["q0", "q0", "q1", "q1", "q2", "q2"] and found.digest
        assert any("6 in total" in note for note in found.notes)


def test_passages_have_a_title_and_a_text(write):
    def row(positive: object, negative: object) -> dict[str, object]:
        return {"query_id": "7", "query": "q", "positive_passages": positive, "negative_passages": negative}

    titled, untitled = (
        {"docid": "1", "title": "Lenses", "text": "are clear"},
        {"docid": "2", "title": "", "text": "no title"},
    )
    rows = [
        row([titled, untitled], [untitled, titled]),
        row([{"docid": "3"}], [titled]),
        row([titled], [untitled | {"text": 5}]),
    ]
    found = load_source(write("a.jsonl", rows))
    assert list(found.dataset["positive"]) == ["Lenses are clear", "no title"]
    assert list(found.dataset["negative_2"]) == ["Lenses are clear"] * 2
    assert [(problem.line, problem.column, problem.reason) for problem in found.problems] == [
        (2, "positive_passages", "'text' of a passage: empty"),
        (3, "negative_passages", "'text' of a passage: expected text, got int"),
    ]


def test_limit_counts_good_rows(write):
    rows = [{"text": ""}, {"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert list(load_source(write("a.jsonl", rows), limit=2).dataset["text"]) == ["a", "b"]
    with pytest.raises(UsageError):
        load_source("a.jsonl", limit=0)


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"query": ["a", None], "document": ["b", "c"]}), tmp_path / "a.parquet")
    found = load_source(tmp_path / "a.parquet")
    assert (found.kind, len(found.dataset), found.problems[0].line) == ("pairs", 1, 2)


def test_folder_of_splits(write, tmp_path):
    for name in ("train.jsonl.gz", "dev.jsonl", "test.csv"):
        write(f"set/{name}", "text\ntest\n" if name == "test.csv" else [{"text": name}])
    assert list(load_source(tmp_path / "set").dataset["text"]) == ["train.jsonl.gz"]
    assert "not read: dev.jsonl, test.csv" in load_source(tmp_path / "set").notes[0]
    assert list(load_source(tmp_path / "set", split="test").dataset["text"]) == ["test"]
    with pytest.raises(SpectraError, match=r"no split 'val'. Available: dev, test, train"):
        load_source(tmp_path / "set", split="val")


def test_folder_of_parts(write, tmp_path):
    write("set/b.jsonl", [{"text": "b"}])
    write("set/a.jsonl", [{"text": "a"}, {"text": ""}])
    found = load_source(tmp_path / "set")
    assert list(found.dataset["text"]) == ["a", "b"]
    assert found.problems[0].file.endswith("a.jsonl")


UNRELATED = {
    "a-settings.json": json.dumps({"lr": 1e-4, "nested": [{"x": 1}, {}]}, indent=1),
    "b-results.json": json.dumps([{"metric": "mrr", "value": 0.5}]),
    "c-metrics.jsonl": [{"step": 1, "loss": 0.5}],
    "d-numbers.json": json.dumps([1, 2, 3], indent=1),
    "e-texts.csv": "text\na\n",
}


@pytest.mark.parametrize("columns", [None, {"anchor": "query", "positive": "document"}])
def test_unrelated_files_in_a_folder_are_skipped_with_a_reason(write, tmp_path, columns):
    for number in (1, 2):
        write(f"set/p{number}.jsonl", [{"query": f"q{number}{i}", "document": "d" * 9, "more": 1} for i in range(20)])
    for name, content in UNRELATED.items():
        write(f"set/{name}", content)
    for _ in range(2):  # read, then loaded from the cache
        found = load_source(tmp_path / "set", columns=columns)
        assert (found.kind, len(found.dataset), found.quarantined) == ("pairs", 40, len(UNRELATED))
        assert [(Path(problem.file).name, problem.line) for problem in found.problems] == [
            (name, 0) for name in UNRELATED
        ]
        reasons = [problem.reason for problem in found.problems]
        assert "has no rows" in reasons[0] and "no column 'query'" in reasons[1] and "has no rows" in reasons[3]
        assert all("pass this file as the source" in reason for reason in reasons)


def test_a_folder_of_unrelated_files_reports_the_first(write, tmp_path):
    for name, content in UNRELATED.items():
        if not name.startswith("e"):
            write(f"set/{name}", content)
    with pytest.raises(SpectraError, match=r"set: cannot detect the roles of the columns.*metric"):
        load_source(tmp_path / "set")


def test_broken_rows_of_one_file_stay_broken_rows(write, tmp_path):
    write("set/a.jsonl", "not json\nnor this\n")
    write("set/b.jsonl", [{"text": "b"}, {"text": ""}])
    found = load_source(tmp_path / "set")
    assert [(Path(problem.file).name, problem.line) for problem in found.problems] == [
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("b.jsonl", 2),
    ]
    write("set/c.json", '[{"text": "c"},')
    with pytest.raises(SpectraError, match=r"c\.json: not JSON"):
        load_source(tmp_path / "set")


def test_beir_folder_is_its_corpus(write, tmp_path):
    write("b/corpus.jsonl", [{"_id": "1", "title": "T", "text": "x"}, {"_id": "2", "title": "", "text": ""}])
    found = load_source(tmp_path / "b")
    assert (list(found.dataset["text"]), found.quarantined) == (["T x"], 1)


@pytest.mark.parametrize("source", ["nothing.jsonl", "data/nothing.csv", "pyhton:stdlib", "/no/such/folder"])
def test_a_source_that_does_not_exist(source):
    with pytest.raises(SpectraError, match="does not exist"):
        load_source(source)


def hub_folder(write, tmp_path, files):
    """Writes a folder laid out like a Hugging Face dataset, with one configuration per file."""
    configs = "".join(
        f"- config_name: {name.split('.')[0]}\n  data_files:\n  - split: train\n    path: {name}\n" for name in files
    )
    write("hub/README.md", f"---\nconfigs:\n{configs}---\n# A set\n")
    for name, rows in files.items():
        write(f"hub/{name}", rows)
    return tmp_path / "hub"


def test_hugging_face_layouts(write, tmp_path):
    scored = [{"sentence1": "a", "sentence2": "b", "score": 0.5}]
    cornstack = [{"query": "q", "document": "d", "negatives": ["n", "m"], "negative_scores": ["0.1", "0.2"]}]
    folder = hub_folder(
        write, tmp_path,
        {
            "triplet-hard.jsonl": [{"query": "q", "positive": "p", "negative": "n"}] * 3,
            "triplet.jsonl": [{"anchor": "q", "positive": "p", "negative": "n"}],
            "stsb.jsonl": scored,
            "cornstack.jsonl": cornstack,
        },
    )  # fmt: skip
    found = load_source(f"{folder}:triplet-hard:train", limit=2)
    assert (found.kind, found.name, len(found.dataset)) == ("triplets", "hub:triplet-hard", 2)
    assert load_source(f"{folder}:triplet").roles == ("anchor", "positive", "negative")
    assert load_source(f"{folder}:stsb").kind == "scored"
    assert load_source(f"{folder}:cornstack").roles[-1] == "negative_2"
    with pytest.raises(SpectraError, match=r"datasets\.load_dataset"):
        load_source(f"{folder}:nothing")
    with pytest.raises(UsageError, match="Give only one"):
        load_source(f"{folder}:triplet:train", split="test")


def test_hub_names():
    assert hub.parse("org/name") == hub.HubName(path="org/name")
    assert hub.parse("org/name:config:test") == hub.HubName(path="org/name", config="config", split="test")
    assert hub.parse("org/name::test") == hub.HubName(path="org/name", split="test")
    assert hub.parse("just-a-name") is None


def test_offline(monkeypatch):
    import datasets

    def no_network(*args, **options):
        raise ConnectionError("no route to the host")

    monkeypatch.setattr(datasets, "get_dataset_split_names", no_network)
    with pytest.raises(SpectraError, match=r"^org/name is neither a file .* Hub's cache.*local file"):
        load_source("org/name")


def test_numbered_labels_get_their_names(monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["test", "train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: rows)
    found = load_source("org/name")
    assert (list(found.dataset["label"]), found.notes) == (["yes", "no"], ("split train",))
    assert found.problems[0].reason == "no label (-1)"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kind", "rows"), [("stsb", "scored", 5749), ("medquad", "pairs", 16359), ("clinc150", "labelled", 15000)]
)
def test_public_datasets(shared_data, name, kind, rows):
    found = load_source(shared_data / name)
    assert (found.kind, len(found.dataset), found.quarantined) == (kind, rows, 0)


def test_a_plain_text_file_has_one_text_per_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"first line\n\n  " + "zwölf".encode() + b" \nbad \xff\nlast")
    found = load_source(path, quarantine=tmp_path / "refused")
    assert found.kind == "texts" and found.dataset["text"][:] == ["first line", "zwölf", "last"]
    assert [(problem.line, "UTF-8" in problem.reason) for problem in found.problems] == [(4, True)]
    assert found.quarantine_file is not None and found.quarantine_file.is_file()
    with gzip.open(tmp_path / "page.md.gz", "wt", encoding="utf-8") as file:
        file.write("# Head\nbody\n")
    assert load_source(tmp_path / "page.md.gz").dataset["text"][:] == ["# Head", "body"]
    with pytest.raises(SpectraError, match="does not exist"):
        load_source(tmp_path / "absent.txt")


def test_the_readme_of_a_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"anchor": "a", "positive": "b"}\n')
    (tmp_path / "README.md").write_text("What this is\n")
    assert load_source(tmp_path).kind == "pairs"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", r"a\.csv is an empty file\.$"),
        ("a.jsonl", "", r"a\.jsonl is an empty file\.$"),
        ("a.csv", "anchor,positive\n", r"a\.csv has no rows: it holds a header line at most\.$"),
        ("a.jsonl", "\n", r"a\.jsonl: no rows\. Expected one JSON object per line"),
    ],
)
def test_files_without_rows_say_what_they_hold(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(SpectraError, match=message):
        load_source(tmp_path / name)


def test_a_missing_source_names_its_neighbors(tmp_path, monkeypatch):
    (tmp_path / "pairs.csv").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpectraError, match=r"^gone\.csv does not exist\. The current folder contains: pairs\.csv\. "):
        load_source("gone.csv")


def test_a_mapped_column_that_is_missing_offers_the_nearest(write):
    path = write("a.jsonl", [{"headline": "a", "story": "b"}])
    with pytest.raises(SpectraError, match=r"Did you mean anchor=headline\? Columns of the source: headline, story\.$"):
        load_source(path, columns={"anchor": "headlin", "positive": "story"})


def test_a_missing_file_offers_the_nearest_name_or_a_few(tmp_path):
    for name in ("faq.csv", *(f"report-{i}.pdf" for i in range(7))):
        (tmp_path / name).write_text("")
    with pytest.raises(SpectraError, match=r"Did you mean .*faq\.csv\?"):
        load_source(tmp_path / "fag.csv")
    with pytest.raises(SpectraError, match=r"contains: faq\.csv, report-0\.pdf.*, …\."):
        load_source(tmp_path / "zzzzzzzz.jsonl")
