"""Which column plays which role: by the user's mapping, else by the names that public data sets use."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.text.rows import REQUIRED, Kind

MOST_NEGATIVES = 8
ROLES = ("anchor", "positive", "negative", "sentence1", "sentence2", "score", "text", "label")

# In the order of preference; compared without regard to case.
_PAIR = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("text1", "text2"),
    ("text_1", "text_2"), ("text_a", "text_b"),
)  # fmt: skip
_ALIASES: dict[str, tuple[str, ...]] = {
    "anchor": ("anchor", "query", "question", "instruction", "prompt", "docstring",
               "func_documentation_string", "title"),
    "positive": ("positive", "pos", "positives", "positive_passages", "document", "passage", "answer", "response",
                 "code", "func_code_string", "function", "completion", "abstract", "body"),
    "negative": ("negative", "negatives", "neg", "hard_negative", "hard_negatives", "negative_passages"),
    "score": ("score", "similarity", "similarity_score", "relatedness_score", "label", "labels"),
    "text": ("text", "sentence", "content", "document", "passage", "body"),
    "label": ("label", "labels", "label_text", "class", "category", "intent"),
}  # fmt: skip


class UnclearColumns(SpectraError):
    """The roles of a source's columns cannot be told."""


class NoSuchColumn(UnclearColumns):
    """A mapping names a column that the source has not."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A source's kind and where each role's values are.

    Attributes:
        kind: what the source is.
        columns: role → column, the required roles first; `negative`, `negative_2` … name one column each,
            or `negative` alone names a column of text or of lists; `positive` may name one of lists too.
        notes: what the reader should know about the choice.
    """

    kind: Kind
    columns: dict[str, str]
    notes: tuple[str, ...] = ()


def parse_columns(text: str) -> dict[str, str]:
    """``"anchor=title,positive=body"`` → ``{"anchor": "title", "positive": "body"}``.

    A comma that no ``name=`` follows belongs to the column's name.

    Raises:
        UsageError: a part is not ``role=column``, or the role is unknown.
    """
    mapping = {}
    for part in filter(None, (part.strip(" ,") for part in re.split(r",(?=\s*\w+\s*=|\s*$)", text))):
        role, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column:
            raise UsageError(f"--columns: {part!r} is not ROLE=COLUMN. Example: --columns anchor=title,positive=body")
        if role in mapping:
            raise UsageError(f"--columns: the role {role!r} is given twice.")
        mapping[_role(role)] = column
    return mapping


def _role(role: str) -> str:
    if role not in ROLES and not re.fullmatch(r"negative_[2-8]", role):
        raise unknown_name("column role", role, ROLES)
    return role


def layout(available: Sequence[str], columns: Mapping[str, str] | None, *, source: str) -> Layout:
    """Finds the roles in a source's columns.

    Args:
        available: the source's columns.
        columns: role → column as the user wants it; what it names wins over the aliases.
        source: the source's name, for errors.

    Raises:
        NoSuchColumn: a mapped column is not there.
        UnclearColumns: no known set of roles is complete.
        UsageError: `columns` names an unknown role.
    """
    mapping = {_role(role): column for role, column in (columns or {}).items()}
    for role, column in mapping.items():
        if column not in available:
            raise NoSuchColumn(_missing(source, available, f"there is no column {column!r} (given for {role})"))
    free = [name for name in available if name not in mapping.values()]
    found = _mapped(mapping, free) if mapping else _guessed(free)
    if found is None:
        wanted = f"the mapping names only {', '.join(mapping)}" if mapping else "no known column names"
        raise UnclearColumns(_missing(source, available, wanted))
    return found


def _missing(source: str, available: Sequence[str], what: str) -> str:
    sets = "; ".join(f"{kind}: {', '.join(roles)}" for kind, roles in REQUIRED.items())
    has = ", ".join(available) or "none"
    likely = [name for name in available if not re.search(r"(?i)(^|_)(doc)?id$", name)] or list(available)
    first, second = [*likely, *["title", "body"][len(likely) :]][:2]
    semicolons = len(available) == 1 and ";" in first
    hint = " The file seems to be separated by ';': write it with commas." if semicolons else ""
    return (
        f"{source}: {what}. Columns of the source: {has}.{hint} Needed is one of — {sets}. "
        f"Say which is which with --columns ROLE=COLUMN,… (data.columns={{ROLE: COLUMN}} in training), "
        f"such as --columns {shlex.quote(f'anchor={first},positive={second}')}"
    )


