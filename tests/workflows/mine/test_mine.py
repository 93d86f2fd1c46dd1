"""Mining from file to file: the negatives, rows with too few of them, and resuming after a kill."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import spectra_nsa as sp
from spectra_nsa.core import precision
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.index import topk, vectors
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.workflows.mine import candidates, judging, scorers, selection
from tests.builders import WORDS, bert_folder
from tests.tools.fork_server import ForkServer

# Each anchor asks for an animal that its positive names; the other documents share fewer and fewer of its words.
ROWS = [
    {"anchor": "red cat food", "positive": "red cat food for old cats"},
    {"anchor": "red dog food", "positive": "red dog food for old dogs"},
    {"anchor": "blue bird seed", "positive": "blue bird seed in bags"},
    {"anchor": "red cat food", "positive": "what a red cat eats"},
    {"anchor": "green frog pond", "positive": "green frog pond with a fence"},
]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pairs(tmp_path: Path) -> Write:
    def write(rows: list[dict[str, Any]] = ROWS, name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def second_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("other"), seed=1)


def set_block_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (topk, vectors, candidates, judging, scorers, selection):
        monkeypatch.setattr(module, "ROWS", rows)


def many(count: int = 60) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 8)) for _ in range(2 * count)]
    return [
        {"anchor": anchor, "positive": positive} for anchor, positive in zip(texts[:count], texts[count:], strict=True)
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_bm25_negatives_share_words_with_the_anchor(pairs: Write, tmp_path: Path) -> None:
    facts = sp.mine(pairs(), "bm25", tmp_path / "mined.jsonl", scores=True)
    cat, dog, second_cat = read(tmp_path / "mined.jsonl")
    assert cat["negative"] == second_cat["negative"] == "red dog food for old dogs", (
        "another positive of the anchor is no negative"
    )
    assert dog["negative"] == "red cat food for old cats"
    assert cat["scores"][0] > cat["scores"][1] > 0
    assert (cat["positive"], second_cat["positive"]) == (ROWS[0]["positive"], ROWS[3]["positive"])
    incomplete = read(tmp_path / "mined.incomplete.jsonl")
    assert [row["anchor"] for row in incomplete] == ["blue bird seed", "green frog pond"], (
        "they share no word with others"
    )
    assert facts["counts"]["written"] == 3 and facts["counts"]["without"] == 2
    assert facts["set_aside"] == str(tmp_path / "mined.incomplete.jsonl")
    meta = json.loads((tmp_path / "mined.jsonl.meta.json").read_text())
    assert meta["counts"] == facts["counts"] and meta["model"]["name"] == "bm25" and meta["rules"]["range_max"] == 10
    assert meta["columns"] == ["anchor", "positive", "negative", "scores"] and "torch" in meta["environment"]


def test_near_duplicates_of_a_positive_or_the_anchor_are_no_negatives(pairs: Write, tmp_path: Path) -> None:
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu"
    corpus = pairs([{"text": text} for text in (f"{words} xi", words.upper(), "alpha  ASKED", "beta alone")], "c.jsonl")
    source = pairs([{"anchor": "alpha asked", "positive": words}, {"anchor": "beta", "positive": "other text"}])
    facts = sp.mine(source, "bm25", tmp_path / "mined.jsonl", corpus=corpus, incomplete="keep")
    rows = {row["anchor"]: row["negative"] for row in read(tmp_path / "mined.jsonl")}
    assert rows["beta"] == "beta alone"
    assert "alpha asked" not in rows, "every document that shares a word with it is a near-duplicate"
    assert facts["counts"]["documents"] == 5, "the copy in capitals is the positive itself"
    assert facts["counts"]["dropped"]["duplicate"] == 2


def test_another_spelling_of_a_positive_is_no_negative(pairs: Write, tmp_path: Path) -> None:
    corpus = pairs([{"text": "cafe\u0301 noir"}, {"text": "noir film"}], "c.jsonl")
    source = pairs([{"anchor": "what is noir", "positive": "Café noir"}])
    facts = sp.mine(source, "bm25", tmp_path / "mined.jsonl", corpus=corpus)
    assert [row["negative"] for row in read(tmp_path / "mined.jsonl")] == ["noir film"]
    assert facts["counts"]["documents"] == 2


def test_mining_agrees_with_sentence_transformers(
    pairs: Write, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: False)
    rows = [*many(), {"anchor": many()[0]["anchor"], "positive": "the socket of a model"}]
    rule = {"range_max": 61, "max_score": 0.99, "relative_margin": 0.001}
    sp.mine(pairs(rows), model, tmp_path / "mined.jsonl", negatives=3, scores=True, **rule)
    theirs = mine_hard_negatives(
        Dataset.from_list(rows), SentenceTransformer(str(model), device="cpu"), num_negatives=3, verbose=False,
        output_format="n-tuple", output_scores=True, **rule,
    )  # fmt: skip
    ours = {(row["anchor"], row["positive"]): row for row in read(tmp_path / "mined.jsonl")}
    assert len(ours) == len(theirs) > 20
    for row in theirs:
        our_row = ours[row["anchor"], row["positive"]]
        assert [our_row[f"negative{n}"] for n in ("", "_2", "_3")] == [row[f"negative_{n}"] for n in (1, 2, 3)]
        assert our_row["scores"] == pytest.approx(row["scores"], abs=1e-5)


def test_the_judge_drops_what_it_scores_above_the_positive(
    pairs: Write, tmp_path: Path, model: Path, second_model: Path
) -> None:
    source = pairs(many())
    facts = sp.mine(source, model, tmp_path / "mined.jsonl", judge=second_model, negatives=2, incomplete="keep")
    assert facts["counts"]["dropped"]["judge"] > 0
    assert facts["counts"]["written"] > 10
    judge = sp.warm_start(second_model)
    for row in read(tmp_path / "mined.jsonl"):
        texts = [row["positive"], row["negative"], row["negative_2"]]
        scores = judge.encode(texts, normalize_embeddings=True) @ judge.encode(row["anchor"], normalize_embeddings=True)
        assert scores[1:].max() <= scores[0] + 5e-3  # bf16


def vectors_of(tokenizer: Any) -> int:
    """Returns how many vectors a tokenizer needs; a word that is twice in its vocabulary has only the later id."""
    return max(tokenizer.get_vocab().values()) + 1


def cross_encoder(folder: Path, base: Path, labels: int = 1) -> Path:
    """Saves a random cross-encoder as sentence-transformers did before version 5, without its own configuration."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = BertConfig(
        vocab_size=vectors_of(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, num_labels=labels, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_cross_encoder_judges_and_its_scores_are_written(
    pairs: Write, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: False)
    set_block_rows(monkeypatch, 32)
    monkeypatch.setattr(judging, "CROSS_ENCODER_ROWS", 8)
    judge = cross_encoder(tmp_path / "judge", model)
    source, options = pairs(many()), {"judge": judge, "negatives": 2, "range_max": 12, "scores": True}
    planned = sp.mine(source, model, tmp_path / "mined.jsonl", dry_run=True, **options)
    assert planned["pairs_to_judge"] == 60 * (12 + 1) and planned["judge"]["kind"] == "cross"
    facts = sp.mine(source, model, tmp_path / "mined.jsonl", **options)
    assert facts["counts"]["dropped"]["judge"] > 0
    opened, rows = CrossEncoder(str(judge)), read(tmp_path / "mined.jsonl")
    assert len(rows) > 20
    for row in rows:
        texts = [(row["anchor"], row[name]) for name in ("positive", "negative", "negative_2")]
        scores = opened.predict(texts, activation_fn=torch.nn.Sigmoid())
        assert row["scores"] == pytest.approx(scores.tolist(), abs=1e-5)
        assert scores[1:].max() <= scores[0] + 1e-5
    assert sp.mine(source, model, tmp_path / "again.jsonl", dry_run=True, **options)["pairs_to_judge"] == 0


def test_a_cross_encoder_cannot_search_and_must_have_one_label(pairs: Write, tmp_path: Path, model: Path) -> None:
    judge = cross_encoder(tmp_path / "judge", model)
    with pytest.raises(SpectraError, match="--judge"):
        sp.mine(pairs(), judge, tmp_path / "mined.jsonl")
    three = cross_encoder(tmp_path / "three", model, labels=3)
    with pytest.raises(SpectraError, match="3 labels"):
        sp.mine(pairs(), "bm25", tmp_path / "mined.jsonl", judge=three)


def test_contradictory_rules_are_refused_before_reading(tmp_path: Path) -> None:
    for rules, words in (({"judge_ratio": 0.9}, "--judge-ratio"), ({"max_score": 0.2, "min_score": 0.5}, "between")):
        with pytest.raises(UsageError, match=words):
            sp.mine(tmp_path / "absent.jsonl", "bm25", tmp_path / "mined.jsonl", **rules)


def test_rows_with_too_few_negatives_are_dropped_or_repeat_them(pairs: Write, tmp_path: Path) -> None:
    rows = [*ROWS, {"anchor": "yellow cow food", "positive": "food of a yellow cow"}]
    sp.mine(pairs(rows), "bm25", tmp_path / "a.jsonl", negatives=3, incomplete="keep", scores=True)
    kept = {row["anchor"]: row for row in read(tmp_path / "a.jsonl")}
    cat = kept["red cat food"]
    assert cat["negative"] == cat["negative_3"] != cat["negative_2"]
    assert len(cat["scores"]) == 4 and cat["scores"][1] == cat["scores"][3]
    assert {row["anchor"] for row in read(tmp_path / "a.incomplete.jsonl")} == {"blue bird seed", "green frog pond"}
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"other settings \(rules, incomplete\) and would be lost"):
        sp.mine(pairs(rows), "bm25", tmp_path / "a.jsonl", negatives=2)
    assert (tmp_path / "a.jsonl").read_bytes() == before
    (tmp_path / "a.jsonl").unlink()
    facts = sp.mine(pairs(rows), "bm25", tmp_path / "a.jsonl", negatives=2)
    assert facts["counts"]["incomplete"] == 0 and "negative_3" not in read(tmp_path / "a.jsonl")[0]
    with pytest.raises(SpectraError, match="the most is 3"):
        sp.mine(pairs(rows), "bm25", tmp_path / "b.jsonl", negatives=4)
    assert not list(tmp_path.glob("b*")) and not list(tmp_path.glob(".b*"))


