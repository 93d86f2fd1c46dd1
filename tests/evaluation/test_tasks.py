from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.knn import KNNTask
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.sources import source_name
from spectra_nsa.evaluation.statistics import StatisticsTask
from spectra_nsa.evaluation.sts import STSTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.text.rows import RetrievalSet

from .words import WordModel

WORDS = ["apple", "river", "stone", "cloud", "train", "music", "paper", "glass", "horse", "light", "sugar", "wheel"]
SETS = RetrievalSet(
    name="toy",
    corpus={"d1": "apple river", "d2": "stone cloud", "d3": "train music"},
    queries={"q1": "apple", "q2": "cloud stone", "q3": "unjudged"},
    qrels={"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 1}},
)


def values(outcome: TaskOutcome) -> dict[str, float]:
    return {result.metric: result.value for result in outcome.results}


def test_sts_agrees_with_scipy(dense: DenseSystem) -> None:
    rng = np.random.default_rng(0)
    first = [" ".join(rng.choice(WORDS, 3)) for _ in range(40)]
    second = [" ".join(rng.choice(WORDS, 3)) for _ in range(40)]
    scores = rng.random(40)
    outcome = STSTask("toy", first, second, list(scores)).run(dense)
    cosine = (dense.encode_queries(first) * dense.encode_queries(second)).sum(axis=1)
    assert values(outcome)["spearman"] == pytest.approx(stats.spearmanr(cosine, scores).statistic, abs=1e-3)
    assert values(outcome)["pearson"] == pytest.approx(stats.pearsonr(cosine, scores).statistic, abs=1e-5)
    for result in outcome.results:
        assert result.ci is not None and result.ci[0] < result.value < result.ci[1] and result.n == 40


def test_sts_with_equal_scores_gives_a_note_instead_of_nan(dense: DenseSystem) -> None:
    task = STSTask("flat", ["a", "b"], ["c", "d"], [1.0, 1.0])
    outcome = task.run(dense)
    assert outcome.results == [] and "undefined" in outcome.notes[0]
    assert task.compare(outcome, outcome) == {}


@pytest.mark.parametrize("system", ["dense", "bm25"])
def test_retrieval_metrics_and_documents(system: str, dense: DenseSystem) -> None:
    outcome = RetrievalTask(SETS).run(dense if system == "dense" else BM25System())
    got = values(outcome)
    assert got["recall@1"] == 0.5 and outcome.results[0].n == 2
    assert [query.id for query in outcome.queries] == ["q1", "q2"]
    first, second = outcome.queries
    assert first.rank == 1 and first.retrieved[0].relevant and first.wanted == ["apple river"]
    assert second.retrieved[0].id == "d2" and not second.retrieved[0].relevant
    assert second.rank == (None if system == "bm25" else second.rank)
    expected = (1 + (1 / second.rank if second.rank else 0)) / 2
    assert got["mrr"] == pytest.approx(expected)


@pytest.mark.parametrize("system", ["dense", "bm25"])
def test_a_query_that_is_a_document_does_not_retrieve_itself(system: str, dense: DenseSystem) -> None:
    zoo = "Zoos should be closed because animals suffer in cages."
    corpus = {
        "arg-1": f"Zoos {zoo}",
        "arg-2": "Zoos should stay open because they save species from dying out.",
        "arg-3": "The price of copper fell for the third week.",
    }
    queries, qrels = {"arg-1": zoo, "arg-3": "Zoos"}, {"arg-1": {"arg-2": 1}, "arg-3": {"arg-2": 1}}
    task = RetrievalTask(RetrievalSet(name="args", corpus=corpus, queries=queries, qrels=qrels))
    assert task.notes == ["args: 1 query found among the documents, each left out of its own ranking"]
    outcome = task.run(dense if system == "dense" else BM25System())
    assert outcome.per_unit["ndcg@10"][0] == 1
    assert "arg-1" not in [hit.id for hit in outcome.queries[0].retrieved]
    assert "arg-1" in [hit.id for hit in outcome.queries[1].retrieved]  # only its own query leaves it out


def test_a_judged_query_retrieves_itself() -> None:
    same = RetrievalSet(name="x", corpus={"a": "apple", "b": "river"}, queries={"a": "apple"}, qrels={"a": {"a": 1}})
    assert RetrievalTask(same).notes == []


def test_a_constant_system_gets_the_figure_of_chance_and_a_note() -> None:
    model = WordModel()
    model._row = lambda text: np.ones(64)  # type: ignore[method-assign]
    for ids in ("abcde", "edcba"):
        corpus = {name: f"text {at}" for at, name in enumerate(ids)}
        data = RetrievalSet(name="five", corpus=corpus, queries={"q": "x"}, qrels={"q": {ids[0]: 1}})
        outcome = RetrievalTask(data).run(DenseSystem("constant", model))
        assert values(outcome)["mrr"] == pytest.approx(sum(1 / rank for rank in range(1, 6)) / 5)
        assert "constant: in 1 of 1 query" in outcome.notes[0]


@pytest.mark.parametrize("kind", ["retrieval", "pairs", "knn", "sts", "statistics"])
def test_vectors_that_are_not_finite_give_no_figure(kind: str) -> None:
    model = WordModel()
    row = model._row
    model._row = lambda text: row(text) * (np.nan if text == "apple" else 1)  # type: ignore[method-assign]
    labeled = (["apple", "river"], ["x", "y"])
    task = {
        "retrieval": lambda: RetrievalTask(SETS),
        "pairs": lambda: PairsTask("p", ["apple", "river"], ["stone", "cloud"]),
        "knn": lambda: KNNTask("k", labeled, labeled),
        "sts": lambda: STSTask("s", ["apple", "river"], ["stone", "cloud"], [0.1, 0.9]),
        "statistics": lambda: StatisticsTask("t", ["apple", "river"]),
    }[kind]()
    with pytest.raises(SpectraError, match=r"broken: 1 of \d vectors hold NaN or infinity"):
        task.run(DenseSystem("broken", model))


def test_documents_are_encoded_once(dense: DenseSystem) -> None:
    RetrievalTask(SETS).run(dense)
    assert len(dense.model.encoded) == len(set(dense.model.encoded)) == 5


def test_retrieval_without_judgments_is_refused() -> None:
    with pytest.raises(SpectraError, match="no relevant document"):
        RetrievalTask(RetrievalSet(name="x", corpus={"d": "a"}, queries={"q": "b"}, qrels={"q": {"d": 0}}))


def test_pairs_with_repeated_anchors_and_positives(dense: DenseSystem) -> None:
    anchors = ["apple river", "apple river", "stone", "glass horse"]
    positives = ["apple", "river", "stone cloud", "horse glass"]
    task = PairsTask("toy", anchors, positives)
    outcome = task.run(dense)
    got = values(outcome)
    assert got["recall@5"] == 1 and got["pair_accuracy"] == 1
    assert got["map"] == 1  # both positives of the first anchor rank first
    cosines = outcome.distributions
    labels = [1] * len(cosines["positive_cosine"]) + [0] * len(cosines["negative_cosine"])
    joined = np.concatenate([cosines["positive_cosine"], cosines["negative_cosine"]])
    assert got["auroc"] == pytest.approx(roc_auc_score(labels, joined))
    (auroc,) = (result for result in outcome.results if result.metric == "auroc")
    assert auroc.ci is not None and auroc.ci[0] <= auroc.value <= auroc.ci[1]
    assert task.compare(outcome, outcome)["auroc"].ci == (0, 0)
    lexical = values(PairsTask("toy", anchors, positives).run(BM25System()))
    assert "auroc" not in lexical and lexical["recall@10"] == 1


def test_spellings_of_a_positive_or_an_anchor_are_one_text() -> None:
    anchors, positives = ["red cat", "Red  cat", "blue bird"], ["a red cat", "A red Cat", "a blue bird"]
    task = PairsTask("spellings", anchors, positives)
    outcome = task.run(BM25System())
    assert [len(query.wanted) for query in outcome.queries] == [1, 1]
    assert values(outcome)["mrr"] == values(outcome)["ndcg@10"] == 1
    with pytest.raises(SpectraError, match="different positives"):
        PairsTask("x", ["a", "b"], ["same", "Same "])


def test_pairs_need_two_different_positives() -> None:
    with pytest.raises(SpectraError, match="two pairs"):
        PairsTask("x", ["a", "b"], ["same", "same"])


def test_knn_accuracy(dense: DenseSystem) -> None:
    train = ["apple river", "apple stone", "train music", "train paper"], ["x", "x", "y", "y"]
    task = KNNTask("toy", train, (["apple cloud", "train glass"], ["x", "y"]), k=2)
    outcome = task.run(dense)
    assert values(outcome) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert all(result.ci == (1, 1) for result in outcome.results)
    assert task.compare(outcome, outcome)["accuracy"].value == 0


def test_statistics_of_distinct_texts(dense: DenseSystem) -> None:
    outcome = StatisticsTask("toy", [*WORDS, *WORDS], partners=[*WORDS, *WORDS]).run(dense)
    got = values(outcome)
    assert outcome.results[0].n == len(WORDS)
    assert got["near_duplicates"] == got["non_finite"] == 0
    assert got["alignment"] == pytest.approx(0, abs=1e-9)
    single = StatisticsTask("one", ["apple"]).run(dense)
    assert "mean_cosine" not in values(single) and any("mean_cosine" in note for note in single.notes)


def test_tasks_that_need_dense_vectors_refuse_bm25() -> None:
    for task in (STSTask("a", ["a", "b"], ["c", "d"], [0, 1]), StatisticsTask("b", ["x"])):
        with pytest.raises(UnsuitableSystem, match=r"no (dense vectors|vectors of single texts)"):
            task.run(BM25System())


def test_specifications_name_tasks_after_their_files(tmp_path: Path) -> None:
    scored = tmp_path / "dev.jsonl"
    rows = [{"sentence1": "a cat", "sentence2": "a dog", "score": at / 4} for at in range(5)]
    scored.write_text("\n".join(map(json.dumps, rows)))
    labelled = tmp_path / "labels.csv"
    labelled.write_text("text,label\nhello there,greeting\ngoodbye now,parting\n")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(json.dumps({"anchor": f"q {w}", "positive": f"a {w}"}) for w in WORDS))
    specifications = [
        f"sts={scored}", f"knn={labelled},{labelled}", f"pairs={pairs}", f"statistics={pairs}", f"statistics={labelled}"
    ]  # fmt: skip
    tasks, notes = tasks_from(specifications)
    folder = tmp_path.name
    assert [(task.kind, task.name) for task in tasks] == [
        ("sts", f"{folder}/dev"),
        ("knn", f"{folder}/labels"),
        ("pairs", f"{folder}/pairs"),
        ("statistics", f"{folder}/pairs"),
        ("statistics", f"{folder}/labels"),
    ]
    assert notes == []
    with pytest.raises(SpectraError, match="sts needs scored"):
        tasks_from([f"sts={pairs}"])


