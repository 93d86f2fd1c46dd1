"""Checks of single fields: text, score, label, passage. A field that cannot be used raises `BadValue`."""

from __future__ import annotations

import math
from collections.abc import Mapping


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
        BadValue: it is missing, blank, not a string, or cannot be encoded as UTF-8.
    """
    if value is None:
        raise BadValue(column, "missing")
    if isinstance(value, bytes):
        raise BadValue(column, "not UTF-8")
    if not isinstance(value, str):
        raise BadValue(column, f"expected text, got {'a list' if isinstance(value, list) else type(value).__name__}")
    if not value.strip():
        raise BadValue(column, "empty")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadValue(column, "not valid Unicode (contains a lone surrogate)") from None
    return value


def document_text(values: Mapping[str, object]) -> str:
    """Returns title and text, joined by a space if both are present.

    Raises:
        BadValue: one of them is not text.
    """
    parts = [(name, values.get(name)) for name in ("title", "text")]
    return " ".join(text_value(part, name) for name, part in parts if part is not None and str(part).strip())


def score_value(value: object, column: str) -> float:
    """Returns the value as a finite number. A string of digits is accepted.

    Raises:
        BadValue: it is missing or not a finite number.
    """
    if value is None or value == "":
        raise BadValue(column, "missing")
    try:
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadValue(column, "not a finite number")
    return number


def label_value(value: object, column: str) -> str:
    """Returns the value as the name of a label. A number becomes its digits.

    Raises:
        BadValue: it is neither a number nor usable text.
    """
    return str(value) if isinstance(value, (bool, int, float)) else text_value(value, column)


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