def test_the_file_of_incomplete_rows_is_deleted_if_there_are_none(pairs: Write, tmp_path: Path) -> None:
    sp.mine(pairs(), "bm25", tmp_path / "a.jsonl")
    assert (tmp_path / "a.incomplete.jsonl").is_file()
    sp.mine(pairs(ROWS[:2]), "bm25", tmp_path / "a.jsonl")
    assert not (tmp_path / "a.incomplete.jsonl").exists()


@pytest.mark.parametrize("name", ["mined.jsonl", "mined.parquet"])
def test_our_reader_and_margin_mse_accept_the_output(pairs: Write, tmp_path: Path, model: Path, name: str) -> None:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    sp.mine(pairs(many(12)), model, tmp_path / name, negatives=2, scores=True)
    mined = sp.load_source(tmp_path / name)
    assert (mined.kind, mined.roles) == ("triplets", ("anchor", "positive", "negative", "negative_2"))
    assert [len(scores) for scores in mined.dataset["scores"]] == [3] * 12
    student = SentenceTransformer(str(model), device="cpu")
    arguments = Arguments(
        output_dir=str(tmp_path / "run"), max_steps=1, use_cpu=True, report_to="none", save_strategy="no",
        per_device_train_batch_size=12, learning_rate=0.0, logging_steps=1,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=student, args=arguments, train_dataset=mined.dataset, loss=MarginMSELoss(student)
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] < 1e-3, "the scoring model has no loss on its own scores"


