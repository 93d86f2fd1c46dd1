"""What a text is: which texts are empty, which count as equal, and the words of a text in any script."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# Scripts written without spaces between words. Script extensions include marks that several scripts share, such as ー.
_UNSPACED = r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_ASCII = {False: re.compile(r"\w+"), True: re.compile(r"\w+|[^\w\s]")}
# Characters that show nothing, although Unicode classifies them as letters or marks.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}


def is_blank(text: str) -> bool:
    """Returns whether nothing of a text is visible.

    White space, control characters and format characters (zero-width spaces, byte-order marks, soft hyphens) are
    invisible.
    """
    return not any(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    if character.isspace() or character in _FILLERS:
        return False
    return character.isalnum() or unicodedata.category(character) not in ("Cc", "Cf")


def is_utf8(text: str) -> bool:
    """Returns whether a text can be encoded as UTF-8: it has no lone surrogate, as undecodable bytes leave it."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def comparable(text: str) -> str:
    """Returns the form under which texts count as equal: composed (NFC), case folded, white space collapsed.

    It is for finding repeated texts. Ids, labels and the texts that a model reads keep their exact spelling.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", " ".join(folded.split()))


class DistinctSpellings:
    """Texts that count as one if they are `comparable`.

    Args:
        texts: N texts.

    Attributes:
        texts: the distinct ones in order, each in its first spelling.
        numbers: for each of the N texts, the index of its distinct text.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts: list[str] = []
        self.numbers: list[int] = []
        known: dict[str, int] = {}
        for text in texts:
            number = known.setdefault(comparable(text), len(known))
            if number == len(self.texts):
                self.texts.append(text)
            self.numbers.append(number)


def words(text: str, *, size: int = 2, punctuation: bool = False) -> list[str]:
    """Returns the words of a text, in order: runs of letters with their marks, digits and underscores.

    Scripts without spaces between words (Han, Kana, Thai, Lao, Khmer, Myanmar) are split into overlapping groups of
    characters, which is how Lucene's CJK analyzer indexes them. A character is a grapheme cluster (UAX #29).

    Args:
        text: any text. Compare only texts of one normal form, such as NFC.
        size: characters in a group; a shorter run is one group.
        punctuation: whether each other visible character is a word too.
    """
    if text.isascii():
        return _ASCII[punctuation].findall(text)
    found: list[str] = []
    for match in _pattern(punctuation).finditer(text):
        if match["unspaced"] is None:
            found.append(match[0])
        else:
            characters = _clusters(match[0])
            found += ["".join(characters[i : i + size]) for i in range(max(1, len(characters) - size + 1))]
    return found


@functools.cache
def _pattern(punctuation: bool) -> Any:
    import regex  # \w of the standard library excludes combining marks

    other = r"|[^\w\s\x1c-\x1f]" if punctuation else ""
    return regex.compile(rf"(?V1)(?P<unspaced>[\w&&{_UNSPACED}]+)|[\w--{_UNSPACED}]+{other}")


def _clusters(text: str) -> list[str]:
    import regex

    return list(regex.findall(r"\X", text))
