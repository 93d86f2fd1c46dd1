"""Empty texts, equal texts and words in any script."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.strings import DistinctSpellings, comparable, is_blank, words


@pytest.mark.parametrize("text", ["", " \t\n", "\u200b", "\ufeff", "\u00ad\u2060", "\0", "\u3164", "\u00a0\u2028"])
def test_texts_of_invisible_characters_are_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", "\u200ba", "!", "😀", "\u0301", "猫"])
def test_one_visible_character_is_a_text(text: str) -> None:
    assert not is_blank(text)


def test_equal_spellings_are_equal() -> None:
    assert comparable("CAFÉ  au\nlait") == comparable("cafe\u0301 au lait") == "café au lait"
    assert comparable("Straße") == comparable("STRASSE")
    assert comparable("café") != comparable("cafe")
    distinct = DistinctSpellings(["b", "Café", "cafe\u0301 ", "B", "a"])
    assert (distinct.texts, distinct.numbers) == (["b", "Café", "a"], [0, 1, 1, 0, 2])


@given(st.text())
def test_comparable_does_not_depend_on_the_normal_form(text: str) -> None:
    key = comparable(text)
    assert comparable(key) == key
    assert comparable(unicodedata.normalize("NFD", text)) == comparable(unicodedata.normalize("NFC", text))


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_words_are_runs_of_word_characters(text: str) -> None:
    assert words(text) == words(text + " é")[:-1] == re.findall(r"\w+", text)
    assert words(text, punctuation=True) == words(text + " é", punctuation=True)[:-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("x\u0302 = cafe\u0301", ["x\u0302", "cafe\u0301"]),
        ("机器学习", ["机器", "器学", "学习"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("iPhone手机 5", ["iPhone", "手机", "5"]),
        ("猫", ["猫"]),
        ("น้ำดี", ["น้ำดี"]),
        ("한국어 문장", ["한국어", "문장"]),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_single_characters_and_punctuation() -> None:
    assert words("机器。", size=1, punctuation=True) == ["机", "器", "。"]