@pytest.mark.parametrize("name", ["mined.jsonl", "mined.parquet"])
def test_named_columns_of_the_source_are_kept(pairs: Write, tmp_path: Path, name: str) -> None:
    rows = [
        row | {"negative": "an old one", "scores": [0.5, 0.1], "topic": f"topic {number}", "year": 2000 + number}
        for number, row in enumerate(ROWS)
    ]
    facts = sp.mine(pairs(rows), "bm25", tmp_path / name, range_max=4, keep=["topic", "year"])
    mined = sp.load_source(tmp_path / name).dataset
    assert json.loads(Path(facts["meta"]).read_text())["columns"] == mined.column_names
    assert mined.column_names == ["anchor", "positive", "negative", "topic", "year"]
    by_pair = {(row["anchor"], row["positive"]): (row["topic"], row["year"]) for row in rows}
    assert len(mined) >= 3
    for row in mined:
        assert (row["topic"], row["year"]) == by_pair[row["anchor"], row["positive"]]
        assert row["negative"] != "an old one"
    sp.mine(pairs(rows), "bm25", tmp_path / name, range_max=4)
    assert sp.load_source(tmp_path / name).dataset.column_names == ["anchor", "positive", "negative"]
    with pytest.raises(UsageError, match="topic"):
        sp.mine(pairs(rows), "bm25", tmp_path / name, keep=["topics"])
    with pytest.raises(UsageError, match="scores"):
        sp.mine(pairs(rows), "bm25", tmp_path / name, keep=["scores"])


