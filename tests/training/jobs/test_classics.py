"""The textbook losses, one at a time, on a vocabulary of whole words: each of them falls."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.config.loss_sections import TermsSection
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.heads.kinds import POOLINGS
from spectra_nsa.models.fresh import fresh_model
from spectra_nsa.tokens.kinds import KINDS
from spectra_nsa.tokens.train import TokenizerSpec
from spectra_nsa.training.run import train
from spectra_nsa.workflows.tokenizer import train_tokenizer_on
from tests.builders import WORDS

TOPICS = [WORDS[6:10], WORDS[10:14], WORDS[14:18]]  # texts of one topic match


def texts() -> list[tuple[int, str]]:
    return [(topic, f"{a} the {b}") for topic, words in enumerate(TOPICS) for a, b in itertools.permutations(words, 2)]


def pairs() -> list[dict[str, Any]]:
    return [
        {"anchor": one, "positive": other, "negative": third}
        for (topic, one), (same, other), (far, third) in zip(
            texts(), texts()[1:] + texts()[:1], texts()[17:] + texts()[:17], strict=True
        )
        if topic == same != far
    ]


def scored() -> list[dict[str, Any]]:
    found = [(one, other) for one, other in itertools.combinations(texts(), 2)]
    return [{"sentence1": a[1], "sentence2": b[1], "score": float(a[0] == b[0])} for a, b in found[::7]]


ROWS = {"contrastive": scored, "cosine": scored, "triplet": pairs, "semantic": pairs}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A vocabulary of whole words, by the command."""
    (tmp_path / "texts.txt").write_text("\n".join(text for _, text in texts()), encoding="utf-8")
    arguments = ["tokenizer", "train", str(tmp_path / "texts.txt"), "--kind", "word", "--min-frequency", "1"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "words"), "--json"], catch_exceptions=False)
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["kind"] == "word" and facts["pieces"] < 30
    return tmp_path / "words"


@pytest.mark.parametrize("size", ["small", "small-moe"])
@pytest.mark.parametrize("term", ROWS)
def test_a_classic_loss_falls(term: str, size: str, words: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[term]()), encoding="utf-8")
    kept = (term, "router_balance", "router_z")
    silent = [f"loss.terms.{name}.weight=0" for name in TermsSection.model_fields if name not in kept]
    keys = [
        f"model.size={size}", f"model.tokenizer={words}", "model.matryoshka=false", f"data.train={data}",
        "data.dev_rows=0", f"loss.terms.{term}.weight=1", "train.max_steps=15", "train.batch=8", "train.log_every=1",
        "train.epochs=100", "train.lr=5e-4", "monitor.rows=0", "train.fit_heads=0", f"output={tmp_path}", "name=run",
    ]  # fmt: skip
    result = train(load_recipe(None, [*keys, *silent]))
    logged = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in logged if "loss" in row]
    assert len(losses) == 15
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_experts_from_scratch_take_any_tokenizer_and_pooling(kind: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(text for _, text in texts()), encoding="utf-8")
    size = 400 if kind == "unigram" else 300
    spec = TokenizerSpec(kind=kind, vocab_size=size, min_frequency=1 if KINDS[kind].has_min_frequency else None)
    train_tokenizer_on([str(tmp_path / "texts.txt")], spec, tmp_path / "tokens", say=lambda line: None)
    for pooling in POOLINGS:
        model = fresh_model("small-moe", tokenizer=str(tmp_path / "tokens"), pooling=pooling)
        found = model.encode([text for _, text in texts()[:5]], outputs=["embedding", "router_load"])
        assert found["router_load"].shape == (5, 3, 8) and (found["router_load"].sum(2) > 2).all()
        assert np.isfinite(found["embedding"]).all() and found["embedding"].std() > 0
