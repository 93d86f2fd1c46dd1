"""Texts as a caller passes them: any iterable of strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

from spectra_nsa.core.errors import UsageError


def text_list(texts: Iterable[Any], what: str = "texts") -> list[str]:
    """Returns texts as a list of plain strings.

    Args:
        texts: a list, tuple, generator, numpy array, pandas Series, column of a dataset, …
        what: the argument's name, for the message.

    Raises:
        UsageError: it is a single text, has no order or more than one dimension, or an item is no valid text.
    """
    if isinstance(texts, str):
        raise UsageError(f"{what} is a single text. Put it into a list.")
    dimensions = getattr(texts, "ndim", 1)
    if isinstance(texts, bytes | Mapping | Set) or not isinstance(texts, Iterable) or dimensions == 0:
        raise UsageError(f"{what} is of type {type(texts).__name__}. Give a list of texts.")
    if dimensions > 1:  # a table of pandas would yield the names of its columns
        raise UsageError(f"{what} is a table, not a list of texts. Select one of its columns.")
    return [_checked(text, index, what) for index, text in enumerate(texts)]


def _checked(text: Any, index: int, what: str) -> str:
    if not isinstance(text, str):
        found = "missing (NaN)" if isinstance(text, float) and text != text else f"of type {type(text).__name__}"
        raise UsageError(f"{what}[{index}] is {found}, not a text. Drop or replace it.")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(
                f"{what}[{index}] holds half of a surrogate pair ({error.object[error.start]!a}), which is no valid "
                "character. Drop or replace it."
            ) from None
    return str(text)
