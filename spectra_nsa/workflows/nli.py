"""Triplets from natural language inference (NLI): an entailed sentence with a contradiction as its hard negative."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.strings import comparable

if TYPE_CHECKING:
    from spectra_nsa.text.rows import TextSet

_LABELS = ("gold_label", "label", "labels", "label_text", "class", "relation")


def nli_triplets(
    source: str | Path,
    output: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    entailment: str | None = None,
    contradiction: str | None = None,
) -> dict[str, Any]:
    """Writes a triplet for each entailed sentence of a premise that also has a contradiction.

    The anchor is the premise, the positive the entailed sentence, the negative a contradiction of the same premise;
    the contradictions are used in turn. Neutral sentences are left out, and so are sentences that a premise both
    entails and contradicts. It is how SNLI and MultiNLI became the training set of sentence-transformers (AllNLI).

    Args:
        source: rows of premise, hypothesis and class, see `load_source`.
        output: the JSON Lines file to write.
        columns: role → column for `sentence1` (the premise), `sentence2` (the hypothesis) and `label`; missing roles
            are detected.
        split, limit: see `load_source`.
        entailment: the class of entailment; ``None`` for ``entailment`` or 0. If the dataset names its numbered
            classes, they have these names and no numbers.
        contradiction: the class of contradiction; ``None`` for ``contradiction`` or 2.

    Returns:
        `output`, the column and the classes that were used, whether their meaning is `assumed` from numbers, the
        counts, and the first triplet as `example`.

    Raises:
        SpectraError: the source cannot be read, has no such columns or classes, or gives no triplet.
        UsageError: the output is not JSON Lines, or a role is unknown.
    """
    if Path(output).suffix != ".jsonl":
        raise UsageError(f"--output {output}: the name must end in .jsonl.")
    rows, label = _load(str(source), dict(columns or {}), split, limit)
    values = _classes(rows, label)
    classes = set(filter(None, values))
    entailed_class = _class(classes, entailment, "entailment", "0", f"{source}: column {label!r}")
    contradicted_class = _class(classes, contradiction, "contradiction", "2", f"{source}: column {label!r}")
    premises: dict[str, _Premise] = {}
    for premise, hypothesis, value in zip(rows.dataset["anchor"], rows.dataset["positive"], values, strict=True):
        if value in (entailed_class, contradicted_class):
            entry = premises.setdefault(comparable(premise), _Premise(premise))
            (entry.entailed if value == entailed_class else entry.contradicted)[comparable(hypothesis)] = hypothesis
    triplets = [triplet for entry in premises.values() for triplet in entry.triplets()]
    if not triplets:
        raise SpectraError(f"{source}: no premise has both an entailed and a contradicted sentence. Nothing written.")
    with atomic_write(Path(output)) as file:
        file.writelines(json.dumps(triplet, ensure_ascii=False) + "\n" for triplet in triplets)
    used = {key for key, entry in premises.items() if any(entry.triplets())}
    return {
        "output": str(output), "column": label, "entailment": entailed_class, "contradiction": contradicted_class,
        "assumed": (entailed_class == "0" and entailment is None)
        or (contradicted_class == "2" and contradiction is None),
        "rows": len(values), "quarantined": rows.quarantined, "premises": len(premises),
        "premises_left_out": len(premises) - len(used), "triplets": len(triplets), "example": triplets[0],
    }  # fmt: skip


class _Premise:
    """A premise with its entailed and contradicted sentences, each by its comparable form."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.entailed: dict[str, str] = {}
        self.contradicted: dict[str, str] = {}

    def triplets(self) -> Iterator[dict[str, str]]:
        positives = [text for key, text in self.entailed.items() if key not in self.contradicted]
        negatives = [text for key, text in self.contradicted.items() if key not in self.entailed]
        if negatives:
            for number, positive in enumerate(positives):
                yield {"anchor": self.text, "positive": positive, "negative": negatives[number % len(negatives)]}


def _load(source: str, columns: dict[str, str], split: str | None, limit: int | None) -> tuple[TextSet, str]:
    """Returns premises and hypotheses as pairs, and the column of the classes."""
    from spectra_nsa.text.columns import SENTENCE_PAIRS, NoSuchColumn
    from spectra_nsa.text.sources import load_source

    roles = {"sentence1", "sentence2", "label"}
    if unknown := sorted(columns.keys() - roles):
        raise UsageError(f"--columns: the role {unknown[0]!r} is none of {', '.join(sorted(roles))}.")
    rows = None
    for pair in (("premise", "hypothesis"), *SENTENCE_PAIRS):
        mapping = {"anchor": columns.get("sentence1", pair[0]), "positive": columns.get("sentence2", pair[1])}
        with contextlib.suppress(NoSuchColumn):
            rows = load_source(source, columns=mapping, split=split, limit=limit)
            break
    names = [] if rows is None else rows.dataset.column_names
    label = columns.get("label") or next((name for name in _LABELS if name in names), None)
    if rows is None or label is None or label not in names:
        raise SpectraError(
            f"{source}: cannot find premise, hypothesis and class. Name them with --columns "
            "sentence1=PREMISE,sentence2=HYPOTHESIS,label=CLASS; spectra data preview shows the columns."
        )
    return rows, label


def _classes(rows: TextSet, label: str) -> list[str | None]:
    """Returns the class of each row in lower case; ``None`` for no class."""
    from spectra_nsa.text.table import class_name
    from spectra_nsa.text.values import BadValue

    names = rows.label_names.get(label)
    values: list[str | None] = []
    for value in rows.dataset[label]:
        try:
            values.append(None if value is None else class_name(value, label, names).lower())
        except BadValue:
            values.append(None)
    return values


def _class(classes: set[str], chosen: str | None, name: str, number: str, where: str) -> str:
    """Returns the class with this meaning, in lower case."""
    wanted = [name, number] if chosen is None else [chosen.lower()]
    found = next((value for value in wanted if value in classes), None)
    if found is None:
        shown = ", ".join(sorted(classes)[:8]) or "none"
        raise SpectraError(f"{where} has no class {' or '.join(wanted)}. Its classes: {shown}. Name it with --{name}.")
    return found
