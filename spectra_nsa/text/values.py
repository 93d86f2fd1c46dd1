"""Checks of single fields: text, score, label, passage. A field that cannot be used raises `BadValue`."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from decimal import Decimal

from spectra_nsa.core.strings import is_blank, is_utf8

_TRUTH = {"true": True, "false": False}


class BadValue(Exception):
    """A field that cannot be used.

    Attributes:
        column: the column it is in. The message is the reason.
    """

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


def text_value(value: object, column: str) -> str:
    """Returns the value as text.

    Raises:
        BadValue: it is missing (null or NaN), blank (see `is_blank`), not a string, or cannot be encoded as UTF-8.
    """
    if value is None or _is_nan(value):
        raise BadValue(column, "missing")
    if isinstance(value, bytes):
        raise BadValue(column, "not UTF-8")
    if not isinstance(value, str):
        raise BadValue(column, f"expected text, got {'a list' if isinstance(value, list) else type(value).__name__}")
    if is_blank(value):
        raise BadValue(column, "empty")
    if not is_utf8(value):
        raise BadValue(column, "not valid Unicode (contains a lone surrogate)")
    return value


def document_text(values: Mapping[str, object]) -> str:
    """Returns title and text, joined by a space if both are present. A title that is not text is left out.

    Raises:
        BadValue: the text is neither text nor missing.
    """
    title, text = values.get("title"), values.get("text")
    parts: list[str] = []
    with contextlib.suppress(BadValue):
        parts.append(text_value(title, "title"))
    if not _is_missing(text):
        parts.append(text_value(text, "text"))
    return " ".join(parts)


def has_unusable_title(values: Mapping[str, object]) -> bool:
    """Returns whether `document_text` leaves out a title that is neither null nor blank, such as NaN or a number."""
    title = values.get("title")
    if title is None or (isinstance(title, str) and is_blank(title)):
        return False
    try:
        text_value(title, "title")
    except BadValue:
        return True
    return False


def score_value(value: object, column: str) -> float:
    """Returns the value as a finite number. Digits as text are accepted, and so are truth values (1 and 0).

    Raises:
        BadValue: it is missing or not a finite number.
    """
    if value is None or value == "":
        raise BadValue(column, "missing")
    value = _TRUTH.get(value.strip().lower(), value) if isinstance(value, str) else value
    try:
        number = float(value) if isinstance(value, (int, float, str, Decimal)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(column, "not a finite number")
    return number


def label_value(value: object, column: str) -> str:
    """Returns the value as the name of a label, the same name for each spelling of a number or truth value.

    1, 1.0, ``"1"`` and ``"1.0"`` are ``"1"``; true and ``"True"`` are ``"true"``. Other texts keep their spelling, so
    ``"001"`` is not ``"1"``.

    Raises:
        BadValue: it is neither a number nor usable text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float, Decimal)) and math.isfinite(value):
        return _digits(value) or str(value)
    text = text_value(value, column)
    if text.strip().lower() in _TRUTH:
        return text.strip().lower()
    return text.split(".")[0] if re.fullmatch(r"-?(0|[1-9]\d*)\.0+", text) else text


def id_value(value: object, column: str) -> str:
    """Returns the value as an id. A whole number becomes its digits, even if it is stored as a float; text stays.

    Raises:
        BadValue: it is neither a whole number nor usable text.
    """
    return _digits(value) or text_value(value, column)


def grade_value(text: str, column: str) -> int:
    """Returns a relevance grade.

    Raises:
        BadValue: it is not a whole number; 2.0 is one.
    """
    number = score_value(text, column)
    if number != int(number):
        raise BadValue(
            column, f"the grade {text} is not a whole number; scale the grades, such as by 10, or round them"
        )
    return int(number)


def _digits(value: object) -> str | None:
    """Returns the digits of a whole number; ``None`` for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)) or not math.isfinite(value):
        return None
    return str(int(value)) if value == int(value) else None


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_missing(value: object) -> bool:
    return value is None or _is_nan(value) or (isinstance(value, str) and is_blank(value))


def passage_value(value: object, column: str) -> str:
    """Returns a text, or the joined title and text of an object that has them.

    Raises:
        BadValue: there is no usable text.
    """
    if not isinstance(value, dict):
        return text_value(value, column)
    try:
        return text_value(document_text(value), "text")
    except BadValue as bad:
        raise BadValue(column, f"{bad.column!r} of a passage: {bad}") from None


def passage_values(value: object, column: str, limit: int | None = None) -> list[str]:
    """Returns the passages of a list, or a single passage as a list of one.

    Args:
        value: the field.
        column: its column.
        limit: how many passages to read; ``None`` reads all.

    Raises:
        BadValue: the list is empty, or a passage has no usable text.
    """
    if not isinstance(value, list):
        return [passage_value(value, column)]
    if not value:
        raise BadValue(column, "an empty list")
    return [passage_value(item, column) for item in value[:limit]]
