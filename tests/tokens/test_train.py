"""Trained tokenizers: what comes back from their pieces, what they hold, what they refuse, how they load."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.fresh import fresh_model, load_tokenizer
from spectra_nsa.tokens.kinds import KINDS, SPECIAL
from spectra_nsa.tokens.train import TokenizerSpec, save_tokenizer, train_tokenizer
from tests.builders import WORDS

TEXTS = [f"{a} the {b}, and Read {c}s." for a in WORDS for b in WORDS[::3] for c in WORDS[::5]] + ["naïve café"] * 40
SIZE = {"unigram": 420, "wordpiece": 200, "bpe": 400, "word": 40}


@cache
def trained(kind: str, lowercase: bool = True) -> Any:
    return train_tokenizer(TEXTS, TokenizerSpec(kind=kind, vocab_size=SIZE[kind], lowercase=lowercase, max_length=32))


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.lossless])
@given(text=st.text(max_size=60) | st.text("the read▁ \n\t<0x41>ïé", max_size=40))
def test_decoding_gives_the_normalised_text_back(kind: str, lowercase: bool, text: str) -> None:
    tokenizer = trained(kind, lowercase)
    assume(not any(special in text for special in tokenizer.all_special_tokens))  # they are tokens, not text
    normal = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    if kind == "bpe":
        assert not text or normal.startswith(" ")
        normal = normal[1:]
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]) == normal


@given(text=st.text(max_size=40))
def test_what_the_normaliser_of_cased_bpe_leaves_is_the_text_in_composed_form(text: str) -> None:
    import unicodedata

    normal = trained("bpe", False).backend_tokenizer.normalizer.normalize_str(text)
    assert unicodedata.normalize("NFD", normal.removeprefix(" ")) in {
        unicodedata.normalize("NFD", text.removeprefix(" ")),
        unicodedata.normalize("NFD", text),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_loads_as_a_fast_tokenizer_with_berts_template(kind: str, tmp_path: Path) -> None:
    save_tokenizer(trained(kind), tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t", local_files_only=True)
    assert tokenizer.is_fast and tokenizer.model_max_length == 32
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == list(SPECIAL)
    roles = [getattr(tokenizer, f"{role}_token") for role in ("pad", "unk", "cls", "sep", "mask")]
    assert roles == list(SPECIAL)
    pair = tokenizer("open", "the file")
    assert set(pair) == {"input_ids", "token_type_ids", "attention_mask"}
    pieces = tokenizer.convert_ids_to_tokens(pair["input_ids"])
    assert (pieces[0], pieces[-1], pieces.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    first = pieces.index("[SEP]") + 1
    assert pair["token_type_ids"] == [0] * first + [1] * (len(pieces) - first)
    batch = tokenizer(["open", "the file " * 40], padding=True, truncation=True)
    assert len(batch["input_ids"][0]) == len(batch["input_ids"][1]) == 32
    assert batch["input_ids"][0][-1] == 0 and batch["attention_mask"][0][-1] == 0
    assert tokenizer("open [MASK]")["input_ids"][-2] == 4


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_is_as_large_as_asked_or_as_the_texts_allow(kind: str) -> None:
    tokenizer = trained(kind)
    ids = sorted(tokenizer.get_vocab().values())
    assert ids == list(range(len(tokenizer))) and len(tokenizer) <= SIZE[kind]
    few = train_tokenizer(TEXTS, TokenizerSpec(kind=kind, vocab_size=20_000))
    assert len(tokenizer) <= len(few) < 2_000


def test_a_common_word_is_one_piece_wherever_it_stands() -> None:
    for kind in KINDS:
        tokenizer = trained(kind)
        alone = tokenizer("the", add_special_tokens=False)["input_ids"]
        assert len(alone) == 1 and tokenizer("the the", add_special_tokens=False)["input_ids"] == alone * 2


def test_case_is_kept_or_dropped() -> None:
    for kind in KINDS:
        low, cased = trained(kind), train_tokenizer(TEXTS, TokenizerSpec(kind=kind, vocab_size=500, lowercase=False))
        assert low("Read")["input_ids"] == low("read")["input_ids"]
        assert cased("Read")["input_ids"] != cased("read")["input_ids"]


def test_what_unigram_has_no_character_for_is_bytes_and_what_others_lack_is_unknown() -> None:
    assert trained("unigram").tokenize("日")[-3:] == ["<0xE6>", "<0x97>", "<0xA5>"]
    assert trained("wordpiece").tokenize("日") == trained("word").tokenize("日") == ["[UNK]"]
    assert trained("bpe").unk_token_id not in trained("bpe")("日本")["input_ids"]


def test_a_rare_character_is_not_in_unigrams_alphabet() -> None:
    tokenizer = train_tokenizer([*TEXTS * 2, "ж"], TokenizerSpec(vocab_size=500))
    assert "ж" not in tokenizer.get_vocab() and "é" in tokenizer.get_vocab()
    assert tokenizer.decode(tokenizer("ж", add_special_tokens=False)["input_ids"]) == "ж"


def test_a_least_frequency_leaves_rare_words_out() -> None:
    texts = ["often often often once"]
    size = {"kind": "word", "vocab_size": 50}
    assert "once" in train_tokenizer(texts, TokenizerSpec(**size, min_frequency=1)).get_vocab()
    assert "once" not in train_tokenizer(texts, TokenizerSpec(**size)).get_vocab()


@pytest.mark.parametrize(("kind", "least"), [("unigram", 326), ("bpe", 261), ("wordpiece", 80)])
def test_a_vocabulary_below_its_alphabet_is_refused_with_the_number(kind: str, least: int) -> None:
    with pytest.raises(SpectraError, match=r"too few .* alone are (\d+)") as caught:
        train_tokenizer(TEXTS, TokenizerSpec(kind=kind, vocab_size=least - 20))
    needed = int(str(caught.value).split(" alone are ")[1].split(".")[0])
    assert needed >= least
    tokenizer = train_tokenizer(TEXTS, TokenizerSpec(kind=kind, vocab_size=needed))
    assert len(tokenizer) <= needed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [[], ["", " \n"], ["\u200b", "\0"]])
def test_no_texts(kind: str, texts: list[str]) -> None:
    with pytest.raises(SpectraError, match="no texts"):
        train_tokenizer(texts, TokenizerSpec(kind=kind, vocab_size=400))


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'wordpiece'"):
        TokenizerSpec(kind="wordpeice")
    with pytest.raises(UsageError, match="no least frequency"):
        TokenizerSpec(min_frequency=3)


def test_only_a_tokenizers_folder_is_replaced(tmp_path: Path) -> None:
    save_tokenizer(trained("word"), tmp_path / "t")
    save_tokenizer(trained("bpe"), tmp_path / "t")
    assert len(load_tokenizer(str(tmp_path / "t"))) == len(trained("bpe"))
    (tmp_path / "t" / "model.safetensors").touch()
    with pytest.raises(UsageError, match="more than a tokenizer"):
        save_tokenizer(trained("word"), tmp_path / "t")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="would be lost"):
        save_tokenizer(trained("word"), tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "t"]


def test_a_fresh_model_takes_it(tmp_path: Path) -> None:
    save_tokenizer(trained("unigram"), tmp_path / "t")
    shape = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    model = fresh_model("small", tokenizer=str(tmp_path / "t"), max_length=16, semantic_dims=[32, 16], **shape)
    assert model.spectra.config.vocab_size == len(trained("unigram"))
    one, two = model.encode(["open the file", "open the file 日 " * 30])
    assert one.shape == two.shape == (32,)
