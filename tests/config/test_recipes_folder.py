"""The shipped recipes: each file, with a small model, through a complete run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import spectra_nsa as sp
from spectra_nsa.config.presets import Preset, load_preset
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.shipped import FOLDER, recipe_names, recipe_path
from spectra_nsa.config.terms import live_terms
from spectra_nsa.models import fresh
from spectra_nsa.models.fresh import load_tokenizer
from spectra_nsa.text.readers import hub
from spectra_nsa.text.readers.cornstack import parse_languages
from spectra_nsa.training.loop.arguments import steps_of
from spectra_nsa.training.run import pretrain, train
from tests.builders import WORDS, bert_folder

ROOT = Path(__file__).resolve().parents[2]
FROM_SCRATCH = {"m456": "M456", "m600": "M600", "m700": "M700", "m1b": "M1B", "nexus-240m": "nexus-240m"}
SPARSE = {"quick_test": (10_000, 1, 8), "development": (50_000, 2, 16), "production": (None, 5, 32)}
TINY = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 64}
HEADS = {"fast", "bridge", "anomaly"}
TERMS = {
    "m": {"semantic", "ranking", "anchor", "entity", *HEADS},
    "s": {"cosent", *HEADS},
}  # of triplets, of scored pairs


def shipped(name: str, *more: str) -> Recipe:
    return load_recipe(recipe_path(name), more)


def test_the_top_level_folder_is_the_packaged_one() -> None:
    assert (ROOT / "recipes").resolve() == FOLDER.resolve()
    assert set(recipe_names()) == {*FROM_SCRATCH, *SPARSE, "quickstart", "quickstart-sparse", "sts-mini"}


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_a_recipe_trains_its_size_by_the_sizes_own_defaults(name: str) -> None:
    recipe = shipped(name)
    assert (recipe.name, recipe.model.size) == (name, FROM_SCRATCH[name])
    schedule = {"epochs", "max_steps"}
    defaults = {key: value for key, value in load_preset(FROM_SCRATCH[name]).train.items() if key not in schedule}
    assert {key: getattr(recipe.train, key) for key in defaults} == defaults
    assert (recipe.loss.temperature_start, recipe.loss.temperature) == (0.07, 0.05)
    assert (recipe.train.checkpoint_every, recipe.backup.every) == (500, 6)


@pytest.mark.parametrize("name", ["m456", "m600", "m700", "m1b"])
def test_the_large_ones_see_98_000_triplets_three_times(name: str) -> None:
    recipe = shipped(name)
    rows = (recipe.data.limit or 0) - recipe.data.dev_rows
    assert (rows, recipe.train.epochs, steps_of(recipe, rows)) == (98_000, 3, 4596)
    assert hub.parse(recipe.data.train or "") == hub.HubName(
        path="sentence-transformers/msmarco-bm25", config="triplet-hard"
    )
    assert recipe.train.gradient_checkpointing == (name == "m1b")


def test_the_edge_one_takes_a_thousand_steps_on_own_pairs() -> None:
    recipe = shipped("nexus-240m")
    assert (steps_of(recipe, 1_000_000), recipe.train.batch, recipe.model.max_length) == (1000, 64, 128)
    shape = load_preset("nexus-240m").model
    assert (shape["norm"], shape["position"], shape["vocab_size"]) == ("pre", "absolute", 48_000)


@pytest.mark.parametrize("name", SPARSE)
def test_the_sparse_ones_differ_in_rows_epochs_and_batch(name: str) -> None:
    recipe = shipped(name)
    limits = [part.limit for part in recipe.data.sources.values()]
    rows = None if None in limits else sum(limit or 0 for limit in limits)
    assert (rows, recipe.train.epochs, recipe.train.batch) == SPARSE[name]
    languages = [language for part in recipe.data.sources.values() for language in parse_languages(part.source)]
    assert languages == (["python"] if name == "quick_test" else ["python", "java", "javascript", "go", "php", "ruby"])
    assert all(part.negatives == 1 for part in recipe.data.sources.values())
    assert recipe.sparse is not None and recipe.train.gradient_checkpointing and recipe.train.precision == "bf16"


def tiny_preset(name: str) -> Preset:
    """The preset with its own kinds of parts, but small."""
    preset = load_preset(name)
    narrow = {"spectral_dim": 8} if "spectral_dim" in preset.model else {}
    return dataclasses.replace(preset, model=preset.model | TINY | narrow | {"semantic_dims": [24, 16, 8]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a small stand-in under each name that a recipe uses, and small presets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fresh, "load_preset", tiny_preset)
    (tmp_path / "sentence-transformers").mkdir()
    minilm = tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2"
    bert_folder(tmp_path / "made", max_position_embeddings=128).rename(minilm)
    load_tokenizer(str(minilm)).save_pretrained("tokenizer")
    triplets = [
        {"query": f"open {a} {b}", "positive": f"{a} read {b}", "negative": f"{b} close"}
        for a in WORDS[6:14] for b in WORDS[6:14] if a != b
    ]  # fmt: skip
    marco = tmp_path / "sentence-transformers" / "msmarco-bm25"
    (marco / "triplet-hard").mkdir(parents=True)
    data = "  data_files:\n  - split: train\n    path: triplet-hard/train-*"
    (marco / "README.md").write_text(f"---\nconfigs:\n- config_name: triplet-hard\n{data}\n---\n")
    write(marco / "triplet-hard" / "train-0.jsonl", triplets)
    stsb = tmp_path / "sentence-transformers" / "stsb"
    stsb.mkdir()
    parts = "".join(f"\n  - split: {split}\n    path: {split}.jsonl" for split in ("train", "validation"))
    (stsb / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:{parts}\n---\n")
    for split in ("train", "validation"):
        texts = [{"sentence1": row["query"], "sentence2": row["positive"]} for row in triplets]
        write(stsb / f"{split}.jsonl", [row | {"score": at % 6 / 5} for at, row in enumerate(texts)])
    write(tmp_path / "pairs.jsonl", [{"anchor": row["query"], "positive": row["positive"]} for row in triplets])
    return tmp_path


def write(path: Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("name", sorted({*recipe_names()} - {*SPARSE, "quickstart-sparse"}))
def test_a_recipe_with_a_small_model_trains_saves_and_encodes(name: str, home: Path) -> None:
    more = ["train.max_steps=2", "train.batch=8", "train.accumulation=2", "train.log_every=1", f"output={home}/runs"]
    if name == "quickstart":
        more += ["name=quickstart", "data.train=python:packaging"]
    elif name in FROM_SCRATCH:
        more += ["model.tokenizer=./tokenizer"]
    recipe = shipped(name, *more)
    result = train(recipe)
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert result.steps == 2 and len(logged) == 2 and all(row["grad_norm"] > 0 for row in logged)
    columns = {"m": ["anchor", "positive", "negative"], "s": ["sentence1", "sentence2", "score"]}
    terms = set(live_terms(recipe, columns.get(name[0], ["anchor", "positive"])))
    assert terms == TERMS.get(name[0], TERMS["m"] - {"ranking"})
    assert all(logged[-1][f"grad_norm_{term}"] > 0 for term in terms - {"semantic", "cosent"})
    assert result.best.keys() == {"dev_spearman" if name == "sts-mini" else "dev_ndcg@10"}
    model = sp.load(result.folder / "model")
    texts = ["open a file", "close the socket"]
    outputs = ["embedding", "entity", "ranking", "anchor64", "fast", "anomaly"]
    saved, trained = (one.encode(texts, outputs=outputs) for one in (model, result.model))
    assert all(np.array_equal(saved[output], trained[output]) for output in outputs)
    if name in FROM_SCRATCH:
        kinds = ("norm", "position", "ffn", "attention", "depth_mix", "entity", "max_length")
        asked = load_preset(FROM_SCRATCH[name]).model
        assert {kind: getattr(model.spectra.config, kind) for kind in kinds if kind in asked} == {
            kind: asked[kind] for kind in kinds if kind in asked
        }


def test_the_edge_recipe_documents_two_ways_to_start(home: Path) -> None:
    head = "".join(re.findall(r"^#(.*\n)", recipe_path("nexus-240m").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [words for words in map(shlex.split, head.replace("\\\n", " ").splitlines()) if words[:1] == ["spectra"]]
    *_, by_words, late = [words[2:] for words in commands if words[1] == "train"]
    (first,) = [words[2:] for words in commands if words[1] == "pretrain"]
    few = ["train.max_steps=2", "train.batch=8", f"output={home}/runs"]
    flags = {"model.size": "nexus-240m", "data.train": str(home / "pairs.jsonl")}
    assert first[:2] == ["--size", "nexus-240m"] and by_words[0] == late[0] == "nexus-240m.yaml"
    base = pretrain(load_recipe(None, [*first[4:], *few], flags=flags))
    assert base.folder == home / "runs" / "base"
    for name, words in (("words", by_words), ("late", late)):
        recipe = shipped("nexus-240m", *words[1:], *few, f"name={name}")
        assert (recipe.model.token_vectors is None, recipe.model.start is None) == (name == "late", name == "words")
        assert {"distill_embedding", "distill_similarity", "semantic", "entity"} <= set(
            live_terms(recipe, ["anchor", "positive"])
        )
        student = train(recipe).model
        assert (student.spectra.config.norm, len(student.tokenizer)) == ("pre", len(load_tokenizer("tokenizer")))
