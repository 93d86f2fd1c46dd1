"""Classes of sentence pairs, such as those of natural language inference (NLI). They are no similarity scores.

Read as scores, entailment 0, neutral 1 and contradiction 2 would make the contradictions the most similar pairs.
"""

from __future__ import annotations

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
    if layout.kind not in ("pairs", "triplets", "scored"):
        return ()
    free = dict.fromkeys(key for record in head for key in record.values if key and key not in layout.columns.values())
    if layout.kind == "scored":
        candidates = [layout.classes] if layout.classes is not None else []
    else:
        candidates = list(free)
    for column in candidates:
        values = _class_names(head, column, label_names.get(column))
        inference = bool(values & {ENTAILMENT, CONTRADICTION}) and values <= _NAMES
        many = column == layout.classes and (layout.kind != "scored" or len(label_names.get(column, ())) > 2)
        if not inference and not many and not (layout.kind == "scored" and values and not _any_number(head, column)):
            continue
        shown = f"{column!r} ({', '.join(sorted(values)[:4])})" if values else repr(column)
        if chosen and layout.kind != "scored":
            return (f"the column {shown} holds classes and is not used: every row counts as a match",)
        raise classes_error(source, f"the column {shown} holds classes of the pairs, not scores", column)
    return ()


def classes_error(source: str, problem: str, column: str) -> SpectraError:
    """Returns the refusal of a source whose pairs have classes, with the remedies."""
    return SpectraError(
        f"{source}: {problem}. Make triplets of entailment and contradiction with: spectra data nli {source} --output "
        f"triplets.jsonl. If the numbers are similarity scores, map score={column} with --columns (data.columns); if "
        "every row is a match, map anchor and positive."
    )


def _class_names(head: Sequence[Record], column: str, names: Sequence[str] | None) -> set[str]:
    """Returns the classes in lower case that are words: of the numbered labels, or else of the first rows."""
    if names is not None:
        return {name.lower() for name in names}
    found = set()
    for record in head:
        try:
            found.add(label_value(record.values.get(column), column).strip().lower())
        except BadValue:
            continue
    return {value for value in found if not _is_score(value)}


def _any_number(head: Sequence[Record], column: str) -> bool:
    return any(_is_score(record.values.get(column)) for record in head)


def _is_score(value: object) -> bool:
    try:
        score_value(value, "")
    except BadValue:
        return False
    return True
