"""The role of each column: from the user's mapping, otherwise from names common in public datasets."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.text.rows import REQUIRED, Kind

MAX_NEGATIVES = 8
ROLES = ("anchor", "positive", "negative", "sentence1", "sentence2", "score", "text", "label")
OTHER_ROLES = tuple(role for role in ROLES if role not in ("anchor", "positive", "text"))

# Both tables are in order of preference; names are compared case-insensitively.
SENTENCE_PAIRS = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("text1", "text2"),
    ("text_1", "text_2"), ("text_a", "text_b"),
)  # fmt: skip
_ALIASES: dict[str, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "question", "instruction", "prompt", "docstring",
               "func_documentation_string", "title"),
    "positive": ("positive", "pos", "positives", "positive_passages", "document", "passage", "answer", "response",
                 "code", "func_code_string", "function", "completion", "abstract", "body"),
    "negative": ("negative", "negatives", "neg", "negs", "hard_negative", "hard_negatives", "negative_passages"),
    "score": ("score", "similarity", "similarity_score", "relatedness_score", "label", "labels", "scores"),
    "text": ("text", "sentence", "content", "document", "passage", "body"),
    "label": ("label", "labels", "label_text", "class", "category", "intent"),
}  # fmt: skip
_CLASS_NAMES = ("label", "labels", "gold_label", "gold_labels", "label_text", "class")


class UnclearColumns(SpectraError):
    """The roles of a source's columns cannot be detected.

    Attributes:
        available: the columns of the source.
    """

    def __init__(self, message: str, available: Sequence[str]) -> None:
        super().__init__(message)
        self.available = available


class NoSuchColumn(UnclearColumns):
    """A mapping names a column that the source lacks."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The kind of a source and the column of each role.

    Attributes:
        kind: the kind of rows.
        columns: role → column, the required roles first. `negative`, `negative_2` … name one column each, or
            `negative` alone names a column of texts or of lists. `positive` may name a column of lists too.
        notes: what the user should know about the choice.
        classes: the column that may hold classes of the pairs instead of scores; ``None`` if there is none, or if the
            user chose the roles.
        unused: columns of negatives beyond the number to read; they are dropped.
    """

    kind: Kind
    columns: dict[str, str]
    notes: tuple[str, ...] = ()
    classes: str | None = None
    unused: tuple[str, ...] = ()


def parse_columns(text: str) -> dict[str, str]:
    """Parses ``"anchor=title,positive=body"`` to ``{"anchor": "title", "positive": "body"}``.

    A comma that is not followed by ``name=`` belongs to the column name.

    Raises:
        UsageError: a part is not ``role=column``, or the role is unknown.
    """
    mapping = {}
    for part in filter(None, (part.strip(" ,") for part in re.split(r",(?=\s*\w+\s*=|\s*$)", text))):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(
                f"--columns: expected ROLE=COLUMN, got {part!r}. Example: --columns anchor=title,positive=body"
            )
        if role in mapping:
            raise UsageError(f"--columns: the role {role!r} appears twice. Give each role once.")
        mapping[_checked_role(role)] = column
    return mapping


def _checked_role(role: str) -> str:
    if role not in ROLES and not re.fullmatch(r"negative_[2-8]", role):
        raise unknown_name("column role", role, ROLES)
    return role


def find_layout(
    available: Sequence[str], columns: Mapping[str, str] | None, *, source: str, negatives: int | None = None
) -> Layout:
    """Assigns roles to the columns of a source.

    Args:
        available: the columns of the source.
        columns: role → column, chosen by the user; it takes precedence over the known names. ``None`` detects all.
        source: the name of the source, for errors.
        negatives: the most negatives of a row; 0 makes pairs of triplets, ``None`` reads up to `MAX_NEGATIVES`.

    Raises:
        NoSuchColumn: a mapped column does not exist.
        UnclearColumns: no known set of roles is complete.
        UsageError: `columns` names an unknown role.
    """
    available = [name for name in available if name]
    mapping = {_checked_role(role): column for role, column in (columns or {}).items()}
    for role, column in mapping.items():
        if column not in available:
            existing = ", ".join(available) or "none"
            near = difflib.get_close_matches(column, available, n=1)
            hint = f" Did you mean {role}={near[0]}?" if near else ""
            message = f"{source}: no column {column!r} (mapped to {role}).{hint} Columns of the source: {existing}."
            message += _separator_hint(available)
            raise NoSuchColumn(message, available)
    free = [name for name in available if name not in mapping.values()]
    layout = _mapped_layout(mapping, free) if mapping else _detected_layout(free)
    if layout is None:
        reason = (
            f"the column mapping names only {', '.join(mapping)}"
            if mapping
            else "cannot detect the roles of the columns"
        )
        raise UnclearColumns(_unclear_message(source, available, reason), available)
    return _with_negatives(layout, MAX_NEGATIVES if negatives is None else negatives)


def _with_negatives(layout: Layout, most: int) -> Layout:
    """Returns a layout with at most so many columns of negatives."""
    names = [column for role, column in layout.columns.items() if role.startswith("negative")]
    if len(names) <= most:
        return layout
    columns = {role: column for role, column in layout.columns.items() if not role.startswith("negative")}
    columns |= dict(zip(_negative_roles(most), names, strict=False))
    notes = (f"the first {most} of {len(names)} columns of negatives used",) if most else ()
    kind: Kind = layout.kind if most else "pairs"
    return replace(layout, kind=kind, columns=columns, notes=(*layout.notes, *notes), unused=tuple(names[most:]))


def _unclear_message(source: str, available: Sequence[str], reason: str) -> str:
    existing = ", ".join(available) or "none"
    likely = [name for name in available if not re.search(r"(?i)(^|_)(doc)?id$", name)] or list(available)
    first, second = [*likely, *["title", "body"][len(likely) :]][:2]
    hint = _separator_hint(available)
    if {"premise", "hypothesis"} <= {name.lower() for name in available}:
        return (
            f"{source}: {reason}. Columns of the source: {existing}. Make triplets of inference data (NLI) with: "
            f"spectra data nli {source} --output triplets.jsonl"
        )
    return (
        f"{source}: {reason}. Columns of the source: {existing}.{hint} Map them with --columns ROLE=COLUMN: "
        f"--columns {shlex.quote(f'anchor={first},positive={second}')} for pairs, "
        f"--columns {shlex.quote(f'text={first}')} for texts. Further roles: {', '.join(OTHER_ROLES)}."
    )


def _separator_hint(available: Sequence[str]) -> str:
    semicolons = len(available) == 1 and ";" in available[0]
    return " The file seems to use ';' as its separator: save it with commas." if semicolons else ""


def _known_name(role: str, names: Iterable[str]) -> str | None:
    """Returns the first of the names known for a role; ``None`` if there is none."""
    if role not in _ALIASES:
        return None
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    return next((lower[alias] for alias in _ALIASES[role] if alias in lower), None)


def _negatives(names: Iterable[str]) -> dict[str, str]:
    """Returns the columns of negatives: `negative` or `negatives`, then `negative_1`, `negative_2`, … in order."""
    names = list(names)
    first = _known_name("negative", names)
    matches = ((re.fullmatch(r"(?:hard_)?neg(?:ative)?_(\d+)", name.lower()), name) for name in names)
    numbered = sorted((int(match[1]), name) for match, name in matches if match)
    columns = [*([first] if first else []), *(name for _, name in numbered)]
    return dict(zip(_negative_roles(len(columns)), columns, strict=True))


def _mapped_layout(mapping: dict[str, str], free: list[str]) -> Layout | None:
    """Returns the layout of the user's mapping; known names fill in only the roles that its kind still needs."""
    if "score" in mapping:  # a score makes a pair a scored pair
        renamed = {"anchor": "sentence1", "positive": "sentence2"}
        mapping = {renamed.get(role, role): column for role, column in mapping.items()}
    kind = _kind_of(mapping)
    detected = {role: _known_name(role, free) or (role if role in free else None) for role in REQUIRED[kind]}
    if kind == "scored" and (pair := _sentence_pair(free)) is not None:
        detected |= dict(zip(("sentence1", "sentence2"), pair, strict=True))
    complete = {role: column for role, column in detected.items() if column} | mapping
    if kind == "scored" and "score" not in complete and {"sentence1", "sentence2"} <= set(complete):
        return _pairs(complete["sentence1"], complete["sentence2"], {}, ("no score column: rows are read as pairs",))
    if any(role not in complete for role in REQUIRED[kind]):
        return None
    negatives = {role: column for role, column in sorted(mapping.items()) if role.startswith("negative")}
    stray = [role for role in mapping if role not in REQUIRED[kind] and not (kind == "pairs" and role in negatives)]
    if stray:
        raise UsageError(
            f"the column role {stray[0]!r} cannot be combined with {', '.join(REQUIRED[kind])}. Leave it out."
        )
    if kind != "pairs":
        classes = complete["score"] if kind == "scored" and "score" not in mapping else None
        columns = {role: complete[role] for role in REQUIRED[kind]}
        return Layout(kind=kind, columns=columns, classes=classes if _may_be_class(classes) else None)
    negatives = negatives or _negatives(name for name in free if name not in complete.values())
    renumbered = dict(zip(_negative_roles(len(negatives)), negatives.values(), strict=True))
    return _pairs(complete["anchor"], complete["positive"], renumbered)


