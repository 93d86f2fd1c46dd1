"""Classes of sentence pairs, such as those of natural language inference (NLI). They are no similarity scores.

Read as scores, entailment 0, neutral 1 and contradiction 2 would make the contradictions the most similar pairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.columns import Layout
from spectra_nsa.text.rows import Record
from spectra_nsa.text.values import BadValue, label_value, score_value

ENTAILMENT, CONTRADICTION = "entailment", "contradiction"
# All classes: also of a task with two of them, and SNLI's mark of rows without a majority.
_NAMES = {ENTAILMENT, "neutral", CONTRADICTION, "not_entailment", "-"}


def check_classes(
    head: Sequence[Record], layout: Layout, label_names: Mapping[str, Sequence[str]], *, chosen: bool, source: str
) -> tuple[str, ...]:
    """Checks that the first rows of sentence pairs have no column of classes that would be lost or read as scores.

    Args:
        head: the first rows.
        layout: the roles of the columns.
        label_names: column → the names of its numbered labels.
        chosen: whether the user chose the roles; then classes without a role are only worth a note.
        source: the name of the source, for errors.

    Returns:
        the notes.

    Raises:
        SpectraError: there is such a column.
    """
    if layout.kind == "scored" and layout.classes is not None:
        column, names = layout.classes, label_names.get(layout.classes)
        words = _words(head, column, names)
        no_number = bool(words) and not any(_is_score(record.values.get(column)) for record in head)
        if no_number or _of_inference(words) or len(names or ()) > 2:
            raise classes_error(source, f"{_shown(column, words)} holds classes of the pairs, not scores", column)
    if layout.kind != "pairs":
        return ()
    free = dict.fromkeys(key for record in head for key in record.values if key and key not in layout.columns.values())
    for column in free:
        words = _words(head, column, label_names.get(column))
        if column != layout.classes and not _of_inference(words):
            continue
        if chosen:
            return (f"{_shown(column, words)} holds classes and is not used: every row counts as a match",)
        raise classes_error(source, f"{_shown(column, words)} holds classes of the pairs, not scores", column)
    return ()


def classes_error(source: str, problem: str, column: str) -> SpectraError:
    """Returns the refusal of a source whose pairs have classes, with the remedies."""
    return SpectraError(
        f"{source}: {problem}. Make triplets of entailment and contradiction with: spectra data nli {source} --output "
        f"triplets.jsonl. If the numbers are similarity scores, map score={column} with --columns (data.columns); if "
        "every row is a match, map anchor and positive."
    )


def _words(head: Sequence[Record], column: str, names: Sequence[str] | None) -> set[str]:
    """Returns the classes that are words, in lower case: of the numbered labels, or else of the first rows."""
    if names is not None:
        return {name.lower() for name in names}
    found = set()
    for record in head:
        with contextlib.suppress(BadValue):
            found.add(label_value(record.values.get(column), column).strip().lower())
    return {value for value in found if not _is_score(value)}


def _of_inference(words: set[str]) -> bool:
    return bool(words & {ENTAILMENT, CONTRADICTION}) and words <= _NAMES


def _shown(column: str, words: set[str]) -> str:
    examples = f" ({', '.join(sorted(words)[:4])})" if words else ""
    return f"the column {column!r}{examples}"


def _is_score(value: object) -> bool:
    try:
        score_value(value, "")
    except BadValue:
        return False
    return True