def test_the_error_without_candidates_blames_no_rule(pairs: Write, tmp_path: Path) -> None:
    rows = [{"anchor": "red cat", "positive": "red cats"}, {"anchor": "Red cat", "positive": "a cat"}]
    with pytest.raises(SpectraError, match="no candidate"):
        sp.mine(pairs(rows), "bm25", tmp_path / "mined.jsonl")


def test_a_corpus_adds_candidates(pairs: Write, tmp_path: Path) -> None:
    corpus = pairs([{"text": "blue bird seed of another kind"}, {"text": "frog"}], "corpus.jsonl")
    sp.mine(pairs(), "bm25", tmp_path / "mined.jsonl", corpus=corpus)
    mined = {row["anchor"]: row["negative"] for row in read(tmp_path / "mined.jsonl")}
    assert mined["blue bird seed"] == "blue bird seed of another kind" and mined["green frog pond"] == "frog"


@pytest.mark.parametrize("more", [{"text": "story"}, {}])
def test_the_mapping_reaches_the_corpus(pairs: Write, tmp_path: Path, more: dict[str, str]) -> None:
    source = pairs([{"q": "red cat food", "a": "red cat food for cats"}, {"q": "blue bird", "a": "a blue bird"}])
    names = ("story",) if more else ("q", "a")  # of pairs, the positives are the documents
    corpus = pairs([dict.fromkeys(names, "red cat")], "corpus.jsonl")
    sp.mine(source, "bm25", tmp_path / "mined.jsonl", corpus=corpus, columns={"anchor": "q", "positive": "a"} | more)
    assert read(tmp_path / "mined.jsonl")[0]["negative"] == "red cat"


def test_a_corpus_of_unclear_columns_is_explained(pairs: Write, tmp_path: Path) -> None:
    corpus = pairs([{"story": "red cat"}], "corpus.jsonl")
    with pytest.raises(SpectraError, match=r"--corpus .*is unclear. Columns: story\. Add text=COLUMN to --columns"):
        sp.mine(pairs(), "bm25", tmp_path / "mined.jsonl", corpus=corpus)


