"""The model that a recipe starts from, with a different tokenizer or positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.tokens.train import TokenizerSpec, save_tokenizer, train_tokenizer
from spectra_nsa.training.init.start import open_start, planned_config
from spectra_nsa.training.run import train
from tests.builders import WORDS


@pytest.fixture
def words(tmp_path: Path) -> Path:
    texts = [f"{a} {b} {number}" for a in WORDS for b in WORDS for number in range(3)]
    save_tokenizer(train_tokenizer(texts, TokenizerSpec(vocab_size=400)), tmp_path / "words")
    return tmp_path / "words"


def test_a_checkpoint_gets_the_vocabulary_and_reports_what_it_had(
    make_bert: Callable[..., Path], words: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_bert()
    recipe = load_recipe(None, [f"model.start={source}", f"model.tokenizer={words}", "model.max_length=20"])
    model, plain = open_start(recipe), sp.warm_start(source)
    assert "new vocabulary: " in capsys.readouterr().err
    size, length = planned_config(recipe)
    assert model.spectra.config.vocab_size == size.vocab_size == len(model.tokenizer) and length == 20
    assert model.max_seq_length == 20
    tables = [one.spectra.encoder.embeddings.tokens.weight for one in (model, plain)]
    word = next(word for word in WORDS if len(word) > 1 and f"▁{word}" in model.tokenizer.get_vocab())
    ids = [one.tokenizer.convert_tokens_to_ids(piece) for one, piece in ((model, f"▁{word}"), (plain, word))]
    assert torch.equal(tables[0][ids[0]], tables[1][ids[1]])


def test_its_own_tokenizer_changes_nothing(make_bert: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    source = make_bert()
    same, plain = (
        open_start(load_recipe(None, [f"model.start={source}", *more])) for more in ([f"model.tokenizer={source}"], [])
    )
    assert "vocabulary" not in capsys.readouterr().err
    assert torch.equal(*(one.spectra.encoder.embeddings.tokens.weight for one in (same, plain)))


def test_a_run_trains_saves_and_resumes_with_it(
    make_bert: Callable[..., Path], words: Path, tiny_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    keys = [f"model.start={make_bert()}", f"model.tokenizer={words}", f"data.train={tiny_pairs(rows=40)}"]
    keys += ["train.batch=8", "data.dev_rows=4", f"output={tmp_path / 'runs'}", "name=run"]
    result = train(load_recipe(None, [*keys, "train.max_steps=2"]))
    saved = sp.load(result.folder / "model")
    assert len(saved.tokenizer) == saved.spectra.config.vocab_size == len(saved.spectra.entity.prior.idf)
    assert bool(saved.spectra.entity.prior.idf.any()), "the rarity of the new pieces is fitted to the rows"
    further = train(load_recipe(result.folder / "recipe.yaml", ["train.max_steps=3"]), resume=result.folder)
    assert further.steps == 3


def test_positions_are_chosen_from_scratch(words: Path) -> None:
    keys = ["model.size=small", f"model.tokenizer={words}"]
    learned, rotary = (open_start(load_recipe(None, [*keys, *more])) for more in ([], ["model.position=rope"]))
    assert (learned.spectra.config.position, rotary.spectra.config.position) == ("absolute", "rope")
    embeddings = [model.spectra.encoder.embeddings for model in (learned, rotary)]
    assert embeddings[0].positions is not None and embeddings[1].positions is None
    assert planned_config(load_recipe(None, [*keys, "model.position=rope"]))[0].position == "rope"
    texts = ["open the file", "file the open"]
    there, back = rotary.encode(texts)
    assert abs(there - back).max() > 1e-5, "the order of the words is seen"


def test_a_width_without_adapters_is_refused(make_bert: Callable[..., Path], words: Path) -> None:
    for start in ([f"model.start={make_bert()}"], ["model.size=small", f"model.tokenizer={words}"]):
        with pytest.raises(UsageError, match=r"model\.adapter_size=8 without adapters does nothing"):
            planned_config(load_recipe(None, [*start, "model.adapter_size=8"]))
        config, _ = planned_config(load_recipe(None, [*start, "model.adapter_size=8", "model.adapters=2"]))
        assert (config.adapters, config.adapter_size) == (2, 8)


def test_a_start_keeps_its_positions(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert()
    with pytest.raises(SpectraError, match=r"model\.position: .* has learned positions"):
        open_start(load_recipe(None, [f"model.start={source}", "model.position=rope"]))
    model = open_start(load_recipe(None, [f"model.start={source}", "model.position=absolute"]))
    model.save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(SpectraError, match=r"model\.position is part of a saved model"):
        open_start(load_recipe(None, [f"model.start={tmp_path / 'saved'}", "model.position=rope"]))
