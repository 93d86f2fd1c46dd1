"""The results of reading a source: records and quarantined rows, tables of texts, retrieval tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["pairs", "triplets", "scored", "labelled", "texts"]

REQUIRED: dict[Kind, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("sentence1", "sentence2", "score"),
    "labelled": ("text", "label"),
    "texts": ("text",),
}


def kind_name(kind: str) -> str:
    """Returns the name of a kind of rows as a reader sees it."""
    return "labeled" if kind == "labelled" else kind


class Record(NamedTuple):
    """One row as a reader yields it, not checked yet.

    Attributes:
        line: the line where the row starts (text files) or the row number (Parquet, JSON arrays, datasets), from 1.
        values: column → value.
        file: the file or dataset it comes from.
    """

    line: int
    values: dict[str, Any]
    file: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One quarantined row.

    Attributes:
        file: the file or dataset it comes from.
        line: the line where the row starts (text files) or the row number (elsewhere), from 1; 0 is the whole file.
        column: the column at fault; ``None`` if the whole row is.
        reason: what is wrong, in a few words.
        raw: the first 2,000 characters of the row.
    """

    file: str
    line: int
    column: str | None
    reason: str
    raw: str


@dataclass(frozen=True, kw_only=True)
class TextSet:
    """A table of texts whose columns have known roles.

    Attributes:
        name: a short name for reports.
        kind: the key of `REQUIRED` whose columns `dataset` starts with.
        dataset: the rows. The required columns come first, then `negative_2` …, then the other columns of the source.
        quarantined: how many rows are quarantined. A row with a list of positives counts once.
        quarantine_file: the file with the quarantined rows; ``None`` if none was requested or no row was quarantined.
        problems: the first few quarantined rows.
        notes: what was done to the data that the user should know, such as rescaled scores.
        digest: SHA-256 of the rows if they are on disk; ``None`` if they are in memory.
        label_names: column → the names of its numbered classes, as a Hub dataset declares them.
    """

    name: str
    kind: Kind
    dataset: Dataset
    quarantined: int = 0
    quarantine_file: Path | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())
    digest: str | None = None
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """The columns to train on, in order: the required ones and any further negatives."""
        further = [c for c in self.dataset.column_names if re.fullmatch(r"negative_\d+", c)]
        return REQUIRED[self.kind] + tuple(further if self.kind == "triplets" else ())

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The roles that hold text: all except `score` and `label`."""
        return tuple(role for role in self.roles if role not in ("score", "label"))


@dataclass(frozen=True, kw_only=True)
class RetrievalSet:
    """A retrieval task in the BEIR format.

    Attributes:
        name: the name of the folder.
        corpus: document id → title and text, joined by a space if there is a title.
        queries: query id → text, only for queries with a relevant document in the corpus.
        qrels: query id → document id → relevance (0 = judged not relevant).
        split: the split of the judgments, such as ``"test"``.
        missing: the number of judgments dropped because their query or document id is unknown.
        quarantined: the number of quarantined lines in the three files.
        problems: the first few quarantined lines.
        notes: what else was dropped, in words.
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    split: str = "test"
    missing: int = 0
    quarantined: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
