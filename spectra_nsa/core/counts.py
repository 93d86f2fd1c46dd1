"""Counts as words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: "1 row", "2 rows", "1,234 queries".

    Args:
        number: how many.
        noun: in the singular; its last word takes the plural.
    """
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"