def _kind_of(mapping: Mapping[str, str]) -> Kind:
    """Returns the kind that a mapping's roles imply; triplets count as pairs here."""
    if {"sentence1", "sentence2", "score"} & set(mapping):
        return "scored"
    if {"anchor", "positive", "negative"} & {role.split("_")[0] for role in mapping}:
        return "pairs"
    return "labelled" if "label" in mapping else "texts"


def _negative_roles(count: int) -> list[str]:
    return ["negative", *(f"negative_{i}" for i in range(2, count + 1))][:count]


def _pairs(
    anchor: str, positive: str, negatives: dict[str, str], notes: tuple[str, ...] = (), classes: str | None = None
) -> Layout:
    columns = {"anchor": anchor, "positive": positive, **negatives}
    return Layout(kind="triplets" if negatives else "pairs", columns=columns, notes=notes, classes=classes)


def _sentence_pair(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns the first known pair of sentence columns; ``None`` if there is none."""
    lower = {name.lower(): name for name in names}
    known = ((first, second) for first, second in SENTENCE_PAIRS if first in lower and second in lower)
    return next(((lower[first], lower[second]) for first, second in known), None)


def _may_be_class(column: str | None) -> bool:
    """Returns whether a column of sentence pairs may hold classes by its name, such as those of inference (NLI)."""
    return column is not None and column.lower() in _CLASS_NAMES


def _detected_layout(names: list[str]) -> Layout | None:
    """Returns the layout by names alone. Tries scored sentence pairs, pairs and triplets, labeled texts, texts."""
    lower = {name.lower(): name for name in names}
    if (pair := _sentence_pair(names)) is not None:
        if score := _known_name("score", names):
            columns = dict(zip(REQUIRED["scored"], (*pair, score), strict=True))
            return Layout(kind="scored", columns=columns, classes=score if _may_be_class(score) else None)
        classes = next(filter(_may_be_class, names), None)
        return _pairs(*pair, {}, ("no score column: rows are read as pairs",), classes)
    anchor, positive = _known_name("anchor", names), _known_name("positive", names)
    if anchor and positive and not ({"_id", "title", "text"} <= set(lower)):
        graded = next((lower[name] for name in ("score", "similarity", "label") if name in lower), None)
        notes = () if graded is None else (
            f"the column {graded!r} is kept but not used: every row counts as a match. For scored pairs, map "
            f"sentence1={anchor},sentence2={positive},score={graded}",
        )  # fmt: skip
        return _pairs(anchor, positive, _negatives(n for n in names if n not in (anchor, positive)), notes)
    text = _known_name("text", names)
    if text is None:
        return None
    label = _known_name("label", (name for name in names if name != text))
    if label:
        return Layout(kind="labelled", columns={"text": text, "label": label})
    return Layout(kind="texts", columns={"text": text})
