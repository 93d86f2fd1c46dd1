"""Texts as documents: words by every kind of tokenizer, cuts between words, and a cache."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.data import documents as corpus
from spectra_nsa.training.data.documents import cut_lengths, special_ids_around, tokenize_documents

TEXTS = ["open the filename of unreadable sockets", "sorted lists, read", "writing the documentation"]


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=40, show_progress=False))
    return tokenizer


def unigram(split: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    else:  # blanks are letters, as where a normaliser writes them
        tokenizer.normalizer = normalizers.Replace(" ", " ")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=60, show_progress=False, special_tokens=["[UNK]", "[CLS]", "[SEP]"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def tokenizer_with(backend: Tokenizer, mask: int | None = 0) -> Any:
    return SimpleNamespace(backend_tokenizer=backend, mask_token_id=mask)


@pytest.mark.parametrize("made", [bpe, wordpiece, lambda: unigram(True)], ids=["bpe", "wordpiece", "unigram"])
def test_words_begin_where_a_blank_or_a_mark_stood(made: Any) -> None:
    backend = made()
    documents = tokenize_documents(TEXTS, tokenizer_with(backend), 512)
    for index, text in enumerate(TEXTS):
        ids, begins = documents[index]
        words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)
        if backend.pre_tokenizer.__class__.__name__ == "Metaspace":
            words = [(word, None) for word in text.split()]
        assert len(ids) > begins.sum() == len(words), "words of several tokens"


def test_without_a_pre_tokeniser_a_blank_begins_a_word() -> None:
    plain = unigram(False)
    encoding = plain.encode("read the lists")
    begins = corpus.word_starts(encoding, "read the lists", plain)
    text = "read the lists"
    for (start, _), begun in zip(encoding.offsets, begins, strict=True):
        assert begun == (start == 0 or text[start] == " " or text[start - 1] == " ")
    assert 2 <= sum(begins) < len(begins)


def test_the_special_tokens_around_a_text() -> None:
    assert special_ids_around(tokenizer_with(wordpiece())) == ([1], [2])
    assert special_ids_around(tokenizer_with(bpe())) == ([], [])
    with pytest.raises(SpectraError, match="no mask token"):
        special_ids_around(tokenizer_with(bpe(), None))


def test_a_long_text_is_cut_between_words() -> None:
    begins = np.array([1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1], dtype=bool)
    assert cut_lengths(begins, 4) == [3, 2, 4, 3]
    assert cut_lengths(begins, 100) == [12]
    assert cut_lengths(begins[:0], 4) == []
    for longest in range(1, 13):
        lengths = cut_lengths(begins, longest)
        assert sum(lengths) == len(begins) and max(lengths) <= longest


def test_nothing_is_lost_in_cutting() -> None:
    words = tokenizer_with(wordpiece())
    uncut, cut = tokenize_documents(TEXTS, words, 512), tokenize_documents(TEXTS, words, 5)
    assert len(uncut) == len(TEXTS) < len(cut) and cut.lengths().max() <= 5
    assert np.array_equal(uncut.ids, cut.ids) and np.array_equal(uncut.begins, cut.begins)


def test_texts_are_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[int] = []
    real = corpus._batches
    monkeypatch.setattr(corpus, "_batches", lambda *arguments: made.append(1) or real(*arguments))
    words = tokenizer_with(wordpiece())
    fresh = tokenize_documents(TEXTS, words, 512)
    first, again = (tokenize_documents(TEXTS, words, longest, "digest") for longest in (512, 5))
    assert len(made) == 2, "once without a digest, once for both lengths"
    assert np.array_equal(fresh.ids, first.ids) and np.array_equal(again.begins, first.begins)
    tokenize_documents(TEXTS, tokenizer_with(bpe()), 512, "digest")
    assert len(made) == 3, "another tokenizer"


def test_texts_without_a_token_are_refused() -> None:
    empty = tokenizers.Tokenizer(models.WordLevel({}, unk_token="?"))
    empty.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    empty.normalizer = normalizers.Replace(tokenizers.Regex("."), "")
    with pytest.raises(SpectraError, match="none of the texts"):
        tokenize_documents(["abc"], tokenizer_with(empty), 10)