def _find(role: str, names: Iterable[str]) -> str | None:
    if role not in _ALIASES:
        return None
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    return next((lower[alias] for alias in _ALIASES[role] if alias in lower), None)


def _negatives(names: Iterable[str]) -> dict[str, str]:
    """The columns of negatives: one called `negative` or `negatives`, and `negative_1`, `negative_2`, … in order."""
    names = list(names)
    first = _find("negative", names)
    matches = ((re.fullmatch(r"(?:hard_)?neg(?:ative)?_(\d+)", name.lower()), name) for name in names)
    numbered = sorted((int(match[1]), name) for match, name in matches if match)
    found = ([first] if first else []) + [name for _, name in numbered]
    return {("negative" if i == 0 else f"negative_{i + 1}"): name for i, name in enumerate(found[:MOST_NEGATIVES])}


def _mapped(mapping: dict[str, str], free: list[str]) -> Layout | None:
    """The layout of an explicit mapping; the aliases fill only what the mapping's kind still needs."""
    if "score" in mapping:  # a score turns a pair into a scored pair
        renamed = {"anchor": "sentence1", "positive": "sentence2"}
        mapping = {renamed.get(role, role): column for role, column in mapping.items()}
    kind = _kind_of(mapping)
    guesses = {role: _find(role, free) or (role if role in free else None) for role in REQUIRED[kind]}
    complete = {role: column for role, column in guesses.items() if column} | mapping
    if kind == "scored" and "score" not in complete and {"sentence1", "sentence2"} <= set(complete):
        return _pairs(complete["sentence1"], complete["sentence2"], {}, ("no score column: read as pairs",))
    if any(role not in complete for role in REQUIRED[kind]):
        return None
    negatives = {role: column for role, column in sorted(mapping.items()) if role.startswith("negative")}
    stray = [role for role in mapping if role not in REQUIRED[kind] and not (kind == "pairs" and role in negatives)]
    if stray:
        raise UsageError(f"the column role {stray[0]!r} does not go together with {', '.join(REQUIRED[kind])}.")
    if kind != "pairs":
        return Layout(kind=kind, columns={role: complete[role] for role in REQUIRED[kind]})
    negatives = negatives or _negatives(name for name in free if name not in complete.values())
    renumbered = dict(zip(_negative_roles(len(negatives)), negatives.values(), strict=True))
    return _pairs(complete["anchor"], complete["positive"], renumbered)


def _kind_of(mapping: Mapping[str, str]) -> Kind:
    """The kind that a mapping's roles point at; triplets count as pairs here."""
    if {"sentence1", "sentence2", "score"} & set(mapping):
        return "scored"
    if {"anchor", "positive", "negative"} & {role.split("_")[0] for role in mapping}:
        return "pairs"
    return "labelled" if "label" in mapping else "texts"


def _negative_roles(count: int) -> list[str]:
    return ["negative", *(f"negative_{i}" for i in range(2, count + 1))][:count]


def _pairs(anchor: str, positive: str, negatives: dict[str, str], notes: tuple[str, ...] = ()) -> Layout:
    columns = {"anchor": anchor, "positive": positive, **negatives}
    return Layout(kind="triplets" if negatives else "pairs", columns=columns, notes=notes)


def _guessed(names: list[str]) -> Layout | None:
    """The layout by names alone: scored sentence pairs, pairs and triplets, labelled texts, texts."""
    lower = {name.lower(): name for name in names}
    for one, two in _PAIR:
        if one in lower and two in lower:
            score = _find("score", names)
            if score:
                columns = {"sentence1": lower[one], "sentence2": lower[two], "score": score}
                return Layout(kind="scored", columns=columns)
            return _pairs(lower[one], lower[two], {}, ("no score column: read as pairs",))
    anchor, positive = _find("anchor", names), _find("positive", names)
    if anchor and positive and not ({"_id", "title", "text"} <= set(lower)):
        graded = next((lower[name] for name in ("score", "similarity", "label") if name in lower), None)
        notes = () if graded is None else (
            f"the column {graded!r} is kept but not used: every row counts as a match. For scored pairs map "
            f"sentence1={anchor},sentence2={positive},score={graded}",
        )  # fmt: skip
        return _pairs(anchor, positive, _negatives(n for n in names if n not in (anchor, positive)), notes)
    text = _find("text", names)
    if text is None:
        return None
    label = _find("label", (name for name in names if name != text))
    if label:
        return Layout(kind="labelled", columns={"text": text, "label": label})
    return Layout(kind="texts", columns={"text": text})