def test_columns_apply_to_the_sources_that_have_them(tmp_path: Path) -> None:
    odd, known = tmp_path / "odd.csv", tmp_path / "known.csv"
    odd.write_text("headline,story\nh1,s1\nh2,s2\n")
    known.write_text("text,label\nhello there,greeting\ngoodbye now,parting\n")
    specifications = [f"pairs={odd}", f"knn={known},{known}"]
    tasks, _ = tasks_from(specifications, columns={"anchor": "headline", "positive": "story"})
    assert [task.kind for task in tasks] == ["pairs", "knn"]
    with pytest.raises(SpectraError, match=r"--columns fits no source.*'headline'"):
        tasks_from(specifications[1:], columns={"anchor": "headline"})


def test_retrieval_specification_with_a_split(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "apple"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "apple"}\n')
    (tmp_path / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    for specification in (f"retrieval={tmp_path}", f"retrieval={tmp_path}:dev"):
        tasks, notes = tasks_from([specification])
        assert tasks[0].name == tmp_path.name and notes == []


def test_quarantined_lines_of_a_retrieval_set_are_reported(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "title": NaN, "text": "apple"}\n{"_id": "e"\n{"text": "x"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "apple"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\nq\tmissing\t1\n")
    _, notes = tasks_from([f"retrieval={tmp_path}"])
    text = "\n".join(notes)
    assert "1 judgment dropped" in text and "2 lines quarantined, such as corpus.jsonl:2: " in text
    assert "1 title left out" in text


@pytest.mark.parametrize("bad", ["sts", "sts=", "knn=only.csv"])
def test_malformed_specifications(bad: str) -> None:
    with pytest.raises(UsageError):
        tasks_from([bad])


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'retrieval'"):
        tasks_from(["retreival=x"])


def test_a_file_is_named_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sets").mkdir()
    for name in ("test.csv", "sets/dev.jsonl.gz"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [source_name(name) for name in ("test.csv", "./test.csv", "sets/dev.jsonl.gz")] == [
        "test",
        "test",
        "sets/dev",
    ]
    monkeypatch.chdir(tmp_path / "sets")
    assert [source_name(name) for name in ("../test.csv", ".")] == [f"{tmp_path.name}/test", "sets"]
