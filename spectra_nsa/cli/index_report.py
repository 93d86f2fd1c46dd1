"""What the commands of `spectra index` print."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

if TYPE_CHECKING:
    from spectra_nsa.index.collection import Index


def named(ids: list[str]) -> str:
    """Returns the first three of some ids, in words."""
    return ", ".join(map(repr, ids[:3])) + (", …" if len(ids) > 3 else "")


def say_repeated(repeated: int) -> None:
    """Prints how many documents were left out because their text came before, and what to do about it."""
    if repeated:
        from spectra_nsa.workflows.index_corpus import ID_COLUMNS

        print(
            f"spectra: {counted(repeated, 'document')} left out, metadata included: the same text came before. To "
            f"keep them, give the source a column {' or '.join(ID_COLUMNS)} of distinct values.",
            file=sys.stderr,
        )


def report(opened: Index, start: float, as_json: bool, **more: Any) -> None:
    """Prints what the index holds after a command."""
    seconds = round(time.monotonic() - start, 3)
    commit = opened.commit
    if as_json:
        facts = {"schema": 1, "index": str(opened.folder), "kind": commit.kind, "documents": commit.documents}
        print_json({**facts, "segments": len(commit.segments), "seconds": seconds, **more})
        return
    state = "intact, " if more.get("intact") else ""
    print(f"{opened.folder}: {state}{counted(commit.documents, 'document')}, kind {commit.kind}, {seconds:.1f} s")


def lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Returns facts as lines of a table, nested ones indented."""
    found = []
    for name, value in facts.items():
        if isinstance(value, dict):
            found += [f"{indent}{name}", *lines(value, indent + "  ")]
        elif name != "schema" and value is not None:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else value
            found.append(f"{indent}{name.replace('_', ' '):{32 - len(indent)}}{shown}")
    return found
