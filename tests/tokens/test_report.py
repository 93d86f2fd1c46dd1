"""The figures of a tokenizer, against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest

from spectra_nsa.tokens.report import measure_tokenizer, round_trips
from spectra_nsa.tokens.train import TokenizerSpec, train_tokenizer


def test_figures_by_hand(tiny_tokenizer: Any) -> None:
    # words: open ×2 (one piece), xy (x ##y), 日 (unknown); the full stop is unknown to this vocabulary
    found = measure_tokenizer(tiny_tokenizer, ["open xy.", "Open 日"])
    assert found.pop("million_characters_per_second") > 0
    assert found == {
        "pieces": len(tiny_tokenizer),
        "fertility": pytest.approx(5 / 4),
        "whole_words": pytest.approx(2 / 4),
        "characters_per_piece": pytest.approx(14 / 6),
        "unknown": pytest.approx(2 / 6),
        "bytes": 0.0,
        "round_trip": 0.0,
    }
    assert measure_tokenizer(tiny_tokenizer, ["Open a file", "xy"])["round_trip"] == 1.0


def test_words_of_other_scripts(tiny_tokenizer: Any) -> None:
    found = measure_tokenizer(tiny_tokenizer, ["हिन्दी भाषा", "日本"])  # two words, and two characters
    assert found["fertility"] == 1.0, "each is one unknown piece"


def test_bytes_are_counted_and_nothing_is_cut() -> None:
    tokenizer = train_tokenizer(["aaa bbb"] * 9, TokenizerSpec(vocab_size=400, max_length=4))
    found = measure_tokenizer(tokenizer, ["日"])
    assert found["bytes"] == pytest.approx(3 / 4) and found["unknown"] == 0.0  # the mark of the word is the fourth
    assert measure_tokenizer(tokenizer, ["a b " * 50])["characters_per_piece"] < 5


def test_a_text_without_a_word() -> None:
    tokenizer = train_tokenizer(["a b c"] * 9, TokenizerSpec(kind="bpe", vocab_size=300))
    found = measure_tokenizer(tokenizer, ["…", ""])
    assert (found["fertility"], found["whole_words"], found["round_trip"]) == (0.0, 0.0, 1.0)


def test_another_text_does_not_come_back(tiny_tokenizer: Any) -> None:
    ids = tiny_tokenizer("open", add_special_tokens=False)["input_ids"]
    assert round_trips(tiny_tokenizer, "OPEN", ids) and not round_trips(tiny_tokenizer, "close", ids)