def test_a_sparse_encoder_mines_by_inner_product(pairs: Write, tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    folder = sparse_folder(tmp_path)
    rows = many(20)
    sp.mine(pairs(rows), folder, tmp_path / "mined.jsonl", scores=True)
    encoder = SparseEncoder(str(folder), device="cpu")
    documents = encoder.encode_document([row["positive"] for row in rows]).to_dense().numpy()
    anchors = encoder.encode_query([row["anchor"] for row in rows]).to_dense().numpy()
    mined = read(tmp_path / "mined.jsonl")
    assert len(mined) == 20
    for number, row in enumerate(mined):
        products = documents @ anchors[number]
        others = np.delete(products, number)
        assert row["scores"] == pytest.approx([products[number], others.max()], rel=0.05)  # bf16


def sparse_folder(folder: Path) -> Path:
    """Saves a SPLADE encoder with a random masked language model."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig

    start = bert_folder(folder / "start")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(start)
    config = BertConfig(
        vocab_size=vectors_of(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder / "mlm")
    tokenizer.save_pretrained(folder / "mlm")
    modules = [Transformer(str(folder / "mlm"), transformer_task="fill-mask"), SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "sparse"))
    return folder / "sparse"


class Died(Exception):
    pass


@pytest.mark.parametrize("moment", range(1, 14, 3))
def test_a_failed_run_resumes_with_the_same_result(
    moment: int, pairs: Write, tmp_path: Path, model: Path, second_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_block_rows(monkeypatch, 16)
    source, options = pairs(many()), {"judge": second_model, "sampling": "random", "negatives": 2, "incomplete": "keep"}
    sp.mine(source, model, tmp_path / "uninterrupted.jsonl", **options)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    put, done = Blocks.put, 0

    def dies(self: Blocks, number: int, **arrays: Any) -> None:
        nonlocal done
        done += 1
        if done == moment:
            raise Died
        put(self, number, **arrays)

    monkeypatch.setattr(Blocks, "put", dies)
    with pytest.raises(Died):
        sp.mine(source, model, tmp_path / "mined.jsonl", **options)
    assert not (tmp_path / "mined.jsonl").exists()
    total, done = 4 * 6, 100  # anchors, documents, hits; the judge's likewise
    sp.mine(source, model, tmp_path / "mined.jsonl", **options)
    assert done - 100 == total - (moment - 1), "finished blocks are not computed again"
    assert (tmp_path / "mined.jsonl").read_bytes() == (tmp_path / "uninterrupted.jsonl").read_bytes()


def test_a_killed_process_resumes(pairs: Write, tmp_path: Path, model: Path, fork_server: ForkServer) -> None:
    """SIGKILL from within, after the second block of hits; then the same command again."""
    code = """
import os, signal, sys
from spectra_nsa.index import topk, vectors
from spectra_nsa.workflows.mine import candidates, judging, scorers, selection
from spectra_nsa.index.blocks import Blocks
import spectra_nsa as sp
for module in (topk, vectors, candidates, judging, scorers, selection):
    module.ROWS = 16
source, model, output, deadly = sys.argv[1:]
put, done = Blocks.put, []
def watched(self, number, **arrays):
    put(self, number, **arrays)
    done.append(number)
    if "index_BK" in arrays and number == 1 and deadly == "yes":
        os.kill(os.getpid(), signal.SIGKILL)
Blocks.put = watched
sp.mine(source, model, output)
print(len(done))
"""

    def run(output: str, deadly: str, home: str) -> subprocess.CompletedProcess[str]:
        words = [str(pairs(many())), str(model), str(tmp_path / output), deadly]
        return fork_server.run(*words, code=code, env={"XDG_CACHE_HOME": str(tmp_path / home)})

    uninterrupted = run("uninterrupted.jsonl", "no", "one")
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    assert run("mined.jsonl", "yes", "two").returncode == -9
    assert not (tmp_path / "mined.jsonl").exists()
    rest = run("mined.jsonl", "no", "two")
    assert (uninterrupted.stdout.strip(), rest.stdout.strip()) == ("12", "2"), rest.stderr
    assert (tmp_path / "mined.jsonl").read_bytes() == (tmp_path / "uninterrupted.jsonl").read_bytes()


def test_other_rules_use_the_same_vectors_and_hits(
    pairs: Write, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pairs(many())
    sp.mine(source, model, tmp_path / "a.jsonl", range_max=20)
    planned = sp.mine(source, model, tmp_path / "b.jsonl", range_max=20, dry_run=True)
    assert (planned["blocks_to_search"], planned["blocks"]) == (0, 1) and not (tmp_path / "b.jsonl").exists()
    monkeypatch.setattr(scorers, "open_encoder", lambda scorer: pytest.fail("opened again"))
    first = read(tmp_path / "a.jsonl")
    sp.mine(source, model, tmp_path / "b.jsonl", range_max=20, range_min=1)
    assert all(a["negative"] != b["negative"] for a, b in zip(first, read(tmp_path / "b.jsonl"), strict=True))
    sp.mine(source, model, tmp_path / "c.jsonl", range_max=30)  # searched again, from the same vectors
    assert read(tmp_path / "c.jsonl") == first


def test_the_model_s_weights_are_part_of_the_cache_key(model: Path, second_model: Path) -> None:
    first, second = scorers.find_scorer(str(model)), scorers.find_scorer(str(second_model))
    assert first.stamp != second.stamp and first.stamp == scorers.find_scorer(str(model)).stamp


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"output": "mined.csv"}, UsageError, ".jsonl"),
        ({"output": "."}, UsageError, ".jsonl"),
        ({"output": "pairs.jsonl"}, UsageError, "would be lost"),
        ({"incomplete": "kepp"}, UsageError, "Did you mean 'keep'"),
        ({"num_negatives": 2}, UsageError, "Did you mean 'negatives'"),
        ({"model": "./nowhere"}, SpectraError, "not a model folder"),
        ({"source": "gone.jsonl"}, SpectraError, "does not exist"),
        ({"max_score": -1e9}, SpectraError, "max_score"),
    ],
)
def test_impossible_requests_are_refused(
    options: dict[str, Any], kind: type[Exception], message: str, pairs: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pairs()
    monkeypatch.chdir(tmp_path)
    arguments = {"source": "pairs.jsonl", "model": "bm25", "output": "mined.jsonl"} | options
    with pytest.raises(kind, match=message):
        sp.mine(**arguments)
    assert {path.name for path in tmp_path.iterdir()} <= {"pairs.jsonl", "cache"}


def test_other_kinds_of_rows_and_models_are_refused(pairs: Write, tmp_path: Path) -> None:
    labelled = pairs([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], "labelled.jsonl")
    with pytest.raises(SpectraError, match="mining needs pairs"):
        sp.mine(labelled, "bm25", tmp_path / "m.jsonl")
    with pytest.raises(SpectraError, match="one document"):
        sp.mine(pairs(ROWS[:1]), "bm25", tmp_path / "m.jsonl")
    (tmp_path / "cross").mkdir()
    (tmp_path / "cross" / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    with pytest.raises(SpectraError, match="is a cross-encoder"):
        sp.mine(pairs(), str(tmp_path / "cross"), tmp_path / "m.jsonl")


def test_repeated_rows_are_counted_and_triplets_noted(pairs: Write, tmp_path: Path) -> None:
    lines: list[str] = []
    rows = [row | {"negative": "none"} for row in [*ROWS, ROWS[0], ROWS[1]]]
    facts = sp.mine(pairs(rows), "bm25", tmp_path / "m.jsonl", say=lines.append)
    assert facts["counts"]["repeated"] == 2 and facts["counts"]["written"] == 3
    assert any("skipped 2 rows" in line for line in lines) and any("not used" in line for line in lines)


def test_broken_rows_are_quarantined_with_line_and_reason(pairs: Write, tmp_path: Path) -> None:
    source = pairs()
    source.write_text("no json\n" + source.read_text())
    facts = sp.mine(source, "bm25", tmp_path / "mined.jsonl")
    (note,) = [note for note in facts["notes"] if "broken" in note]
    assert "line 1: not JSON" in note and str(tmp_path / "mined.quarantine") in note
    (row,) = [json.loads(line) for file in (tmp_path / "mined.quarantine").iterdir() for line in file.open()]
    assert row["line"] == 1 and row["raw"] == "no json\n"


def test_a_beir_folder_is_mined_by_its_judgments_in_its_corpus(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    (folder / "qrels").mkdir(parents=True)
    documents = {"d1": "red cat food", "d2": "red dog food", "d3": "blue bird seed", "d4": "", "d5": "red cat toys"}
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    queries = {"q1": "food for a red cat", "q2": "toys for a red cat"}
    lines = [json.dumps({"_id": key, "text": text}) for key, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join([*lines, "no json"]))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq1\td4\t1\n")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td5\t1\n")
    facts = sp.mine(folder, "bm25", tmp_path / "mined.jsonl")
    (row,) = read(tmp_path / "mined.jsonl")
    assert (row["anchor"], row["positive"]) == (queries["q1"], documents["d1"])
    assert row["negative"] in (documents["d2"], documents["d5"]) and "split train" in " ".join(facts["notes"])
    (quarantine,) = (tmp_path / "mined.quarantine").glob("*beir*")
    assert str(quarantine) in " ".join(facts["notes"]) and "line 3: not JSON" in " ".join(facts["notes"])
    sp.mine(folder, "bm25", tmp_path / "test.jsonl", split="test")
    assert [row["anchor"] for row in read(tmp_path / "test.jsonl")] == [queries["q2"]]
